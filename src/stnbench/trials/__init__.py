"""Floor 5: one trial from its specification to its result; ``run`` is the one door to torch."""
