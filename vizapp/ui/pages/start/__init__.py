"""Page Start."""
