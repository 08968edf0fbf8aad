"""Page Filters."""
