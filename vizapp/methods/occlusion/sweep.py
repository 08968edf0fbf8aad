"""Occlusion maps: predictions while a square hides a part of the picture, for each position of the square."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from vizapp.engine.memory.chunks import check_fits
from vizapp.engine.occlusion.sweep import Sweep
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.occlusion.occluder import Positions, coarse_to_fine, filling, from_nearest, per_pixel, positions
from vizapp.methods.occlusion.panels import legend, panels
from vizapp.methods.params import Params, knob
from vizapp.methods.projection import ProjectionParams, projected_map, revealing_rule
from vizapp.methods.scores import in_words, log_sum_of, probabilities
from vizapp.methods.truth import asked_class, true_class
from vizapp.zoo.network import Network

_SMALL = 64  # pixels of the input's shorter side below which the default square is a seventh of it
_CPU, _COPIES = torch.device("cpu"), 3  # of all scores of all positions
_KEPT = 16 * 2**20  # bytes of probabilities of all classes; beyond it only the strongest classes are kept
CAUTION = (
    "A square also adds edges and shapes, and may hide several things at once; compare other fills and sizes before you "
    "infer a cause from the map."
)


@dataclass(frozen=True)
class OcclusionParams(Params):
    """The square, its fill, and the feature map that is summed.

    The defaults of `window` and `stride` are a seventh of 224 pixels, and a quarter of that. For small inputs, `ask` uses
    the defaults of `fit_square` unless the caller gives either.
    """

    window: int = knob(
        32, "Side of the square; smaller by default on inputs under 64 pixels", low=1, high=4096, unit="pixels"
    )
    stride: int = knob(
        8, "Distance between positions; smaller by default on inputs under 64 pixels", low=1, high=4096, unit="pixels"
    )
    width: int = knob(0, "Width of a rectangle that is `window` high; 0: a square", low=0, high=4096, unit="pixels")
    fill: str = knob(
        "grey", "What the square shows: grey, mean, blur, noise, black, white, or a colour such as #ff8800"
    )
    inverse: bool = knob(False, "Hide everything but the square")
    site: str = knob("", "The late layer whose map is summed; by default the last feature maps")
    strongest: Literal["sum", "maximum"] = knob(
        "sum", "Channel of that layer: largest sum of its map, or largest value"
    )
    grid: Literal["cover", "inside"] = knob(
        "cover",
        "Squares centred all over the photo, clipped at its border; or squares that lie inside it",
    )
    precision: Literal["exact", "tf32", "bf16"] = knob(
        "exact", "Numeric precision on a GPU: exact, or rounded and faster"
    )
    seed: int = knob(0, "Random seed for the noise", low=0, high=2**31 - 1)
    label: str = knob("", "The true class, by name or number; empty: from the folder or list of the photo")
    others: Literal["none", "gallery", "pass"] = knob(
        "none",
        "Other photos for (c): none, from a gallery if there is one, or by a pass over the folder or the samples",
    )
    most: int = knob(24, "Number of photos to take from a folder, evenly spaced; 0: all", low=0)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the square."""
        return self.window, self.width or self.window


