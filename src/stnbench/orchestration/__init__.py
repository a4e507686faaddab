"""The orchestrator: ``machine`` makes the decisions, ``runner`` carries them out."""
