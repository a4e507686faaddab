"""Fixtures of several tests."""

from own_parts import parts_forgotten

__all__ = ["parts_forgotten"]
