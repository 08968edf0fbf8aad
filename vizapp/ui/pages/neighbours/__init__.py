"""The page Neighbours."""