class Occlusion:
    """A sweep in progress, which can be shown while it runs.

        work = Occlusion(question, params)      # the clean pass, and the plan
        for share in work.run():                # progress from 0 to 1, after each batch of positions, coarse to fine
            work.maps()                         # the current arrays; `finished` says which cells are done
        work.result()                           # the whole Result; at any time, also if the loop was left early

    `among`: a sweep over several pictures, made by `sweep_over`, and the number of this picture among them.

    In `maps` and `result`, unfinished cells show their nearest finished neighbour. One thread runs the sweep; others may
    call `maps` meanwhile.

    Raises:
        VizError: the square is too large, the fill is invalid, the site has no map, there are no class scores, or the
            label is not a class.
    """

    def __init__(self, question: Question, params: OcclusionParams, among: tuple[Sweep, int] | None = None) -> None:
        self.question, self.params = question, params
        network = question.network
        self.seen, self.crop = network.seen(question.require_picture()), network.crop(question.require_picture())
        self.positions = places(self.params, network)
        self.true = true_of(question, self.params)
        self.site, channel, class_ = asked_map(question, self.params)
        self.sweep, number = among or (sweep_over(network, [self.crop], self.params, self.site), 0)
        self._first, self._number = number * len(self.sweep.boxes), number
        scores, maps = self._clean_pass(number)
        self.channel = None if maps is None else channel if channel is not None else self._strongest(maps[0])
        self._clean_logits = scores[0].double().cpu().numpy()
        known = class_ if class_ is not None else self.true
        self.class_ = int(self._clean_logits.argmax()) if known is None else known
        self._clean_activation = float("nan") if maps is None else float(maps[0, self.channel].double().sum())
        count, classes = len(self.sweep.boxes), len(self._clean_logits)
        check_fits(_COPIES * 4 * count * classes, _CPU, f"the answers at {count} places of a square", "a larger stride")
        self.finished = np.zeros(self.positions.shape, bool)
        # Positions that are not finished yet have the values of the clean picture.
        self._logits = np.repeat(self._clean_logits[None].astype(np.float32), count, 0)
        self._norms = np.full(count, log_sum_of(question.network, self._clean_logits))
        self._sums = np.full(count, self._clean_activation, np.float32)

    def run(self) -> Iterator[float]:
        """Evaluate all positions, coarse to fine; yields the progress after each batch. Leave the loop to stop."""
        finished = self.finished.reshape(-1)
        for turn in coarse_to_fine(self.positions.shape):
            left = self.sweep.arranged([self._first + place for place in turn if not finished[place]])
            for answers in self.sweep.batches(left, self.channel):
                places = [place - self._first for place in answers.positions]
                scores = answers.scores.double().cpu().numpy()
                self._logits[places] = scores
                self._norms[places] = log_sum_of(self.question.network, scores.T)
                if answers.sums is not None:
                    self._sums[places] = answers.sums.float().cpu().numpy()
                finished[places] = True
                yield float(finished.mean())

    def maps(self, class_: int | None = None) -> dict[str, np.ndarray]:
        """The current `probability`, `logit`, `label` and `activation` `[h w]`, and `finished`, bool `[h w]`.

        Before the first batch all cells have the values of the clean picture.
        """
        class_ = self.class_ if class_ is None else class_
        finished = self.finished.copy()
        cells = from_nearest(finished)
        logit = self._logits[:, class_][cells]
        return {
            "probability": self._chance(logit[None], self._norms[cells])[0].astype(np.float32),
            "logit": logit,
            "label": self._logits.argmax(1)[cells].astype(np.int64),
            "activation": self._sums[cells],
            "finished": finished,
        }

    @property
    def clean_logits(self) -> np.ndarray:
        """The logits of all classes for the picture without the square: float64 `[classes]`."""
        return self._clean_logits

    def shown(self, row: int, column: int) -> np.ndarray:
        """The picture with the square at that cell: uint8 `[H W 3]`."""
        return occluded(self.seen, self.params, self.positions, row, column)

    def result(self, job: Job | None = None) -> Result:
        """The result so far; `occlusion` describes the arrays."""
        found = self.maps()
        clean = self._chance(self._clean_logits)
        boxes = self.positions.boxes
        arrays = {key: found[key] for key in ("probability", "logit", "label", "activation")} | {
            "positions": boxes,
            "clean_probability": np.array(clean[self.class_], np.float32),
            "clean_logit": np.array(self._clean_logits[self.class_], np.float32),
            "clean_label": np.array(int(clean.argmax()), np.int64),
            "clean_activation": np.array(self._clean_activation, np.float32),
            "class": np.array(self.class_, np.int64),
            "true_label": np.array(-1 if self.true is None else self.true, np.int64),
        }
        arrays |= self._classes(found["finished"], clean)
        drop = self._clean_logits[self.class_] - found["logit"].astype(np.float64)
        arrays["per_pixel"] = per_pixel(drop, boxes, self.seen.shape[:2]).astype(np.float32)
        facts = self._facts(found["finished"])
        arrays |= self._projection(job, facts)
        table = legend(found["label"], int(clean.argmax()), clean, self.question.network.class_name, self.true)
        name_of = self.question.network.class_name
        name = name_of(self.class_) + (" (the true class)" if self.class_ == self.true else "")
        map_name = "" if self.site is None or self.channel is None else f"map {self.channel} of {self.site.name}"
        quantity = self.question.network.quantity
        drawn = panels(arrays, table, self.shown, name, map_name, quantity, self.params.inverse)
        return Result("occlusion", arrays, drawn, facts, table)

    # ---------------------------------------------------------------------------------------------------- details

    def _clean_pass(self, number: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores `[1 classes]` and the site's activations `[1 C h w]` of the picture without the square."""
        if self.params.inverse:  # the sweep then starts from the fill
            with torch.no_grad():
                return self.sweep.scores_and_maps(self.question.network.batch([self.crop]))
        maps = self.sweep.maps
        return self.sweep.clean_scores[number : number + 1], None if maps is None else maps[number : number + 1]

    def _classes(self, finished: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities and logits of all classes, or of the strongest if all would take too much memory."""
        logits, norms = self._logits, self._norms[:, None]
        room = max(1, _KEPT // (4 * len(logits)))
        classes = np.arange(logits.shape[1])
        if len(classes) > room:
            rows = finished.reshape(-1) if finished.any() else slice(0, 1)
            peak = (logits[rows] - norms[rows].astype(np.float32)).max(0)
            peak[self.class_] = np.inf
            classes = np.sort(np.argsort(-peak, kind="stable")[:room])
        cells = from_nearest(finished)
        chance = self._chance(logits[:, classes].T, norms[:, 0]).T
        return {
            "classes": classes.astype(np.int64),
            "probabilities": chance.astype(np.float32)[cells],
            "logits": logits[:, classes][cells],
            "clean_probabilities": clean[classes].astype(np.float32),
            "clean_logits": self._clean_logits[classes].astype(np.float32),
        }

    def _facts(self, finished: np.ndarray) -> dict[str, str]:
        params = self.params
        height, width = self.positions.height, self.positions.width
        name_of = self.question.network.class_name
        square = f"{height} x {width} pixels every {params.stride}"
        clean = self._chance(self._clean_logits)
        facts = {
            "class": f"{name_of(self.class_)} ({self.class_}), clean {in_words(self.question.network, clean[self.class_])}"
        }
        if self.true is not None:
            best = int(clean.argmax())
            says = ", as the network says" if best == self.true else f"; the network says {name_of(best)}"
            facts["true class"] = f"{name_of(self.true)} ({self.true}){says}."
        elif (label := self.question.require_picture().label) is not None and not params.label:
            facts["true class"] = f"The photo's label, {label!r}, is not a class of this network."
        kept = f"{square}, kept; all else is {params.fill}"
        facts |= {"output": self.question.network.output_description}
        facts |= {"square": kept if params.inverse else f"{square}, {params.fill}"} | self.sweep.facts
        if not finished.all():
            facts["finished"] = f"{int(finished.sum())} of {finished.size} positions; the others show their nearest."
        if self.site is None:
            facts["activation"] = "This network has no late feature map with cells, so (b) and (c) are left out."
        else:
            facts["map"] = f"{self.site.name}:{self.channel}, clean sum {self._clean_activation:.4g}"
        return facts | {"caution": CAUTION}

    def _projection(self, job: Job | None, facts: dict[str, str]) -> dict[str, np.ndarray]:
        """The projection of the late map for the clean picture; if it fails, a fact says why."""
        if self.site is None or self.channel is None:
            return {}
        params = projection_params(self.question.network)
        try:
            unit, recording = Unit(self.site.name, self.channel), self.sweep.recordings[self._number]
            projection, certificate = projected_map(self.question, unit, params, recording)
        except VizError as error:
            facts["projection"] = f"Not projected: {error}"
            return {}
        if job is not None:
            job.report(0.99)
        facts["projection"] = f"{params.rule.capitalize()} rule. {certificate}"
        return {"projection": projection}

    def _chance(self, logits: np.ndarray, log_sum: np.ndarray | None = None) -> np.ndarray:
        return probabilities(self.question.network, logits, log_sum)

    def _strongest(self, maps: torch.Tensor) -> int:
        flat = maps.double().flatten(1)
        return int((flat.sum(1) if self.params.strongest == "sum" else flat.amax(1)).argmax())


def sweep_over(network: Network, crops: Sequence[np.ndarray], params: OcclusionParams, site: Site | None) -> Sweep:
    """The sweep with these parameters over some crops, as `Network.crop` gives them."""
    pictures = network.batch(list(crops))
    filled = network.batch([filling(one, params.fill, params.seed) for one in crops])
    clean, patch = (filled, pictures) if params.inverse else (pictures, filled)
    boxes = [tuple(box) for box in places(params, network).boxes.reshape(-1, 4).tolist()]
    shares = not params.inverse and network.smooth is network  # the clean pass with the projection
    rule = projection_params(network).build_rule() if shares else None
    return Sweep(
        network.module, network.scores, clean, patch, boxes, site, params.precision, footprint=network.footprint, rule=rule
    )  # fmt: skip


def projection_params(network: Network) -> ProjectionParams:
    """How the late map is projected."""
    return ProjectionParams(revealing_rule(network), extent="map")


def true_of(question: Question, params: OcclusionParams) -> int | None:
    """The true class, from the parameters or the label of the picture; None if unknown.

    Raises:
        VizError: the given label is not a class.
    """
    if params.label:
        return asked_class(question.network, params.label)
    return true_class(question.network, question.require_picture().label)


def fit_square(params: OcclusionParams, network: Network, given: Collection[str] = ()) -> OcclusionParams:
    """The parameters with the default square fitted to a small input: a seventh of its side, in steps of a quarter.

    They are unchanged if `given`, the names of the parameters that the caller set, contains `window` or `stride`, or if
    there is a `width`.
    """
    side = min(network.input_size[1:])
    if side >= _SMALL or {"window", "stride"} & set(given) or params.width:
        return params
    window = max(1, round(side / 7))
    return replace(params, window=window, stride=max(1, round(window / 4)))


def places(params: OcclusionParams, network: Network) -> Positions:
    """The positions of the square on the network's crop."""
    _, height, width = network.input_size
    return positions((height, width), params.size, params.stride, params.grid)


def occluded(seen: np.ndarray, params: OcclusionParams, where: Positions, row: int, column: int) -> np.ndarray:
    """The crop with the square at one cell of the map, uint8 `[H W 3]`.

    Args:
        seen: The crop, uint8 `[H W 3]`.
        params: Fill of the square, and whether it hides the rest instead.
        where: The positions of the square.
        row: Row of the map.
        column: Column of the map.
    """
    fill = filling(seen, params.fill, params.seed)
    below, above = (fill, seen) if params.inverse else (seen, fill)
    shown = below.copy()
    top, left, bottom, right = (max(int(v), 0) for v in where.boxes[row, column])
    shown[top:bottom, left:right] = above[top:bottom, left:right]
    return shown


def asked_map(question: Question, params: OcclusionParams) -> tuple[Site | None, int | None, int | None]:
    """The late layer, and the requested channel of it and the requested class, or None."""
    network, unit = question.network, question.unit
    channel = class_ = None
    site = network.site(params.site) if params.site else None
    if unit is not None:
        its = network.site(unit.site)
        if its.is_map and (site is None or site == its):
            site, channel = its, unit.channel
        elif its == network.class_site:
            class_ = unit.channel
        else:
            raise VizError(
                f"{unit.site!r} is neither the class layer nor the layer whose map is summed; choose a class.",
                code="not-a-class",
            )
    if site is not None and not (site.is_map and site.shape[1] * site.shape[2] > 1):
        raise VizError(
            f"Layer {site.name!r} has no feature map to sum; choose an earlier layer.",
            code="no-feature-map",
        )
    return site or network.last_feature_map(), channel, class_
