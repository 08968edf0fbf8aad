"""How features and class probabilities change as a photo is moved, turned, enlarged or spoiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vizapp.engine.memory.chunks import SCRATCH, chunk_size, in_chunks
from vizapp.engine.trace.observe import observe_together
from vizapp.engine.trace.sites import Site, channels_first
from vizapp.errors import VizError, quoted
from vizapp.media.distortions import FAMILIES, Kind, ResizedPhoto, is_clean, resized_photo, usual_amounts
from vizapp.media.drawing import sheet
from vizapp.media.source import skipped_note, spread
from vizapp.media.stacks import shown_values
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.scores import in_words
from vizapp.methods.tables import to_csv
from vizapp.methods.views import curves_data
from vizapp.report.section import View
from vizapp.zoo.network import Network

KINDS: tuple[Kind, ...] = get_args(Kind)
_BATCH = {"cpu": 8, "cuda": 64}
_CACHED = 2**16  # values
_KEPT_BY_ALLOCATOR = 2**25  # bytes; glibc returns larger blocks to the system, and each use pays for new pages
_SHOWN = 20  # pictures of the panel
_EACH = "of each photo"
_NOUNS = {
    "pixels": "a whole number of pixels", "degrees": "a number of degrees", "times": "a factor",
    "severity": "a severity, a whole number",
}  # fmt: skip
_ENTERS = {
    "grey": "mid-grey (128 of 255)", "mirror": "the photo mirrored at its border", "repeat": "the outermost pixels, repeated",
}  # fmt: skip
_ACTS = {
    "rotate": "Turned anticlockwise about the centre of the crop, in degrees, with bilinear interpolation.",
    "shift-x": "Moved to the right by whole pixels of the crop.",
    "shift-y": "Moved down by whole pixels of the crop.",
    "scale": "Enlarged about the centre of the crop by that factor, with bilinear interpolation.",
    "brightness": "Added to the value of HSV: 0.1 to 0.5.",
    "contrast": "Contrast about the mean of each channel: 0.4, 0.3, 0.2, 0.1, 0.05 of it remain.",
    "blur": "A Gaussian with a standard deviation of 1, 2, 3, 4, 6 pixels of the crop; the border is mirrored.",
    "noise": "Gaussian noise with a standard deviation of 0.08, 0.12, 0.18, 0.26, 0.38 for pixels from 0 to 1.",
    "jpeg": "JPEG of quality 25, 18, 15, 10, 7.",
}  # fmt: skip
AXES: dict[str, str] = {str(kind): f"Severity of {'JPEG' if kind == 'jpeg' else kind}" for kind in KINDS} | {
    "rotate": "Turned, degrees", "shift-x": "Moved to the right, pixels", "shift-y": "Moved down, pixels",
    "scale": "Enlarged, times",
}  # fmt: skip


@dataclass(frozen=True)
class TransformParams(Params):
    """`kind`: "rotate", "shift-x", "shift-y" and "scale" move the photo; the others are corruptions of ImageNet-C."""

    kind: Literal["rotate", "shift-x", "shift-y", "scale", "brightness", "contrast", "blur", "noise", "jpeg"] = knob(
        "rotate", "What is done to the photo"
    )
    amounts: tuple[float, ...] = knob(
        (), "Degrees, pixels of the crop, factors, or severities from 0 to 5; empty: the usual range"
    )
    sites: tuple[str, ...] = knob((), "Layers; empty: first and last feature map, and last hidden layer")
    edge: Literal["grey", "mirror", "repeat"] = knob(
        "grey", "What enters from beyond the photo: mid-grey, its mirror image, or its border repeated"
    )
    seed: int = knob(0, "Random seed for the noise", low=0, high=2**31 - 1)
    most: int = knob(24, "Photos of a folder, evenly spaced", low=1, high=256)


@dataclass(frozen=True)
class _Curves:
    """Of one photo: distances `[sites S]`, norms of the clean features `[sites]`, and if the network has classes
    probabilities `[S classes]` and those of the clean photo `[classes]`, all float64. `asked`: the class of the target."""

    distance: np.ndarray
    norm: np.ndarray
    probability: np.ndarray | None
    clean: np.ndarray | None
    asked: int | None = None

    @property
    def relative(self) -> np.ndarray:
        """Distances divided by the clean norm; NaN where that is 0 and the distance is not."""
        norm = self.norm[:, None]
        return np.divide(self.distance, norm, out=np.where(self.distance > 0, np.nan, 0.0), where=norm > 0)


def transform(question: Question, params: TransformParams, job: Job) -> Result:
    """How far the features move, and how the class probabilities change, as a photo is moved, turned, enlarged or spoiled.

    Transforms act on the photo at the size at which preprocessing crops it (S amounts, in pixels of the crop for shifts).
    `arrays`: `amounts` `[S]`; `distance_raw` `[sites S]`, the Euclidean distance of the flattened features from those of the
    clean photo; `distance`, that divided by the norm of the clean features; `probability` `[S classes]` and `label` `[S]`, if
    the network has classes. `table`: a row per amount, with the probability of the clean photo's most probable class.

    Of a folder (at most `most` photos; a picture given beside it comes first) these are means over the photos, and `label` is
    the class of the highest mean. `distance_each`, `distance_raw_each`, `probability_each`, `label_each` and `class_each`, the
    class of each clean photo, have the photos in front; `picture` `[photos]` are their numbers in the folder, -1 if beside it.

    Raises:
        VizError: no such layer, amounts out of range, or no readable photo.
    """
    network = question.network
    sites = chosen_sites(network, params.sites)
    check_amounts(network, params.kind, params.amounts)
    unit, class_site, unreadable = question.unit, network.class_site, list[str]()
    asked = unit.channel if unit is not None and class_site is not None and unit.site == class_site.name else None
    numbers, found, panels = list[int](), list[_Curves](), list[Panel]()
    pictures, count = question.pictures(params.most, unreadable)
    for number, picture in pictures:
        photo, done = (
            resized_photo(network.preprocessing.view, network.preprocessing.view.values(picture)),
            len(numbers) + len(unreadable),
        )

        def tick(share: float, done: int = done) -> None:
            job.report((done + share) / count)

        found.append(replace(_curves(network, photo, params, sites, tick), asked=asked))
        numbers.append(number)
        panels = panels or [_panel(photo, params)]
    if not found:
        why = unreadable[0] if unreadable else "There is none in it."
        raise VizError(f"No photo of {question.require_folder().name} can be read. {why}", code="no-readable-pictures")
    arrays = {"amounts": np.array(params.amounts)} | _means(found)
    if question.folder is not None:
        arrays |= _each(found) | {"picture": np.array(numbers, np.int64)}
    table = _table(network, arrays, sites, found)
    facts = _facts(network, params, sites, found)
    if question.folder is not None:
        facts |= {"pictures": f"{len(numbers)} of the {count} asked for, of {question.folder.name}"}
    if unreadable:
        facts["unreadable"] = skipped_note(unreadable)
    return Result("transform", arrays, tuple(panels), facts, table, documents={"table.csv": to_csv(table)})


def chosen_sites(network: Network, names: Sequence[str]) -> tuple[Site, ...]:
    """The sites of these names; without names the first and the last feature map, and the last hidden layer.

    Raises:
        VizError: there is no such site.
    """
    if names:
        return tuple(dict.fromkeys(network.site(name) for name in names))
    usual = (network.first_feature_map(), network.last_feature_map(), network.last_hidden_layer())
    return tuple(dict.fromkeys(site for site in usual if site is not None)) or network.sites[:1]


def check_amounts(network: Network, kind: Kind, amounts: Sequence[float]) -> None:
    """Check that these are amounts of that kind.

    Raises:
        VizError: there are none, or one is out of range or not whole where it must be.
    """
    family, side = FAMILIES[kind], max(network.input_size[1:])
    low, high = (-side, side) if family.unit == "pixels" else (family.low, family.high)
    noun = f"{_NOUNS[family.unit]} from {low:g} to {high:g}"
    if not amounts:
        raise VizError(f"There are no amounts of {kind}; give some, each {noun}.", code="no-amounts")
    for amount in amounts:
        if not low <= amount <= high or (family.whole and amount != int(amount)):
            raise VizError(f"An amount of {kind} is {quoted(amount)}; it must be {noun}.", code="bad-value")


def _fit(params: TransformParams, network: Network, given: Collection[str]) -> TransformParams:
    """The usual amounts of the kind, unless the caller gave some."""
    if params.amounts or "amounts" in given:
        return params
    return replace(params, amounts=amounts_of(network, params.kind))


def amounts_of(network: Network, kind: Kind) -> tuple[float, ...]:
    """The usual amounts for this network: shifts are scaled to the size at which it crops photos."""
    view = network.preprocessing.view
    return usual_amounts(kind, min(view.resized(view.height, view.width)))


def _curves(
    network: Network, photo: ResizedPhoto, params: TransformParams, sites: Sequence[Site], tick: Callable[[float], None]
) -> _Curves:
    """One pass over the clean and all transformed photos, in batches, for all sites and the class scores together."""
    classes = bool(network.categories and network.heads)
    clean = dict[str, Tensor]()
    changed = dict.fromkeys(amount for amount in params.amounts if not is_clean(params.kind, amount))

    def measure(part: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
        """Distances `[sites n]` and probabilities `[n classes]` of some amounts; None is the clean photo, the first."""
        batch = network.batch([
            photo.crop if amount is None else photo.transformed(params.kind, amount, params.edge, params.seed)
            for amount in part
        ])  # fmt: skip
        compared = _Compared(sites, len(part), clean, part[0] is None)
        run = network.scores if classes else network.module
        output = observe_together(network.module, run, batch, [compared], stop=not classes)
        apart = torch.stack([compared.distances[site.name] for site in sites])
        shares = network.head.probabilities(output.double()) if classes else apart.new_zeros(len(part), 0)
        return apart.cpu().numpy(), shares.cpu().numpy()

    items: list[float | None] = [None, *changed]
    parts = list(in_chunks(items, measure, _batch_size(network, sites), tick))
    distance = np.concatenate([apart for apart, _ in parts], 1)
    shares = np.concatenate([shares for _, shares in parts])
    at = dict(zip(items, range(len(items)), strict=True))
    places = [0 if is_clean(params.kind, amount) else at[amount] for amount in params.amounts]
    norm = np.array([float(_distances(torch.zeros_like(clean[site.name]), clean[site.name])) for site in sites])
    return _Curves(distance[:, places], norm, shares[places] if classes else None, shares[0] if classes else None)


class _Compared:
    """Compares the features of a batch with those of the clean photo during the pass, without a copy of them.

    `distances`: those of each site `[N]`. `clean`: its features `[1 C h w]` by site; they are those of the batch's first photo
    if `begins`.
    """

    def __init__(self, sites: Sequence[Site], size: int, clean: dict[str, Tensor], begins: bool) -> None:
        self.sites = {site.name: site for site in sites}
        self.distances: dict[str, Tensor] = {}
        self._size, self._clean, self._begins = size, clean, begins

    def keep(self, name: str, tensor: Tensor) -> bool:
        """Compare the features of a site."""
        site = self.sites[name]
        if tensor.ndim != site.rank or len(tensor) != self._size:
            return False
        maps = channels_first(tensor, site)
        if self._begins:
            self._clean[name] = maps[:1].clone()
        self.distances[name] = _distances(maps, self._clean[name])
        return True


def _distances(values: Tensor, clean: Tensor) -> Tensor:
    """Euclidean distances `[N]` of features `[N C h w]` or `[N C]` from `clean` `[1 C h w]` or `[1 C]`."""
    if values.ndim == 2:
        return (values.double() - clean.double()).square().sum(1).sqrt()
    exact = torch.promote_types(values.dtype, torch.float32)
    if values.device.type != "cpu":
        cells = torch.linalg.vector_norm(values - clean.to(exact), dim=1)
        return cells.double().square().sum((1, 2)).sqrt()
    # A part of one photo at a time: its differences stay in the processor's cache. Parts are summed in float64.
    parts = _in_memory_order(clean, values).to(exact)[0].split(_CACHED)
    difference = torch.empty_like(parts[0])
    found = []
    for one in _in_memory_order(values, values):
        apart = (
            torch.sub(other, own, out=difference[: len(own)])
            for other, own in zip(one.split(_CACHED), parts, strict=True)
        )
        found.append(math.sqrt(sum(float(torch.dot(each, each)) for each in apart)))
    return torch.tensor(found, dtype=torch.float64)


def _in_memory_order(maps: Tensor, like: Tensor) -> Tensor:
    """Maps `[N C h w]` as `[N numbers]`, in the order in which those of `like` lie in memory."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    return (maps.permute(0, 2, 3, 1) if last else maps).reshape(len(maps), -1)


