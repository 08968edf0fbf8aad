"""Correspondence: whether hiding the same part of several photos changes their features alike, and more than its place does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import check_fits, in_chunks
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.media.drawing import draw_box, sheet
from vizapp.media.picture import open_picture
from vizapp.media.stacks import shown_values
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.occlusion.occluder import filling
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.parts import FEWEST, MOST, Box, Part, read_parts
from vizapp.methods.stages import stage_sites
from vizapp.zoo.network import Network

AT_ONCE = 6  # photos in a pass; cancelling waits for the end of one
_HELD = 3  # copies of all features: of the photos as they are, and of the masked ones before and after they are joined
_ALL, _NONE = 0.95, 0.05  # shares that are called all and none


@dataclass(frozen=True)
class CorrespondenceParams(Params):
    """The marked parts, the layers, and the random squares that they are compared with."""

    parts: tuple[Part, ...] = knob(
        (),
        f"{FEWEST} to {MOST} photos with a marked part each: a CSV file with the columns path, top, left, bottom and right, "
        "in pixels of the crop that the network sees",
        read=read_parts,
    )
    sites: tuple[str, ...] = knob((), "Layers; by default a few feature maps from early to late, and the logits")
    draws: int = knob(10, "Number of draws of the random squares", low=1, high=100)
    seed: int = knob(0, "Random seed of the squares", low=0)


def disagreement(before: Tensor, after: Tensor) -> float:
    """Δ of features `[photos features]` without and with a part hidden, of at most 12 photos.

    The share of pairs of photos with another sign of the change, averaged over the features. No change, of which NaN is
    one, is a sign of its own. Counted per feature: the photos in which it rises, falls and stays.
    """
    photos, features = before.shape
    rises, falls = (torch.zeros(features, dtype=torch.uint8, device=before.device) for _ in range(2))
    for one, other in zip(before, after, strict=True):
        rises += (one > other).view(torch.uint8)
        falls += (one < other).view(torch.uint8)
    stays = photos - rises - falls
    alike = int(
        (rises * rises + falls * falls + stays * stays).sum(dtype=torch.int64)
    )  # ordered pairs; at most 144 each
    return (photos**2 * features - alike) / (photos * (photos - 1) * features)


def squares(
    boxes: Sequence[Box], size: tuple[int, int], draws: int, seed: int
) -> tuple[list[list[Box]], list[list[Box]]]:
    """Random places inside a crop of `size` (height, width) for boxes as large as these, a list of boxes per draw.

    The first list has a place of its own for each photo. In the second, the boxes of a draw have one centre: a place is
    drawn for a box as high and as wide as the largest, in which the smaller ones are centred.
    """
    generator = np.random.default_rng(seed)
    sides = [(bottom - top, right - left) for top, left, bottom, right in boxes]
    largest = (max(height for height, _ in sides), max(width for _, width in sides))

    def position(side: tuple[int, int]) -> tuple[int, int]:
        top, left = (int(generator.integers(length - part + 1)) for length, part in zip(size, side, strict=True))
        return top, left

    own, shared = [], []
    for _ in range(draws):
        own.append([_box(position(side), side) for side in sides])
        top, left = position(largest)
        centred = [(top + (largest[0] - height) // 2, left + (largest[1] - width) // 2) for height, width in sides]
        shared.append([_box(start, side) for start, side in zip(centred, sides, strict=True)])
    return own, shared


def _box(start: tuple[int, int], side: tuple[int, int]) -> Box:
    return (*start, start[0] + side[0], start[1] + side[1])


def share_of_place(parts: float, random: np.ndarray, shared: np.ndarray) -> float | None:
    """How much of what the parts have in common their place alone explains: (random - shared) / (random - parts), of means.

    None if the parts are no more alike than random squares: if their Δ is not below the mean of `random` by more than twice
    its standard deviation, there is nothing to explain.
    """
    effect = float(random.mean()) - parts
    if effect <= max(2 * (_deviation(random) or 0.0), 0.0):
        return None
    return (float(random.mean()) - float(shared.mean())) / effect


def _deviation(values: np.ndarray) -> float | None:
    """The standard deviation of a sample; None of a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def in_words(share: float | None) -> str:
    """What the share that place alone explains means."""
    if share is None:
        return "the parts are no more alike than random squares"
    amount = "all" if share >= _ALL else "none" if share <= _NONE else f"about {100 * share:.0f} %"
    return f"place alone explains {amount} of what the parts have in common"


