"""Floor 0: errors, identity, seeds and files. Standard library only."""
