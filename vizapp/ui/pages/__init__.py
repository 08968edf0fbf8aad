"""One file or folder per page."""
