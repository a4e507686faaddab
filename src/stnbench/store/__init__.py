"""Floor 5: the store, the only truth about trials. One process writes it; any number read it."""
