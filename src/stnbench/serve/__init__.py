"""The live page of sweeps: what the store says now, on this machine alone, with controls."""
