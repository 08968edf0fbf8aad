"""A context manager that says whether the program is inside."""

from __future__ import annotations


class Block:
    """Stands for a function that returns a context manager; `active` inside the block."""

    active = False

    def __call__(self) -> Block:
        return self

    def __enter__(self) -> None:
        self.active = True

    def __exit__(self, *error: object) -> None:
        self.active = False
