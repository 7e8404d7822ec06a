"""The arrays that networks are trained on: region datasets, their splits, input channels and simulated crusts."""
