"""Page Gallery."""
