"""Fitting, comparing, measuring and publishing networks, and the command line."""
