"""Configurations by name, for ``latticezoo fit --config`` and ``latticezoo simulate``."""
