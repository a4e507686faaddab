"""Intervals and comparisons, for whoever ranks cells."""
