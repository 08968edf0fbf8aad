"""What layers are: their costs, their kernels, the gratings that kernels are tuned to."""
