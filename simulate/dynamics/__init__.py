"""Dynamics: how fields move in forces, or by their own equations."""
