"""The method `occlusion`: a sweep over one picture, or over each picture of a folder."""

from __future__ import annotations

from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.occlusion.batch import occlude_images
from vizapp.methods.occlusion.other_images import with_others
from vizapp.methods.occlusion.panel_data import views
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams, fit_square
from vizapp.methods.output import Output

# True as well where all but the square is hidden.
_HIGH = "Bright: it is high with the square here, dark: it is low."
_DROP = "Red: with a square here, the logit is lower than that of the whole photo, blue: it is higher."


def occlusion(question: Question, params: OcclusionParams, job: Job) -> Result:
    """Probability, prediction and activation of a late feature map for each position of a square that hides a part.

    `arrays` (h w: positions of the square; K classes):
    `class`: the class in question: the unit's, else the true class if it is known, else the clean prediction.
    `probability`, `logit`: float32 `[h w]` of that class. `label`: int64 `[h w]`, the most probable class.
    `activation`: float32 `[h w]`, the sum of the late map that is strongest for the clean picture.
    `clean_probability`, `clean_logit`, `clean_label`, `clean_activation`: the same for the clean picture.
    `true_label`: the true class, -1 if unknown.
    `positions`: int64 `[h w 4]`, (top, left, bottom, right) in pixels of the network's crop; may extend beyond it.
    `projection`: `[H W 3]`, the late map projected to the pixels.
    `classes` `[K]`, `probabilities` and `logits` `[h w K]`, `clean_probabilities` and `clean_logits` `[K]`: for maps of
    other classes. `per_pixel`: float32 `[H W]`, as Captum's `Occlusion` returns it: the mean drop of the logit over the
    squares that cover a pixel. `others` …: other pictures for panel (c), see `other_images.other_pictures`.
    `table`: the classes of panel (e), with colours.

    With a folder and no picture, each picture of the folder is swept: see `batch.occlude_images`. With both, the folder
    provides the other pictures of panel (c), if `others` requests them.
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
    views=views,
    shows=(
        Output("probability", "heat map", over_photo=True, reading=_HIGH),
        Output("label", "label map", over_photo=True, title="Most probable class"),
        Output("activation", "heat map", over_photo=True, reading=_HIGH),
        Output("projection", "signed image"),
        Output("per_pixel", "signed map", over_photo=True, title="Mean drop of the logit", reading=_DROP),
    ),
)
