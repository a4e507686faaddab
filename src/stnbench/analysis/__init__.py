"""Statistics: intervals, comparisons, effects and ranks of configurations."""
