"""Galleries: the strongest pictures of every unit over any collection of pictures, made in one pass, kept as Parquet."""

from __future__ import annotations

from vizapp.gallery.build import GalleryOptions, Progress, build
from vizapp.gallery.reader import Gallery, open_gallery

__all__ = ["Gallery", "GalleryOptions", "Progress", "build", "open_gallery"]
