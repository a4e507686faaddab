"""The execution of one trial, from its specification to its result; ``run`` is the only entry to torch."""
