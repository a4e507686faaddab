"""The toy task of ``toy_training``, and torch's settings put back after every test."""

from toy_training import make_run, one_thread, toy_set, toy_spec

__all__ = ["make_run", "one_thread", "toy_set", "toy_spec"]
