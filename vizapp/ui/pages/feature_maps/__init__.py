"""Page "Feature maps"."""
