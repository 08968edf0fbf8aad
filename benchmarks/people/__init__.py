"""Simulated users of `many_users.py`: the links they open, the steps they take and the results they see."""
