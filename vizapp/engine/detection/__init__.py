"""Detectors: the boxes they find, all that they proposed, and how well these match a box."""
