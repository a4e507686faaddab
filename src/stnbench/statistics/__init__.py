"""Floor 1: intervals and comparisons, for whoever ranks cells."""
