"""Diagnostics of the transformers of a network: health, pose error, gradients, dead units, stability."""
