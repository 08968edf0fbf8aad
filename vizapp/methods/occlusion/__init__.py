"""Occlusion sensitivity (Zeiler & Fergus 2013, section 4.2): the method and its parts."""

from vizapp.methods.occlusion.method import METHOD
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams

__all__ = ["METHOD", "Occlusion", "OcclusionParams"]
