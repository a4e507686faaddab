"""Reports of sweeps, from the store to tables for people and programs. ``output`` is the entry point."""
