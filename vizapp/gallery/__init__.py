"""Galleries: the strongest pictures of every unit over any collection of pictures, made in one pass, kept as Parquet."""

from __future__ import annotations

from vizapp.gallery.build import Plan, Progress, build
from vizapp.gallery.reader import Gallery, open_gallery

__all__ = ["Gallery", "Plan", "Progress", "build", "open_gallery"]
