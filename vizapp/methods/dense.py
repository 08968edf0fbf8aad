"""Dense prediction: the classifier, made convolutional, at every place of a large photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vizapp.engine.chunks import in_chunks
from vizapp.engine.convolution import Plan, plan
from vizapp.engine.dense import DenseMap, cells, dense_map, strides
from vizapp.errors import VizError
from vizapp.media.drawing import categorical, heat, place
from vizapp.media.transforms import resize
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.params import Params, knob
from vizapp.zoo.network import Network

# How far OverFeat's six scales are larger than its crop, in native strides (section 3.3: 24 … 240 of 36 pixels).
STEPS = (2 / 3, 5 / 3, 8 / 3, 14 / 3, 17 / 3, 20 / 3)
LARGEST = 256e6  # bytes of scores; above, only those of the strongest classes are kept
SHOWN = 1600  # pixels of the longer side of a panel
NAMED = 8  # classes with a colour of their own


@dataclass(frozen=True)
class DenseParams(Params):
    """Which part of the photo at which size, how fine, and who votes."""

    input: Literal["photo", "crop"] = knob("photo", "The whole photo at its scale, or exactly what `predict` sees")
    stride: str = knob(
        "native", 'Pixels between cells: "native", or a number that divides the native stride (16, 8, 4)'
    )
    zoom: float = knob(1.0, "Size of the photo in the map, as a part of its own", low=0.02, high=8.0)
    scales: int = knob(1, "Sizes of the photo that vote: 1, or up to six, as OverFeat's", low=1, high=6)
    flips: bool = knob(False, "Let the mirror image vote as well")
    vote: Literal["max", "mean"] = knob("max", "What a size says: its greatest score of each class, or the mean")
    check: int = knob(8, "Cells that are compared with their crop alone", low=0, high=64)


def dense(question: Question, params: DenseParams, job: Job) -> Result:
    """What the network says about every crop of the photo, in one pass.

    `arrays`: `scores` float32 `[classes h w]` (logits; of a large map only the strongest classes, which `classes` then
    lists); `label` `[h w]`; `boxes` `[h w 4]` (top, left, bottom, right of the crop that a cell saw, in pixels of the
    photo); `prediction` `[classes]`, logits averaged over the map; `peak` `[classes]`, their greatest; `vote`
    `[classes]`, the mean of `votes` `[scales·flips classes]`; `checked` `[n 2]` and `difference` `[n]`, the cells that
    were compared with their crops and the mean difference of logits there. `table`: the classes of the map.
    """
    network = question.network
    made = convolutional(network)
    stride = _stride(params.stride, made, network)
    view = _view(question, params)
    keep = _kept(network, made, view, stride, job)
    found = _map(network, made, view.pixels, stride, keep, job, 0.1, 0.6)
    votes, pyramid = _votes(question, params, made, view, found, stride, job)
    checked, difference, same = _checked(network, made, view.pixels, found, params.check)
    job.tick(0.95)
    boxes = view.in_photo(found.boxes(made.size))
    arrays = {
        "scores": found.scores,
        "label": found.label,
        "boxes": boxes,
        "prediction": found.mean.astype(np.float32),
        "peak": found.peak,
        "vote": votes.mean(0).astype(np.float32),
        "votes": votes.astype(np.float32),
        "checked": checked,
        "difference": difference,
    }
    if keep is not None:
        arrays["classes"] = found.classes
    table = _table(network, found, arrays["vote"])
    facts = _facts(network, made, found, view) | _checks(difference, same, made)
    return Result("dense", arrays, _panels(view, made, found, table, pyramid), facts, table)


def convolutional(network: Network) -> Plan:
    """The plan of the network's convolutional twin.

    Raises:
        VizError: it has none; the sentence says why.
    """
    noise = np.random.default_rng(0).integers(0, 256, (*network.input_size[1:], 3), dtype=np.uint8)
    return plan(network.module, network.batch([noise]))


def _stride(asked: str, made: Plan, network: Network) -> int:
    known = strides(made)
    if asked == "native":
        return known[0]
    if asked.isdigit() and int(asked) in known:
        return int(asked)
    raise VizError(
        f"stride is {asked!r}; the map of {network.name} can have "
        f'"native" ({known[0]}) or one of {", ".join(map(str, known[1:])) or "no other"} pixels.'
    )


@dataclass(frozen=True)
class View:
    """What is laid out for the network: pixels, and where they are in the photo (`scale` = pixels per photo pixel)."""

    pixels: np.ndarray
    scale: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)
    name: str = "the photo at its own scale"

    def in_photo(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes `[... 4]` of this view in pixels of the photo, rounded."""
        corner = np.array(self.origin * 2)
        return np.rint((boxes + corner) / np.array(self.scale * 2)).astype(np.int64)


