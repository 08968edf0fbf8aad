"""What happens in a forward pass: its sites, their activations, a recording of its operations."""
