"""What the transformers of a network did: health, pose error, gradients, dead units, stability."""
