"""Running statistics over many images: top activations, sums, correlations."""
