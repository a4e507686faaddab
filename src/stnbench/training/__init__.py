"""One network, one training run: device, data order, optimiser, loop, checkpoints, evaluation, health."""
