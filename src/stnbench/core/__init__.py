"""Errors, identity, seeds, paths and files; standard library only."""
