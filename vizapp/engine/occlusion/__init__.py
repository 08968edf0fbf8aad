"""Occlusion sweeps that recompute only what an occluder changes."""
