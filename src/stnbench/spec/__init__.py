"""Specifications of trials, sweeps and results as frozen dataclasses, without torch and without I/O."""
