"""What a trial, a sweep and a result are. Frozen dataclasses; no torch, no I/O."""
