"""The page Transform."""
