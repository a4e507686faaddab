"""Training of one network: device, data order, optimiser, loop, checkpoints, evaluation, health."""
