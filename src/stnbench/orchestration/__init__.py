"""The orchestrator. ``machine`` decides, ``runner`` does."""
