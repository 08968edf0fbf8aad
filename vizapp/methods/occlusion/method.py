"""The method `occlusion`: a sweep over one picture, or over each picture of a folder."""

from __future__ import annotations

from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.occlusion.batch import occlude_images
from vizapp.methods.occlusion.other_images import with_others
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams, fit_square
from vizapp.methods.output import Output


def occlusion(question: Question, params: OcclusionParams, job: Job) -> Result:
    """Probability, prediction and activation of a late feature map for each position of a square that hides a part.

    `arrays` (h w: positions of the square; K classes): `probability`, `logit` `[h w]` float32 of the class in question
    (the unit's, else the true one where it is known, else the clean prediction), whose number is `class`; `true_label`,
    -1 where it is not known; `label` `[h w]` int64, the most probable class; `activation` `[h w]` float32,
    the sum over the cells of the late map that is strongest on the clean picture; `positions` int64 `[h w 4]` (top, left,
    bottom, right) in pixels of what the network sees, which may leave the picture; `clean_probability`, `clean_logit`,
    `clean_label`, `clean_activation`; `projection` `[H W 3]`, that map sent down to the pixels; `probabilities` and
    `logits` `[h w K]` of `classes` `[K]` (`clean_probabilities` and `clean_logits` `[K]`), from which any other class can
    be shown; `per_pixel` float32 `[H W]`, Captum's quantity (mean drop of the logit over the squares that cover a pixel).
    `table`: the classes of panel (e), with colours. Where other pictures for (c) are there: `others` and what comes with
    it, as `other_images.other_pictures` says.

    A folder without a picture is swept picture by picture: see `batch.occlude_images`. A folder with a picture is
    where the other pictures of (c) come from, if `others` requests them.
    """
    if question.picture is None:
        return occlude_images(question, params, job)
    work = Occlusion(question, params)
    for share in work.run():
        job.report(0.9 * share)
    return with_others(question, work, work.result(), job)


METHOD = Method(
    key="occlusion",
    title="Occlusion",
    source="Zeiler & Fergus 2013, section 4.2 and figure 7",
    params=OcclusionParams,
    run=occlusion,
    optional_inputs=frozenset({"unit", "folder"}),
    fit=fit_square,
    memory_hint="a larger stride",
    shows=(
        Output("probability", "heat map", over_photo=True),
        Output("label", "label map", over_photo=True, title="Most probable class"),
        Output("activation", "heat map", over_photo=True),
        Output("projection", "signed image"),
        Output("per_pixel", "signed map", over_photo=True, title="Mean drop of the logit"),
    ),
)
