"""The store, the only truth about trials. One process writes it; any number read it."""