def default_sites(network: Network) -> tuple[Site, ...]:
    """A few feature maps from early to late, and the logits; the last layer of a network that has neither."""
    logits = logits_of(network)
    return (*stage_sites(network), *([logits] if logits else [])) or network.sites[-1:]


def logits_of(network: Network) -> Site | None:
    """The site of the class scores, before a softmax or sigmoid; None if there is none."""
    layers, count = network.head.layers if network.heads else (), len(network.categories)
    found = [site for site in network.sites if site.name in layers and site.channels == math.prod(site.shape) == count]
    return next((site for site in reversed(found) if site.kind not in ("softmax", "activation")), None)


def correspondence(question: Question, params: CorrespondenceParams, job: Job) -> Result:
    """Whether hiding the same part of several photos changes their features alike, compared with random squares.

    For photo i, ε_i is the features of the photo minus those of the photo with a box of mid-grey. Δ is the share of pairs of
    photos in which the sign of ε differs, averaged over all features of a layer (sign(0) is a value of its own): 0 if all
    photos change alike, 1/2 for independent signs. Table 1 of the paper sums over the pairs instead.

    `arrays` (float64): `parts` `[sites]`, Δ with the marked parts hidden; `random` `[sites draws]`, each photo with a square
    of its part's size at a random place of its own; `shared` `[sites draws]`, with these squares at one random place for all
    photos (`squares`). The paper has no such control: it is what mere position explains. `table`: a row per layer; `place`
    is the share that place alone explains (`share_of_place`).

    Raises:
        VizError: there are not 3 to 12 photos, one cannot be read, or a part lies outside of the crop.
    """
    network = question.network
    if not params.parts:
        raise VizError(
            f"Correspondence needs {FEWEST} to {MOST} photos with a marked part each "
            "(parts=[(photo, (top, left, bottom, right)), …] in Python, --parts FILE.csv on the command line).",
            code="missing-input",
        )
    photos = [open_picture(part.photo) for part in params.parts]
    crops, boxes = [network.crop(photo) for photo in photos], [part.box for part in params.parts]
    for photo, box in zip(photos, boxes, strict=True):
        _check_inside(network, photo.name, box)
    sites = tuple(dict.fromkeys(map(network.site, params.sites))) if params.sites else default_sites(network)
    own, shared = squares(boxes, crops[0].shape[:2], params.draws, params.seed)
    found = _measure(network, crops, [boxes, *own, *shared], sites, job)
    arrays = {"parts": found[:, 0], "random": found[:, 1 : 1 + params.draws], "shared": found[:, 1 + params.draws :]}
    table = tuple(_row(site, *(arrays[name][number] for name in arrays)) for number, site in enumerate(sites))
    facts = {
        "photos": f"{len(photos)}: {', '.join(photo.name for photo in photos)}",
        "summary": _summary(network, table),
        "squares": f"Mid-grey, as large as the part of each photo. Draws of random and of shared places: {params.draws} each, "
        f"seed {params.seed}, anywhere inside the crop of {crops[0].shape[0]} × {crops[0].shape[1]} pixels."
        + _sizes(boxes),
        "caution": "Compare within a layer, not between layers: at early layers a square leaves most features as they are, "
        "which makes all values low. A few photos are a small sample, and a sign counts however small the change is.",
    }
    marked = [draw_box(shown_values(crop), box) for crop, box in zip(crops, boxes, strict=True)]
    panel = Panel(
        "parts", sheet(marked, math.ceil(math.sqrt(len(marked))), gap=4), "What the network sees, parts framed."
    )
    return Result("correspondence", arrays, (panel,), facts, table)


