"""Training: configuration, loss, optimiser, training loop, checkpoints and distributed runs."""
