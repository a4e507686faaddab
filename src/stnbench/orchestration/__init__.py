"""Floor 7: the orchestrator. ``machine`` decides, ``runner`` does."""