def _view(question: Question, params: DenseParams) -> View:
    picture, network = question.the_picture(), question.network
    if params.input == "photo":
        return _zoomed(picture.pixels, params.zoom)
    if params.zoom != 1 or params.scales != 1:
        raise VizError('zoom and scales change the size of the photo; take input="photo" with them.')
    seen, how = network.seen(picture), network.preprocessing
    height, width = picture.height, picture.width
    if how.resize is None:
        return View(seen, (how.height / height, how.width / width), name="the crop that predict sees")
    scale = how.resize / min(height, width)
    sizes = [
        how.resize if side == min(height, width) else int(how.resize * side / min(height, width))
        for side in (height, width)
    ]
    origin = round((sizes[0] - how.height) / 2), round((sizes[1] - how.width) / 2)
    return View(seen, (scale, scale), origin, "the crop that predict sees")


def _zoomed(pixels: np.ndarray, zoom: float) -> View:
    if zoom == 1:
        return View(pixels)
    height, width = (max(1, round(side * zoom)) for side in pixels.shape[:2])
    scale = height / pixels.shape[0], width / pixels.shape[1]
    return View(resize(pixels, height, width), scale, name=f"the photo at {width} × {height} pixels")


def _map(
    network: Network,
    made: Plan,
    pixels: np.ndarray,
    stride: int,
    keep: list[int] | None,
    job: Job,
    begin: float,
    end: float,
) -> DenseMap:
    def read(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
        return network.batch([pixels[top:bottom, left:right]])

    height, width = pixels.shape[:2]
    return dense_map(
        network.module,
        made,
        read,
        height,
        width,
        network.device,
        stride,
        keep,
        tick=lambda share: job.tick(begin + (end - begin) * share),
    )


def _kept(network: Network, made: Plan, view: View, stride: int, job: Job) -> list[int] | None:
    """The classes whose scores fit, the strongest of a map at the native stride; None where all do."""
    rows, columns = cells(made, view.pixels.shape[0], view.pixels.shape[1], stride)
    most = int(LARGEST / 4 / max(1, rows * columns))
    if most >= made.classes:
        return None
    peak = _map(network, made, view.pixels, strides(made)[0], [], job, 0, 0.1).peak
    return sorted(int(index) for index in np.argsort(-peak, kind="stable")[: max(1, most)])


def _votes(
    question: Question, params: DenseParams, made: Plan, view: View, found: DenseMap, stride: int, job: Job
) -> tuple[np.ndarray, list[tuple[View, DenseMap]]]:
    """What each scale and flip says `[scales·flips classes]`, and the upright maps of the scales."""
    network = question.network

    def said(map_: DenseMap) -> np.ndarray:
        return map_.peak.astype(np.float64) if params.vote == "max" else map_.mean

    views, maps, votes = [view], [found], []
    if params.scales > 1:
        views = [_zoomed(question.the_picture().pixels, zoom) for zoom in _zooms(question, params.scales, made)]
        maps = []
    each = 0.3 / (len(views) * (1 + params.flips))
    for number, scaled in enumerate(views):
        at = 0.6 + number * each * (1 + params.flips)
        if number >= len(maps):
            maps.append(_map(network, made, scaled.pixels, stride, [], job, at, at + each))
        votes.append(said(maps[number]))
        if params.flips:
            mirrored = np.ascontiguousarray(scaled.pixels[:, ::-1])
            votes.append(said(_map(network, made, mirrored, stride, [], job, at, at + each)))
    return np.stack(votes), list(zip(views, maps, strict=True)) if params.scales > 1 else []


def _zooms(question: Question, scales: int, made: Plan) -> list[float]:
    """OverFeat's scales, carried over to another crop and stride: the crop and some strides more fit into the photo."""
    picture = question.the_picture()
    sides = (picture.height, picture.width)
    return [max((made.size[i] + round(step * made.stride[i])) / sides[i] for i in range(2)) for step in STEPS[:scales]]


def _checked(
    network: Network, made: Plan, pixels: np.ndarray, found: DenseMap, count: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Some cells `[n 2]`, how far their logits are from those of the crop alone `[n]`, and how often both agree."""
    h, w = found.label.shape
    chosen = np.sort(np.random.default_rng(0).permutation(h * w)[:count])
    where = np.stack(np.unravel_index(chosen, (h, w)), 1) if len(chosen) else np.zeros((0, 2), np.int64)
    boxes = found.boxes(made.size)[where[:, 0], where[:, 1]]

    def run(some: Sequence[np.ndarray]) -> np.ndarray:
        crops = [pixels[top:bottom, left:right] for top, left, bottom, right in some]
        with torch.no_grad():
            return network.scores(network.batch(crops)).float().cpu().numpy()

    if not len(chosen):
        return where, np.zeros(0, np.float32), 1.0
    alone = np.concatenate(list(in_chunks(list(boxes), run, 8)))
    here = found.scores[:, where[:, 0], where[:, 1]].T  # [n K]
    difference = np.abs(here - alone[:, found.classes]).mean(1)
    same = float((alone.argmax(1) == found.label[where[:, 0], where[:, 1]]).mean())
    return where, difference.astype(np.float32), same


def _checks(difference: np.ndarray, same: float, made: Plan) -> dict[str, str]:
    if not len(difference):
        return {}
    why = "the layers pad with zeros at each crop's edge, and here only at the photo's" if made.padded else "rounding"
    count = "1 cell" if len(difference) == 1 else f"{len(difference)} cells"
    return {
        "padding error": f"On {count} the logits differ from those of the crop alone by {difference.mean():.2g} "
        f"on average ({why}); the class is the same on {same:.0%}."
    }


def _facts(network: Network, made: Plan, found: DenseMap, view: View) -> dict[str, str]:
    h, w = found.label.shape
    facts = {
        "map": f"{h} × {w} cells, {found.stride} pixels apart, each a crop of {made.size[1]} × {made.size[0]} pixels of "
        f"{view.name}.",
        "passes": f"{found.runs} over shifted input, {found.shared**2} offsets inside of each, in {found.tiles} tiles.",
        "answer": f"{_name(network, int(found.mean.argmax()))} (logits averaged over the map)",
    }
    if made.gates:
        facts["gates"] = (
            f"{made.gates} gates (squeeze and excitation) are the mean of a whole crop; here each cell's gate is the mean of "
            "the crop-sized window around it, which equals the classifier where the photo is one crop."
        )
    if len(found.classes) < made.classes:
        facts["classes"] = f"The scores of the {len(found.classes)} strongest of {made.classes} classes are kept."
    return facts


def _name(network: Network, index: int) -> str:
    return network.categories[index] if index < len(network.categories) else str(index)


def _table(network: Network, found: DenseMap, vote: np.ndarray) -> tuple[dict[str, object], ...]:
    """A row for each class that is somewhere the strongest, the most frequent first."""
    classes, counts = np.unique(found.label, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        {
            "class": int(classes[i]),
            "name": _name(network, int(classes[i])),
            "share": float(counts[i] / found.label.size),
            "mean logit": float(found.mean[classes[i]]),
            "peak logit": float(found.peak[classes[i]]),
            "vote": float(vote[classes[i]]),
        }
        for i in order
    )


def covered(boxes: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the photo over which a map is drawn: each cell around the centre of its crop."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # [h w 2]
    steps = [np.diff(centres, axis=axis)[..., axis] for axis in (0, 1)]
    half = [
        float(step.mean()) / 2 if step.size else (boxes[0, 0, 2 + i] - boxes[0, 0, i]) / 2
        for i, step in enumerate(steps)
    ]
    first, last = centres[0, 0], centres[-1, -1]
    ends = (first[0] - half[0], first[1] - half[1], last[0] + half[0], last[1] + half[1])
    return tuple(round(float(end)) for end in ends)  # type: ignore[return-value]


def ranks(label: np.ndarray, classes: list[int]) -> np.ndarray:
    """For each cell the place of its class in `classes`, or their number where it is none of them: `[h w]`."""
    return np.select([label == index for index in classes], range(len(classes)), len(classes))


def _panels(
    view: View, made: Plan, found: DenseMap, table: tuple[dict[str, object], ...], pyramid: list[tuple[View, DenseMap]]
) -> tuple[Panel, ...]:
    classes = [int(row["class"]) for row in table[:NAMED]]  # type: ignore[call-overload]
    named = ", ".join(str(row["name"]) for row in table[:NAMED])
    panels = [Panel("labels", _drawn(view, made, found, classes), f"The strongest class of each cell: {named}.")]
    top = int(found.mean.argmax())
    if top in found.classes:
        shown = np.flatnonzero(found.classes == top)[0]
        scores = found.scores.astype(np.float64) - found.scores.max(0)
        chance = np.exp(scores[shown]) / np.exp(scores).sum(0)
        panels.append(
            Panel("class", _laid(view, made, found, heat(chance, 0, 1)), f"Probability of class {top} at each cell.")
        )
    for scaled, map_ in pyramid:
        size = f"{scaled.pixels.shape[1]} × {scaled.pixels.shape[0]}"
        panels.append(Panel(f"scale-{size.replace(' ', '')}", _drawn(scaled, made, map_, classes), f"{size} pixels."))
    return tuple(panels)


def _drawn(view: View, made: Plan, found: DenseMap, classes: list[int]) -> np.ndarray:
    return _laid(view, made, found, categorical(ranks(found.label, classes), len(classes)))


def _laid(view: View, made: Plan, found: DenseMap, colours: np.ndarray) -> np.ndarray:
    """A map uint8 `[h w 3]` over what was laid out for the network, at most `SHOWN` pixels large."""
    zoom = min(1.0, SHOWN / max(view.pixels.shape[:2]))
    photo = view.pixels
    if zoom < 1:
        photo = resize(photo, *(max(1, round(side * zoom)) for side in photo.shape[:2]))
    box = covered(found.boxes(made.size))
    top, left, bottom, right = (round(edge * zoom) for edge in box)
    return place(photo, colours, (top, left, bottom, right), 0.55)


METHOD = Method(
    key="dense",
    title="Dense prediction",
    source="EE-559 lecture 8.2; Sermanet et al. 2013 (OverFeat), section 3",
    params=DenseParams,
    run=dense,
)
