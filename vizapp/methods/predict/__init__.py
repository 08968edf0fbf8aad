"""What a network says about a photo: the method and a file for each kind of answer."""

from vizapp.methods.predict.classes import corner_crops, crops_of
from vizapp.methods.predict.method import METHOD
from vizapp.methods.predict.params import PredictParams

__all__ = ["METHOD", "PredictParams", "corner_crops", "crops_of"]
