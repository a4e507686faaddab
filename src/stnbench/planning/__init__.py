"""Planners propose trials."""
