"""Trackers show the store to people. A tracker is a view: it may fail, and it can be rebuilt."""
