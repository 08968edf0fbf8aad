"""The frame around every page, and the sidebar."""
