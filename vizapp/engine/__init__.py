"""Looking into any network: what activations it has, what they are on a picture, where they come from."""
