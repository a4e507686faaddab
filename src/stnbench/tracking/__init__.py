"""Trackers, which display the store's contents. A tracker is a view: it may fail, and it can be rebuilt."""
