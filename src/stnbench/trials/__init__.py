"""One trial from its specification to its result; ``run`` is the one door to torch."""
