"""Page Projection."""
