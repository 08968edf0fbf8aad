"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a busy machine is slow, and what is to be fast is measured elsewhere.
settings.register_profile("vizapp", deadline=None)
settings.load_profile("vizapp")
