"""Pictures of the effects of spatial transformers, and tables of the stability of their output."""
