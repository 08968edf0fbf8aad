"""Page Architecture."""
