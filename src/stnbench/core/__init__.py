"""Errors, identity, seeds and files. Standard library only."""
