"""The method Predict: what a network says about a photo, whatever kind of answer it gives."""

from __future__ import annotations

from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.predict.classes import class_scores
from vizapp.methods.predict.params import PredictParams


def predict(question: Question, params: PredictParams, job: Job) -> Result:
    """What the network says about the photo: the most probable classes, with probabilities and logits."""
    return class_scores(question, params, job)


METHOD = Method(
    key="predict",
    title="Predict",
    source="Krizhevsky et al. 2012, section 4.1 (ten crops)",
    params=PredictParams,
    run=predict,
    shows=(Output("table", "table"),),
)
