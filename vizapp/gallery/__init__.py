"""Galleries: the top-activating pictures of every unit over a data set, computed in one pass and stored as Parquet."""

from __future__ import annotations

from vizapp.gallery.build import GalleryOptions, build
from vizapp.gallery.folder_pass import Progress
from vizapp.gallery.reader import Gallery, open_gallery

__all__ = ["Gallery", "GalleryOptions", "Progress", "build", "open_gallery"]
