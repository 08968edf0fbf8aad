"""The parameters of the method `trust`, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vizapp.errors import VizError, nearest, quoted
from vizapp.methods.attribution import AttributionParams
from vizapp.methods.base import Question
from vizapp.methods.params import Params, knob, knobs
from vizapp.methods.trust.pointing import TOLERANCE, Box

BETTER: dict[str, Literal["lower", "higher", "nearer to 0"]] = {
    "deletion": "lower", "insertion": "higher", "road": "higher", "pointing": "higher", "completeness": "lower",
    "randomisation": "nearer to 0",  # a map that turns round is as bad as one that stays
}  # fmt: skip
KINDS = knobs(AttributionParams)["kind"].choices


@dataclass(frozen=True)
class TrustParams(Params):
    """Which maps are measured, and how."""

    kinds: tuple[str, ...] = knob(
        ("gradcam", "layercam", "eigencam", "integrated_gradients", "guided", "lrp", "random", "edges"),
        "Kinds of attribution",
    )
    measures: tuple[str, ...] = knob(
        (),
        "What is measured: deletion, insertion, road, pointing, completeness, randomisation; empty: all, pointing if there "
        "is a box",
    )
    box: tuple[float, ...] = knob(
        (), f"The object for the pointing game ({TOLERANCE} pixels): top,left,bottom,right in pixels of the crop"
    )
    about: Literal["true", "answer"] = knob(
        "true", "Class that is explained without a unit: the true class of the photo where it is known, or the answer"
    )
    photos: int = knob(20, "Number of photos to take from a folder, evenly spaced; 0: all", low=0)
    seed: int = knob(0, "Random seed of the maps, of equal values, and of noise", low=0, high=2**31 - 1)


def merit(measure: str, values: np.ndarray) -> np.ndarray:
    """Numbers that are higher the better the values of a measure are, `[…]`."""
    better = BETTER[measure]
    return values if better == "higher" else -values if better == "lower" else -np.abs(values)


def chosen_kinds(params: TrustParams) -> tuple[str, ...]:
    """The kinds that were asked for.

    Raises:
        VizError: there are none, or one is no kind of attribution.
    """
    return _known(params.kinds, KINDS, "kind of attribution", "kinds")


def chosen_measures(params: TrustParams, box: Box | None) -> tuple[str, ...]:
    """The measures that were asked for; without any those that the question allows.

    Raises:
        VizError: one does not exist, or "pointing" lacks a box.
    """
    if not params.measures:
        return tuple(measure for measure in BETTER if box is not None or measure != "pointing")
    found = _known(params.measures, tuple(BETTER), "measure", "measures")
    if "pointing" in found and box is None:
        raise VizError(
            "The measure 'pointing' needs the object's box (box=(top, left, bottom, right) in Python, "
            "--box TOP,LEFT,BOTTOM,RIGHT on the command line).",
            code="missing-input",
        )
    return found


def _known(asked: Sequence[str], known: Sequence[str], noun: str, plural: str) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            raise VizError(
                f"There is no {noun} {quoted(name)}.{nearest(name, known)} The {plural} are {', '.join(known)}.",
                code="no-such-choice",
            )
    if not asked:
        raise VizError(f"There are no {plural} to measure; give some of {', '.join(known)}.", code="no-such-choice")
    return tuple(dict.fromkeys(asked))


def chosen_box(question: Question, params: TrustParams) -> Box | None:
    """The box in pixels of the crop, if there is one.

    Raises:
        VizError: it is no box, lies outside of the crop, or the question is about a folder.
    """
    if not params.box:
        return None
    told = ",".join(f"{value:g}" for value in params.box)
    if question.picture is None:
        raise VizError(
            f"The box {told} marks the object of one photo, not of a folder; leave it out, or give a photo.",
            code="bad-value",
        )
    height, width = question.network.input_size[1:]
    if len(params.box) != 4 or any(value != int(value) for value in params.box):
        raise VizError(
            f"The box is {told}; it must be four whole numbers: top, left, bottom and right.", code="bad-value"
        )
    top, left, bottom, right = map(int, params.box)
    if top >= bottom or left >= right:
        raise VizError(
            f"The box {told} (top, left, bottom, right) is empty; bottom must be below top, and right beyond left.",
            code="bad-value",
        )
    if min(top, left) < 0 or bottom > height or right > width:
        raise VizError(
            f"The box {told} (top, left, bottom, right) lies outside of the crop that {question.network.name} sees: {height} "
            f"pixels high and {width} wide; mark it inside.",
            code="part-outside",
        )
    return top, left, bottom, right
