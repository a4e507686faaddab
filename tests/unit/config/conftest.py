"""Shared by tests of sweeps and choices."""

from own_parts import parts_forgotten

__all__ = ["parts_forgotten"]
