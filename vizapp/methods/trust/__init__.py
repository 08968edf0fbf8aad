"""How far an attribution map can be trusted: deletion, insertion, ROAD and other measures, over one photo or a folder."""

from vizapp.methods.trust.method import METHOD
from vizapp.methods.trust.params import TrustParams

__all__ = ["METHOD", "TrustParams"]
