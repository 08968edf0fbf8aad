"""People of `many_users.py`: where they go, what they do there, and what they see."""
