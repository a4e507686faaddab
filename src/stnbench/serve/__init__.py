"""The live page of sweeps, which shows the present state of the store, with controls, on this machine only."""
