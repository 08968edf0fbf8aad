"""Feature visualization by activation maximization."""
