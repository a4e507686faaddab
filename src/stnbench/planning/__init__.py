"""Floor 6: planners propose trials."""
