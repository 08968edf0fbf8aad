"""The method Predict: what a network says about a photo, whatever kind of answer it gives."""

from __future__ import annotations

from collections.abc import Callable

from vizapp.errors import VizError
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.predict.boxes import detections
from vizapp.methods.predict.class_map import class_map
from vizapp.methods.predict.classes import class_scores
from vizapp.methods.predict.embedding import embedding
from vizapp.methods.predict.params import PredictParams

_BY_TASK: dict[str, Callable[[Question, PredictParams, Job], Result]] = {
    "classes": class_scores,
    "class map": class_map,
    "boxes": detections,
    "embedding": embedding,
}


def predict(question: Question, params: PredictParams, job: Job) -> Result:
    """What the network says about the photo: classes, the class of each cell, boxes, or the photos most like it.

    What is returned depends on the network (`Network.task`). The fact "output" says what it is, "answer" gives it in words.

    Class scores, `arrays`: `probabilities` `[classes]` and `logits` `[classes]`; over several crops, the mean of the crops'
    probabilities (Krizhevsky et al. 2012, section 4.1) and the mean of their logits. `crop_probabilities` `[crops classes]`;
    `boxes` `[crops 4]`, the top, left, bottom and right of each crop in pixels of the photo (beyond its border where the crop
    was padded). `table`: the `top` classes. A network with several heads also gives `heads`, their names, and `head_classes`
    and `head_probabilities` `[heads]`, the most probable class of each and its probability.

    A class map (segmentation): `scores` float32 `[classes h w]`, the logits; `label` int64 `[h w]`, the strongest class of
    each cell (-1 where the probabilities are sigmoids and none is above 0.5); `probability` float32 `[h w]` of the strongest
    class; `area` float64 `[classes]`, the share of the cells with that label; `classes`, their numbers. `table`: the `top`
    classes that cover a cell, the largest first, with the mean of their probability over these cells.

    Boxes (detection): `boxes` float32 `[n 4]`, the top, left, bottom and right in pixels of the crop, `labels` int64 `[n]` and
    `scores` float32 `[n]`, the highest first; `masks` bool `[n H W]` and `keypoints` float32 `[n k 3]` (row, column, visible)
    if the network returns them. `table`: those with a score from `threshold`.

    An embedding: `embedding` float32 `[D]`; `indices` and `distances` `[top]` of the nearest photos by 1 minus the cosine, as
    in `neighbours`, among the folder or the bundled photos. `table`: a row for each of these.

    Raises:
        VizError: no photo, several crops for a map, boxes or an embedding, or the network returns none of these.
    """
    if question.network.task not in _BY_TASK:
        raise VizError(
            f"{question.network.name} returns no class scores, class map, boxes or embedding that could be read; use Feature "
            "maps to see what its layers compute.",
            code="no-prediction",
        )
    return _BY_TASK[question.network.task](question, params, job)


def _no_photo(question: Question) -> str | None:
    return (
        None
        if question.picture is not None
        else "Predict needs a photo; the folder is where the nearest are looked for."
    )


METHOD = Method(
    key="predict",
    title="Predict",
    source="Krizhevsky et al. 2012, section 4.1 (ten crops)",
    params=PredictParams,
    run=predict,
    optional_inputs=frozenset({"folder"}),
    incompatibility=_no_photo,
    shows=(
        Output("label", "label map", over_photo=True, title="The class of each cell"),
        Output(
            "scores", "per-class map", over_photo=True, title="Logit of a class",
            reading="The brighter, the larger the logit of the class in a cell.",
        ),
        Output("table", "table"),
    ),
)  # fmt: skip
