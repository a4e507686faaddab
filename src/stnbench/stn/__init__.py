"""Floor 2: spatial transformers: transformations, sampling, localisation networks, and the module of all three."""
