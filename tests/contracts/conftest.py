"""Fixtures of several contracts."""

from toy_training import make_run, toy_set, toy_spec

__all__ = ["make_run", "toy_set", "toy_spec"]
