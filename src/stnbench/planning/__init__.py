"""Planners, which propose the trials of sweeps."""
