"""Spatial transformers: transformations, sampling, localisation networks, and the module of all three."""
