"""Pictures of what spatial transformers do, and how still they hold what they show."""
