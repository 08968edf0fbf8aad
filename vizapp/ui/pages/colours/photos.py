"""The photos whose cells share one basis: the photo at hand and some others, their activations and their colours, kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vizapp.engine.memory.chunks import convert_out_of_memory
from vizapp.engine.precision import arithmetic
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError, plural
from vizapp.media.picture import Picture
from vizapp.methods.base import check_pass
from vizapp.methods.cell_features import CellColours, cell_features, colour_cells
from vizapp.methods.factorization import Factors, factorise, head_weights
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs import image_picker, images
from vizapp.ui.session import compute, messages, state
from vizapp.zoo.network import Network

_SAMPLES, _MOST = 5, 11  # others beside the photo at hand
_LESS = "fewer photos, or a layer with fewer cells,"


@dataclass(frozen=True, eq=False)
class Photos:
    """The photo at hand and the others: names, what is shown (uint8 `[H W 3]`), what the network gets, digests."""

    names: list[str]
    crops: list[np.ndarray]
    inputs: list[np.ndarray]
    digests: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of the cells, and the weights `[classes C]` of a linear head, or why there is none."""

    factors: Factors
    weight: np.ndarray | None
    reason: str

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        return self.factors.nbytes + (0 if self.weight is None else self.weight.nbytes)


def choose(network: Network, picture: Picture) -> Photos:
    """Draw the choice of the other photos; returns them behind the photo at hand, and messages about those that do not open."""
    others = image_picker.choose_several("colours", state.PHOTOS, _MOST, "Python takes more.")
    if state.get(state.PHOTOS) == "samples":
        others = [one for one in others if one[0] != images.origin()][:_SAMPLES]
    names, found, wrong = [picture.name], [picture], list[str]()
    for origin, name in others:
        try:
            other = images.open_from(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        if other.digest not in {one.digest for one in found}:
            names.append(name)
            found.append(other)
    if wrong:
        messages.warn(f"{plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    crops, inputs = (
        [compute.remembered(compute.key_of(f"colours.{of.__name__}", network, one), partial(of, one)) for one in found]
        for of in (network.seen, network.crop)
    )
    return Photos(names, crops, inputs, tuple(one.digest for one in found))


def key(part: str, network: Network, site: Site, photos: Photos, **params: Any) -> Key:
    """The cache key of something about the cells of these photos."""
    return compute.key_of(f"colours.{part}", network, unit=Unit(site.name, 0), photos=photos.digests, **params)


def features(network: Network, site: Site, photos: Photos) -> np.ndarray | None:
    """The activations at all cells, kept so that a click needs no pass: float32 `[photos h w C]`."""

    def work(tick: Tick) -> np.ndarray:
        what = f"the colours of {plural(len(photos.crops), 'photo')} with {network.name}"
        with convert_out_of_memory(what, _LESS), arithmetic(network.device, "exact"):
            check_pass(network, what, _LESS)
            return cell_features(network, site, photos.inputs, tick)

    asked = key("cells", network, site, photos)
    return compute.compute(asked, work, title="Looking at the photos", device=str(network.device))


def coloured(network: Network, site: Site, photos: Photos, values: np.ndarray) -> CellColours | None:
    """The colours of all cells, kept."""
    asked = key("components", network, site, photos)
    return compute.compute(asked, lambda tick: colour_cells(values, tick), title="Finding the principal components")


def parts(network: Network, site: Site, photos: Photos, values: np.ndarray, count: int, seed: int) -> Parts | None:
    """The parts of all cells, kept; None where a message says why there are none.

    Args:
        network: The network.
        site: The layer.
        photos: The photos.
        values: The activations, `[photos h w C]`.
        count: The number of parts.
        seed: Of their starting point.
    """

    def work(tick: Tick) -> Parts:
        found = factorise(values, count, seed, lambda share: tick(0.9 * share))
        with convert_out_of_memory(f"the classes of parts with {network.name}"), arithmetic(network.device, "exact"):
            return Parts(found, *head_weights(network, site, photos.inputs[0]))

    asked = key("parts", network, site, photos, count=count, seed=seed)
    return compute.compute(asked, work, title="Finding the parts", device=str(network.device))
