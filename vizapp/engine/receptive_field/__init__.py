"""Receptive fields by interval arithmetic through a pass."""
