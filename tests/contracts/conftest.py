"""Fixtures of several contracts."""

from own_parts import parts_forgotten
from toy_training import make_run, toy_set, toy_spec

__all__ = ["make_run", "parts_forgotten", "toy_set", "toy_spec"]
