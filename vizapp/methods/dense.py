"""Dense prediction: the classifier, converted to a fully convolutional network, at every position of a large photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.fully_convolutional.tiles import DenseMap, available_strides, crop_map, dense_map, map_size
from vizapp.engine.memory.chunks import check_fits, in_chunks
from vizapp.errors import VizError, read_index
from vizapp.media.picture import Picture
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.dense_overlay import photo_panel, views
from vizapp.methods.dense_view import View, panels, zoomed
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.scores import no_classifier, probabilities
from vizapp.zoo.network import Network

# By how many native strides OverFeat's six scales exceed its crop (section 3.3: 24 … 240 pixels of 36).
STEPS = (2 / 3, 5 / 3, 8 / 3, 14 / 3, 17 / 3, 20 / 3)
ROUNDING = 1e-4  # mean difference of logits that rounding explains
CROPS = 2.5  # in the short side, at the scale that suits a photo
MOST = 3000  # pixels of the longer side of an enlarged photo
LARGEST = 256e6  # bytes of scores; of larger maps only the strongest classes are kept


@dataclass(frozen=True)
class DenseParams(Params):
    """Part and size of the photo, stride, and votes."""

    input: Literal["photo", "crop"] = knob("photo", "The whole photo, or the crop that `predict` sees")
    stride: str = knob(
        "native", 'Pixels between cells: "native", or a number that divides the native stride (16, 8, 4)'
    )
    zoom: float = knob(1.0, "Scale factor of the photo", low=0.02, high=8.0)
    scales: int = knob(1, "Number of scales of the photo that vote, up to six as in OverFeat", low=1, high=6)
    flips: bool = knob(False, "Let the mirror image vote, too")
    vote: Literal["max", "mean"] = knob("max", "How a scale votes: with the maximum or the mean of each class score")
    check: int = knob(8, "Number of cells to compare with classifying their crop alone", low=0, high=64)
    exact: bool = knob(False, "Classify the crop of each cell by itself, which takes longer")


def dense(question: Question, params: DenseParams, job: Job) -> Result:
    """The prediction for every crop of the photo, in one pass, or with `exact` crop by crop.

    `arrays`: `scores` float32 `[classes h w]` (logits; of a large map only the strongest classes, which `classes` then
    lists); `log_sum` `[h w]`, what a softmax over all classes subtracts from them; `label` `[h w]`; `boxes` `[h w 4]` (top,
    left, bottom, right of the crop that a cell saw, in pixels of the photo); `prediction` `[classes]`, logits averaged over
    the map; `peak` `[classes]`, their greatest; `vote` `[classes]`, the mean of `votes` `[scales·flips classes]`; `checked`
    `[n 2]`, `difference` `[n]` and `agrees` `[n]`, the cells that were compared with their crops, the mean difference of
    logits there, and whether the class is the same (none where `exact` made them the same).
    `table`: the classes of the map.
    """
    network = question.network
    made = convolutional(network)
    stride = _stride(params.stride, made, network)
    view = _view(question, params)
    keep = _kept(network, made, view, stride, job)
    found = _map(network, made, view.pixels, stride, keep, job, 0.1, 0.6, params.exact)
    votes, pyramid = _votes(question, params, made, view, found, stride, job)
    checked, difference, agrees = _checked(network, made, view.pixels, found, 0 if params.exact else params.check)
    job.report(0.95)
    boxes = view.in_photo(found.boxes(made.size))
    arrays = {
        "scores": found.scores,
        "log_sum": found.log_sum,
        "label": found.label,
        "boxes": boxes,
        "prediction": found.mean.astype(np.float32),
        "peak": found.peak,
        "vote": votes.mean(0).astype(np.float32),
        "votes": votes.astype(np.float32),
        "checked": checked,
        "difference": difference,
        "agrees": agrees,
    }
    if keep is not None:
        arrays["classes"] = found.classes
    table = _table(network, found, arrays["vote"])
    facts = _facts(network, made, found, view)
    if params.exact:
        facts |= {
            "passes": f"Each of the {found.label.size} crops was classified by itself.",
            "padding error": "None, because each crop was classified by itself.",
        }
    else:
        facts |= _checks(difference, float(np.abs(found.peak).max()), agrees, made)
    chance = probabilities(network, found.scores, found.log_sum)
    shown = panels(view, made, found, chance, table, pyramid, network.class_name(int(found.mean.argmax())))
    photo = photo_panel(question.require_picture().pixels)
    return Result("dense", arrays, (*shown, photo), facts, table)


def convolutional(network: Network) -> ConversionPlan:
    """The plan that converts the network to a fully convolutional one.

    Raises:
        VizError: it cannot be converted; the sentence says why.
    """
    network.check_visible()
    if (error := no_classifier(network, "Dense")) is not None:
        raise error
    noise = np.random.default_rng(0).integers(0, 256, (*network.input_size[1:], network.input_size[0]), dtype=np.uint8)
    return plan_conversion(network.module, network.batch([noise]), network.head)


def suitable_zoom(plan: ConversionPlan, picture: Picture) -> float:
    """The scale at which the short side of the photo is 2.5 crops; a photo is enlarged to at most 3,000 pixels."""
    short, long = sorted((picture.height, picture.width))
    fitting = CROPS * max(plan.size) / short
    return round(min(max(fitting, 0.02), max(1.0, min(8.0, MOST / long))), 3)


def _stride(asked: str, made: ConversionPlan, network: Network) -> int:
    known = available_strides(made)
    if asked == "native":
        return known[0]
    if (pixels := read_index(asked)) in known:
        return pixels
    finer = f", or {', '.join(map(str, known[1:]))} pixels" if known[1:] else " alone"
    raise VizError(
        f'stride is {asked!r}; the map of {network.name} can have "native" ({known[0]} pixels){finer}.',
        code="no-such-stride",
    )


def _view(question: Question, params: DenseParams) -> View:
    picture, network = question.require_picture(), question.network
    if params.input == "photo":
        height, width = (round(side * params.zoom) for side in (picture.height, picture.width))
        check_fits(
            2 * 3 * height * width, torch.device("cpu"), f"the photo at {width} x {height} pixels", "a smaller zoom"
        )
        return zoomed(network.preprocessing.view.values(picture), params.zoom)
    if params.zoom != 1 or params.scales != 1:
        raise VizError(
            'zoom and scales change the size of the photo; take input="photo" with them.', code="scaled-crop"
        )
    seen, how = network.crop(picture), network.preprocessing
    height, width = picture.height, picture.width
    name = "the resized photo, the crop that predict sees"
    sizes = how.view.resized(height, width)
    return View(seen, (sizes[0] / height, sizes[1] / width), how.view.origin(*sizes), name)


def _map(
    network: Network,
    made: ConversionPlan,
    pixels: np.ndarray,
    stride: int,
    keep: list[int] | None,
    job: Job,
    begin: float,
    end: float,
    exact: bool = False,
) -> DenseMap:
    def classify(boxes: Sequence[tuple[int, int, int, int]]) -> torch.Tensor:
        with torch.no_grad():
            return network.scores(network.batch([pixels[top:bottom, left:right] for top, left, bottom, right in boxes]))

    def read(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
        return network.batch([pixels[top:bottom, left:right]])

    def tick(share: float) -> None:
        job.report(begin + (end - begin) * share)

    height, width = pixels.shape[:2]
    if exact:
        return crop_map(made, classify, height, width, stride, keep, network.batch_limit(8), tick)
    return dense_map(network.module, made, read, height, width, network.device, stride, keep, tick=tick)


def _kept(network: Network, made: ConversionPlan, view: View, stride: int, job: Job) -> list[int] | None:
    """The classes whose scores are kept, the strongest of a map at the native stride; None: all of them."""
    rows, columns = map_size(made, view.pixels.shape[0], view.pixels.shape[1], stride)
    most = int(LARGEST / 4 / max(1, rows * columns))
    if most >= made.classes:
        return None
    peak = _map(network, made, view.pixels, available_strides(made)[0], [], job, 0, 0.1).peak
    return sorted(int(index) for index in np.argsort(-peak, kind="stable")[: max(1, most)])


def _votes(
    question: Question, params: DenseParams, made: ConversionPlan, view: View, found: DenseMap, stride: int, job: Job
) -> tuple[np.ndarray, list[tuple[View, DenseMap]]]:
    """The votes of each scale and flip `[scales·flips classes]`, and the unflipped maps of the scales."""
    network = question.network

    def said(map_: DenseMap) -> np.ndarray:
        return map_.peak.astype(np.float64) if params.vote == "max" else map_.mean

    views, maps, votes = [view], [found], []
    if params.scales > 1:
        views = [
            zoomed(network.preprocessing.view.values(question.require_picture()), zoom)
            for zoom in _zooms(question, params.scales, made)
        ]
        maps = []
    each = 0.3 / (len(views) * (1 + params.flips))
    for number, scaled in enumerate(views):
        at = 0.6 + number * each * (1 + params.flips)
        if number >= len(maps):
            maps.append(_map(network, made, scaled.pixels, stride, [], job, at, at + each, params.exact))
        votes.append(said(maps[number]))
        if params.flips:
            mirrored = np.ascontiguousarray(scaled.pixels[:, ::-1])
            votes.append(said(_map(network, made, mirrored, stride, [], job, at, at + each, params.exact)))
    return np.stack(votes), list(zip(views, maps, strict=True)) if params.scales > 1 else []


def _zooms(question: Question, scales: int, made: ConversionPlan) -> list[float]:
    """OverFeat's scales for this crop and stride: the photo is as large as the crop and some strides."""
    picture = question.require_picture()
    sides = (picture.height, picture.width)
    return [max((made.size[i] + round(step * made.stride[i])) / sides[i] for i in range(2)) for step in STEPS[:scales]]


