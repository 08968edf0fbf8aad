"""Shared widgets: browser components, maps, charts, the unit picker."""
