"""The page Correspondence: the same part of several photos, and how much of the effect is its place."""