def _checked(
    network: Network, made: ConversionPlan, pixels: np.ndarray, found: DenseMap, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some cells `[n 2]`, how their logits differ on average from those of the crop alone, and whether the class agrees."""
    h, w = found.label.shape
    chosen = np.sort(np.random.default_rng(0).permutation(h * w)[:count])
    where = np.stack(np.unravel_index(chosen, (h, w)), 1) if len(chosen) else np.zeros((0, 2), np.int64)
    boxes = found.boxes(made.size)[where[:, 0], where[:, 1]]

    def run(some: Sequence[np.ndarray]) -> np.ndarray:
        crops = [pixels[top:bottom, left:right] for top, left, bottom, right in some]
        with torch.no_grad():
            return network.scores(network.batch(crops)).float().cpu().numpy()

    if not len(chosen):
        return where, np.zeros(0, np.float32), np.zeros(0, bool)
    alone = np.concatenate(list(in_chunks(list(boxes), run, network.batch_limit(8))))
    here = found.scores[:, where[:, 0], where[:, 1]].T  # [n K]
    difference = np.abs(here - alone[:, found.classes]).mean(1)
    return where, difference.astype(np.float32), alone.argmax(1) == found.label[where[:, 0], where[:, 1]]


def _checks(difference: np.ndarray, scale: float, agrees: np.ndarray, made: ConversionPlan) -> dict[str, str]:
    if not len(difference):
        return {"padding error": "Not checked: no cell was compared with the classifier on its crop alone (check=0)."}
    count = "1 cell" if len(difference) == 1 else f"{len(difference)} cells"
    mean = float(difference.mean())
    if mean < ROUNDING * max(1.0, scale):
        return {"padding error": f"On {count} the logits equal those of the crop alone up to rounding ({mean:.0e})."}
    reasons = ["the layers pad each crop there, and only the photo here"] if made.padded else []
    reasons += ["the gates differ"] if made.gates else []
    if not reasons:
        raise VizError(
            f"This network cannot be made convolutional: on {count} its logits differ from those of the crop alone by "
            f"{mean:.2g} on average, although nothing pads and there are no gates. It computes with the size of its input.",
            code="not-convolutional",
        )
    why = " and ".join(reasons)
    return {
        "padding error": f"On {count} that were checked, the logits differ by {mean:.2g} on average from those of the crop "
        f"classified alone ({why}). The class is the same on {100 * agrees.mean():.0f} % of them."
    }


def _facts(network: Network, made: ConversionPlan, found: DenseMap, view: View) -> dict[str, str]:
    h, w = found.label.shape
    crop = f"{made.size[1]} × {made.size[0]} pixels"
    apart = f"{found.stride}" if found.across == found.stride else f"{found.across} × {found.stride}"
    facts = {
        "map": f"{h} × {w} cells, {apart} pixels apart, each a crop of {crop} of {view.name}."
        if found.label.size > 1
        else f"One cell: {crop} of {view.name}.",
        "passes": _passes(found),
        "answer": f"{network.class_name(int(found.mean.argmax()))} (logits averaged over the map)",
        "output": network.output_description,
    }
    if made.gates:
        facts["gates"] = (
            f"{made.gates} gates (squeeze and excitation) are the mean of a whole crop; here each cell's gate is the mean of "
            "the crop-sized window around it, which equals the classifier where the photo is one crop."
        )
    if len(found.classes) < made.classes:
        facts["classes"] = f"The scores of the {len(found.classes)} strongest of {made.classes} classes are kept."
    return facts


def _passes(found: DenseMap) -> str:
    offsets = f", at {found.shared**2} offsets of its last strided layers" if found.shared > 1 else ""
    tiles = f", in {found.tiles} tiles" if found.tiles > 1 else ""
    if found.runs == 1:
        return f"One pass over the photo{offsets}{tiles}."
    each = f"{offsets} each" if offsets else ""
    return f"{found.runs} passes over the photo, shifted by {found.stride} pixels and interleaved{each}{tiles}."


def _table(network: Network, found: DenseMap, vote: np.ndarray) -> tuple[dict[str, object], ...]:
    """A row per class that is the strongest of some cell, the most frequent first."""
    classes, counts = np.unique(found.label, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        {
            "class": int(classes[i]),
            "name": network.class_name(int(classes[i])),
            "share": float(counts[i] / found.label.size),
            "mean logit": float(found.mean[classes[i]]),
            "peak logit": float(found.peak[classes[i]]),
            "vote": float(vote[classes[i]]),
        }
        for i in order
    )


METHOD = Method(
    key="dense",
    title="Dense prediction",
    source="Long et al. 2015, section 3; Sermanet et al. 2013 (OverFeat), section 3",
    params=DenseParams,
    run=dense,
    memory_hint="a smaller zoom",
    views=views,
    shows=(Output("label", "label map"), Output("scores", "per-class map"), Output("table", "table")),
)