def _batch_size(network: Network, sites: Sequence[Site]) -> int:
    """Photos of a batch: what a pass, and the compared maps in float64, leave room for."""
    kept = 5 * sum(math.prod(site.shape) for site in sites) * network.dtype.itemsize
    each, most = int(SCRATCH * network.footprint.widest) + kept, _BATCH.get(network.device.type, 8)
    if network.device.type == "cpu":
        largest = max(math.prod(site.shape) for site in network.sites) * network.dtype.itemsize
        most = max(1, min(most, _KEPT_BY_ALLOCATOR // largest))
    return chunk_size(each, network.device, most)


def _means(found: Sequence[_Curves]) -> dict[str, np.ndarray]:
    """The arrays of the contract: of one photo, or means over several."""
    arrays = {
        "distance": np.mean([one.relative for one in found], 0),
        "distance_raw": np.mean([one.distance for one in found], 0),
    }
    shares = [one.probability for one in found if one.probability is not None]
    if shares:
        mean = np.mean(shares, 0)
        arrays |= {"probability": mean.astype(np.float32), "label": mean.argmax(1)}
    return arrays


def _each(found: Sequence[_Curves]) -> dict[str, np.ndarray]:
    """The curves of each photo of a folder."""
    arrays = {
        "distance_each": np.stack([one.relative for one in found]),
        "distance_raw_each": np.stack([one.distance for one in found]),
    }
    shares = [one.probability for one in found if one.probability is not None]
    if shares:
        arrays["probability_each"] = np.stack(shares).astype(np.float32)
        arrays["label_each"] = np.stack(shares).argmax(2)
        arrays["class_each"] = np.array([_class(one) for one in found], np.int64)
    return arrays


def _class(one: _Curves) -> int:
    """The class of the target, or else the most probable one of the clean photo."""
    assert one.clean is not None
    return int(one.clean.argmax()) if one.asked is None else one.asked


def _table(
    network: Network, arrays: dict[str, np.ndarray], sites: Sequence[Site], found: Sequence[_Curves]
) -> tuple[dict[str, Any], ...]:
    rows: list[dict[str, Any]] = [
        {"amount": float(amount)}
        | {f"distance {site.name}": float(arrays["distance"][n, place]) for n, site in enumerate(sites)}
        for place, amount in enumerate(arrays["amounts"])
    ]
    if "label" in arrays:
        followed = np.mean([one.probability[:, _class(one)] for one in found if one.probability is not None], 0)
        for row, share, label in zip(rows, followed.tolist(), arrays["label"].tolist(), strict=True):
            row |= (
                {"probability": share, "label": label, "name": network.class_name(label)}
                if network.quantity == "probability"
                else {network.quantity: share}
            )
    return tuple(rows)


def _facts(
    network: Network, params: TransformParams, sites: Sequence[Site], found: Sequence[_Curves]
) -> dict[str, str]:
    how, view = network.preprocessing, network.preprocessing.view
    size = (
        f"a shorter side of {view.resize}" if isinstance(view.resize, int) else f"{view.resize[1]} × {view.resize[0]}"
    )
    facts = {
        "transform": _ACTS[params.kind],
        "canvas": f"The photo resized to {size} pixels; the network sees the {how.width} × {how.height} in its centre.",
    }
    if params.kind in ("rotate", "scale", "shift-x", "shift-y"):
        facts["edge"] = f"What enters from beyond the resized photo is {_ENTERS[params.edge]}."
    if params.kind == "noise":
        facts["seed"] = f"{params.seed}; the same draw at all severities"
    facts["layers"] = ", ".join(f"{site.name} ({' × '.join(map(str, site.shape))})" for site in sites)
    if found[0].clean is None:
        facts["note"] = f"{network.name} has no classes, so there are distances only."
    elif len(found) > 1 and network.head.classes > 1 and found[0].asked is None:
        facts["class"] = f"{_EACH} the class that is most probable when it is clean"
    else:
        number = _class(found[0])
        share = in_words(network, float(np.mean([one.clean[number] for one in found if one.clean is not None])))
        facts["class"] = f"{network.class_name(number)} ({share} when the photo is clean)"
    silent = [site.name for n, site in enumerate(sites) if any(one.norm[n] == 0 for one in found)]
    if silent:
        facts["silent"] = (
            f"All features of {', '.join(silent)} are zero on the clean photo, so there is nothing to divide by."
        )
    return facts


def _panel(photo: ResizedPhoto, params: TransformParams) -> Panel:
    """Some of the transformed photos as one sheet."""
    shown = [params.amounts[n] for n in spread(len(params.amounts), _SHOWN)]
    tiles = [shown_values(photo.transformed(params.kind, amount, params.edge, params.seed)) for amount in shown]
    return Panel("photos", sheet(tiles, 5, gap=2), f"{params.kind}: {', '.join(f'{amount:g}' for amount in shown)}")


def views(result: Result) -> tuple[View, ...]:
    """The curves over the amounts, for reports."""
    amounts, rows, asked = result.arrays["amounts"], result.table, result.provenance
    kind = asked.params.get("kind", TransformParams.kind) if asked else ""
    layers = [name.removeprefix("distance ") for name in rows[0] if name.startswith("distance ")]
    drawn = [("Distance of the features from those of the clean photo", result.arrays["distance"], layers)]
    if "probability" in rows[0]:
        told = result.facts.get("class", "")
        name = f"Probability of {'the class' if told.startswith(_EACH) else told.split(' (')[0]}"
        drawn.insert(0, (name, np.array([[row["probability"] for row in rows]]), [name]))
    return tuple(
        View("curves", curves_data(amounts, lines, names, title, AXES.get(kind, "")), title)
        for title, lines, names in drawn
    )


METHOD = Method(
    "transform", "Transform", "Zeiler & Fergus 2013, figure 5; Hendrycks & Dietterich 2019, section 4", TransformParams,
    transform, optional_inputs=frozenset({"folder"}), fit=_fit, memory_hint="fewer layers",
    shows=(Output("table", "table"),), views=views,
)  # fmt: skip
