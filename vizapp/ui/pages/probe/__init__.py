"""Page "What each layer knows"."""
