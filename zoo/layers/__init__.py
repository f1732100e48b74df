"""Layers from which networks on lattices are built."""
