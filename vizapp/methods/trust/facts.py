"""What a result of `trust` tells beside its numbers: how they were measured, and how to read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vizapp.methods.base import Question
from vizapp.methods.scores import in_words
from vizapp.methods.trust.deletion import blur_sigma
from vizapp.methods.trust.params import BETTER, TrustParams
from vizapp.methods.trust.photo import MapScores, is_class
from vizapp.methods.trust.pointing import TOLERANCE, Box
from vizapp.methods.trust.road import NOISE, SHARES
from vizapp.zoo.network import Network

_LITTLE = 0.5  # share of the score that the blurred photo keeps, above which deletion is called weak
CAUTION = (
    "A photo with deleted pixels is none that the network was trained on, so a score may also fall for that (Hooker 2018); "
    "compare kinds with each other and with random, and trust an order on which deletion, insertion and ROAD agree."
)


def told_facts(
    question: Question,
    params: TrustParams,
    kinds: Sequence[str],
    measures: Sequence[str],
    box: Box | None,
    found: Sequence[MapScores],
    classes: Sequence[int],
    arrays: dict[str, np.ndarray],
) -> dict[str, str]:
    """The facts by name.

    Args:
        question: The question.
        params: Its parameters.
        kinds: The kinds in the order of the arrays.
        measures: The measures in the order of the arrays.
        box: The object, for the pointing game.
        found: What was measured of each photo.
        classes: The class of each photo, -1 if a unit was given.
        arrays: The arrays of the result.
    """
    network = question.network
    facts = {
        "explained": _explained(question, params, found, classes),
        "order": "Pixels in the order of the map, the largest value first; equal values in an order drawn with seed "
        f"{params.seed}{' plus the number of the photo' * (question.folder is not None)}.",
    }
    defined = _definitions(network, box)
    facts |= {measure: defined[measure] for measure in measures}
    facts["score"] = _score(question)
    facts["reading"] = _reading(measures)
    if "low" in arrays:
        facts["interval"] = (
            "± and the arrays low and high: the 95 % interval of the mean over the photos, by Student's t; photos where a "
            "measure is not defined are left out."
        )
    if "wins" in arrays:
        facts |= {f"{kind} against random": text for kind, text in _against_random(kinds, measures, arrays)}
    reasons = Counter(item for one in found for item in one.undefined.items())
    for (name, reason), count in reasons.items():
        of = f" ({count} of {len(found)} photos)" if len(found) > 1 else ""
        facts[f"not defined: {name}"] = f"{reason}{of}"
    if {"deletion", "insertion"} & set(measures):
        facts["blurred"] = _blurred(found)
    unknown = sum(not np.isfinite(one.clean) for one in found)
    if unknown:
        facts["not finite"] = (
            f"The network gives no finite score on {'the photo' if len(found) == 1 else f'{unknown} of {len(found)} photos'}."
        )
    still = sum(one.clean <= 0 for one in found)
    if still:
        facts["not active"] = (
            f"The unit is not above zero on {'the photo' if len(found) == 1 else f'{still} of {len(found)} photos'}, so there "
            "is nothing to delete there."
        )
    flat = Counter(kind for one in found for kind in one.flat)
    for kind, count in flat.items():
        of = "" if len(found) == 1 else f" on {count} of {len(found)} photos"
        facts[f"flat: {kind}"] = f"The map is the same everywhere{of}, so its pixels come in random order."
    return facts | {"caution": CAUTION}


def _explained(question: Question, params: TrustParams, found: Sequence[MapScores], classes: Sequence[int]) -> str:
    network, unit = question.network, question.unit
    if unit is not None:
        named = network.class_names(network.site(unit.site))
        return f"{named[unit.channel]} ({unit.channel})" if named else f"unit {unit.channel} of {unit.site}"
    if question.folder is None:
        return f"{network.class_name(classes[0])} ({classes[0]}), {in_words(network, found[0].clean)}"
    true = "the true class of each photo where its label is known, else the network's answer"
    return true if params.about == "true" else "the network's answer for each photo"


def _score(question: Question) -> str:
    network, unit = question.network, question.unit
    if unit is None or is_class(network, unit):
        if network.quantity != "probability":
            return f"The {network.quantity}, as the target defines it."
        return f"The probability of the class. {network.output_description}"
    return "The activation of the unit at its strongest cell, divided by that on the whole photo."


def _blurred(found: Sequence[MapScores]) -> str:
    clean, hidden = (float(np.mean(values)) for values in zip(*((one.clean, one.hidden) for one in found), strict=True))
    of = f" (means over {len(found)} photos)" if len(found) > 1 else ""
    told = f"The score of the photo is {clean:.3g}, that of the blurred photo {hidden:.3g}{of}."
    if hidden > _LITTLE * clean:
        told += " So deletion removes little of what the network uses: rather compare by ROAD."
    return told


def _definitions(network: Network, box: Box | None) -> dict[str, str]:
    """How each measure is made."""
    side = min(network.input_size[1:])
    near = f" That is more than a quarter of {side} pixels, so nearly every map hits." if side / 4 < TOLERANCE else ""
    blur = f"blurred by a Gaussian with a standard deviation of {blur_sigma(*network.input_size[1:]):.3g} pixels"
    steps, told_box = "1 % of the pixels at a time", ",".join(map(str, box or ()))
    return {
        "deletion": f"Area under the score while the photo is deleted, {steps}, to the photo {blur}.",
        "insertion": f"Area under the score while the photo is inserted, {steps}, from the photo {blur}.",
        "road": f"(LeRF − MoRF) / 2: half the mean score with {SHARES[0]}, {SHARES[1]}, … {SHARES[-1]} % of the pixels "
        "removed, least relevant first, less that with the most relevant first. Removed pixels are imputed from their "
        f"neighbours, plus noise with a standard deviation of {NOISE} of the range from black to white.",
        "pointing": f"1 if the strongest pixel is at most {TOLERANCE} pixels from the box {told_box}, else 0.{near}",
        "completeness": "The gap between the sum of the map and what it promises, as a share of it: for integrated_gradients "
        "and deeplift the rise of the unit above an input of zeros, for lrp the unit's value, of which biases and stabilisers "
        "may take a part. The other kinds promise no sum.",
        "randomisation": "Rank correlation (Spearman) of the absolute values with the same kind's map on the network with the "
        "numbers of every parameter shuffled; 1 means that the map does not depend on what the network learned.",
    }


def _reading(measures: Sequence[str]) -> str:
    parts = []
    for word in dict.fromkeys(BETTER.values()):
        names = [measure for measure in measures if BETTER[measure] == word]
        if names:
            parts.append(f"{word} is better for {', '.join(names)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _against_random(
    kinds: Sequence[str], measures: Sequence[str], arrays: dict[str, np.ndarray]
) -> list[tuple[str, str]]:
    """For each kind on how many photos it is better than the random map, by measure."""
    rows = []
    for row, kind in enumerate(kinds):
        counted = [
            f"{measure} {arrays['wins'][row, column]} of {arrays['compared'][row, column]}"
            for column, measure in enumerate(measures)
            if arrays["compared"][row, column]
        ]
        if kind != "random" and counted:
            rows.append(
                (kind, f"better on {', '.join(counted)} photos" if "low" in arrays else f"better: {', '.join(counted)}")
            )
    return rows
