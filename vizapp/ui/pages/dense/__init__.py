"""Page Dense."""
