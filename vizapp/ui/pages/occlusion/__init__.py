"""Page Occlusion."""
