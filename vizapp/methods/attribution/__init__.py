"""Attribution maps: the method, and its kinds by family."""

from vizapp.methods.attribution.kind import Cam, Kind
from vizapp.methods.attribution.kinds import KINDS
from vizapp.methods.attribution.method import METHOD
from vizapp.methods.attribution.params import AttributionParams

__all__ = ["KINDS", "METHOD", "AttributionParams", "Cam", "Kind"]
