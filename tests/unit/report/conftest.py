"""The made-up store of ``stored_sweeps``."""

from stored_sweeps import runs, sizes, store

__all__ = ["runs", "sizes", "store"]