def _check_inside(network: Network, name: str, box: Box) -> None:
    height, width = network.input_size[1:]
    top, left, bottom, right = box
    if min(top, left) < 0 or bottom > height or right > width:
        raise VizError(
            f"The part of {name} is {top},{left},{bottom},{right} (top, left, bottom, right), which lies outside of the crop "
            f"that {network.name} sees: {height} pixels high and {width} wide; mark it inside.",
            code="part-outside",
        )


def _measure(
    network: Network, crops: Sequence[np.ndarray], hidden: Sequence[Sequence[Box]], sites: Sequence[Site], job: Job
) -> np.ndarray:
    """Δ at each site for each list of hidden boxes: float64 `[sites lists]`."""
    each = sum(math.prod(site.shape) for site in sites) * network.dtype.itemsize
    wanted = _HELD * len(crops) * each
    check_fits(wanted, network.device, f"the features of {len(crops)} photos at {len(sites)} layers", "fewer layers")
    passed: list[int] = []  # photos in each pass

    def features(pictures: Sequence[np.ndarray], size: int) -> dict[str, Tensor]:
        def run(some: Sequence[np.ndarray]) -> dict[str, Tensor]:
            values = observe(network.module, network.batch(some), sites)
            passed.append(len(some))
            return values

        chunks = list(in_chunks(pictures, run, size))
        return {site.name: torch.cat([one[site.name].flatten(1) for one in chunks]) for site in sites}

    clean = features(crops, network.batch_limit(AT_ONCE))
    # Masked photos go through in batches of the same size: rounding differs between sizes, and the features that a square
    # does not reach would no longer be equal.
    size, found = passed[0], np.empty((len(sites), len(hidden)))
    for number, boxes in enumerate(hidden):
        job.report((1 + number) / (1 + len(hidden)))
        masked = features([_hide(crop, box) for crop, box in zip(crops, boxes, strict=True)], size)
        for row, site in enumerate(sites):
            found[row, number] = disagreement(clean[site.name], masked[site.name])
    return found


def _hide(crop: np.ndarray, box: Box) -> np.ndarray:
    """The crop with a box of mid-grey."""
    hidden = crop.copy()
    hidden[box[0] : box[2], box[1] : box[3]] = filling(crop, "grey")[0, 0]
    return hidden


def _row(site: Site, parts: float, random: np.ndarray, shared: np.ndarray) -> dict[str, Any]:
    parts = float(parts)
    share = share_of_place(parts, random, shared)
    return {
        "layer": site.name, "features": math.prod(site.shape), "parts": parts,
        "random": float(random.mean()), "random sd": _deviation(random),
        "shared": float(shared.mean()), "shared sd": _deviation(shared),
        "place": share, "meaning": in_words(share),
    }  # fmt: skip


def _summary(network: Network, table: Sequence[dict[str, Any]]) -> str:
    """What the first and the last layer say, in a sentence."""
    logits = logits_of(network)
    named = {row["layer"]: row["meaning"] for row in (table[0], table[-1])}
    told = [f"at {'the logits' if logits and name == logits.name else name} {words}" for name, words in named.items()]
    sentence = "; ".join(told)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _sizes(boxes: Sequence[Box]) -> str:
    sides = {(bottom - top, right - left) for top, left, bottom, right in boxes}
    return " The parts differ in size; at a shared place all squares have one centre." if len(sides) > 1 else ""


METHOD = Method(
    key="correspondence",
    title="Correspondence",
    source="Zeiler & Fergus 2013, section 4.3 and table 1",
    params=CorrespondenceParams,
    run=correspondence,
    needs=frozenset(),
    memory_hint="fewer layers",
    shows=(Output("table", "table"),),
)
