"""Floor 4: one network, one training run: device, data order, optimiser, loop, checkpoints, evaluation, health."""
