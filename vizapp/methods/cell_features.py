"""The feature vectors at the cells of a layer for several photos: their principal components as colours, and their likeness."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vizapp.engine.memory.chunks import check_fits, in_chunks
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError
from vizapp.methods.collected import BATCH
from vizapp.methods.embedding import principal_axes
from vizapp.zoo.network import Network

FINE = 12  # cells along the shorter side that make a picture
PERCENTILES = (1, 99)  # of a component over all cells: no colour and full colour
_GREY = 128  # of a component that does not vary
_ROUNDING = 1e-6  # of the largest activation: a component that varies less is the rounding of float32
_COPIES = 3  # of the features: as they are, rectified, and what PCA converts


def default_site(network: Network) -> Site:
    """The last feature map with at least 12 cells a side; where there is none the last one, or any layer with cells.

    Raises:
        VizError: no layer has cells that are places in the photo.
    """
    last = network.last_feature_map()
    maps = [site for site in network.sites_of_head() if has_cells(site)]
    kinds = {"activation", "add", "concat", "norm"}
    fine = [site for site in maps if site.kind in kinds and min(site.shape[1:]) >= FINE]
    site = fine[-1] if fine else last or (maps[-1] if maps else None)
    if site is None:
        raise VizError(f"No layer of {network.name} has cells that are places in the photo.", code="no-cells")
    return site


def has_cells(site: Site) -> bool:
    """Whether the layer has cells that are places in the photo."""
    return site.is_map and site.located


def check_cells(network: Network, site: Site) -> None:
    """Check that the layer has cells that are places in the photo.

    Raises:
        VizError: it has none; the message names the nearest layer that has.
    """
    if has_cells(site):
        return
    here = network.sites.index(site)
    near = [(abs(place - here), place) for place, other in enumerate(network.sites) if has_cells(other)]
    hint = f" A near layer that has some is {network.sites[min(near)[1]].name!r}." if near else ""
    what = "has cells that are not places in the photo" if site.is_map else "is a vector without cells"
    raise VizError(f"Layer {site.name!r} {what}.{hint}", code="no-cells")


def cell_features(
    network: Network, site: Site, crops: Sequence[np.ndarray], tick: Callable[[float], None]
) -> np.ndarray:
    """The activations at every cell of a layer, float32 `[photos h w C]`, without special tokens.

    Args:
        network: The network.
        site: A layer with cells.
        crops: What the network sees of each photo, uint8 `[H W 3]`.
        tick: Gets the progress, and may raise to cancel.

    Raises:
        VizError: some are not finite.
        DoesNotFit: not enough memory for so many photos.
    """
    wanted = _COPIES * 4 * len(crops) * math.prod(site.shape)
    check_fits(wanted, torch.device("cpu"), f"the cells of {len(crops)} photos", "a layer with fewer cells")

    def run(part: Sequence[np.ndarray]) -> np.ndarray:
        maps = observe(network.module, network.batch(part), [site])[site.name]
        return np.ascontiguousarray(maps.float().permute(0, 2, 3, 1).cpu().numpy())

    most = network.batch_limit(BATCH.get(network.device.type, 16))
    found = np.concatenate(list(in_chunks(crops, run, most, tick)))
    if not np.isfinite(found).all():
        raise VizError(
            f"The activations of layer {site.name!r} are not finite on these photos; choose another layer.",
            code="not-finite",
        )
    return found


@dataclass(frozen=True, eq=False)
class CellColours:
    """Three principal components of cells: `components` float32 `[photos h w 3]`, `axes` float64 `[3 C]`, `mean` `[C]`.

    `explained` `[3]`: their shares of the variance. `pixels`: uint8 `[photos h w 3]`.
    """

    components: np.ndarray
    axes: np.ndarray
    mean: np.ndarray
    explained: np.ndarray
    pixels: np.ndarray

    @property
    def nbytes(self) -> int:
        """Approximate memory."""
        return self.components.nbytes + self.pixels.nbytes + self.axes.nbytes

    def shown(self, foreground: str) -> np.ndarray:
        """Whether each cell is shown, bool `[photos h w]`: where the first component is "positive", "negative", or any."""
        first = self.components[..., 0]
        return {"positive": first > 0, "negative": first < 0}.get(foreground, np.ones(first.shape, bool))


def colour_cells(features: np.ndarray, tick: Callable[[float], None]) -> CellColours:
    """The first three principal components over all cells of all photos, as red, green and blue (Oquab et al. 2023, section 7).

    Each is stretched from its 1st to its 99th percentile over these cells. Signs are those of `principal_axes`: the largest
    loading is positive. A component that does not vary is zero, and mid-grey.
    """
    rows = features.reshape(-1, features.shape[-1])
    found = principal_axes(rows, 3, tick)
    scale = max(float(rows.max()), -float(rows.min())) * math.sqrt(rows.shape[1])
    values = found.project(rows)
    real = values.std(0) > _ROUNDING * scale
    values[:, ~real] = 0
    low, high = np.percentile(values, PERCENTILES, axis=0)
    varies = high > low
    share = np.clip((values - low) / np.where(varies, high - low, 1), 0, 1)
    pixels = np.where(varies, np.rint(255 * share), _GREY).astype(np.uint8)
    shape = (*features.shape[:3], 3)
    axes, explained = np.where(real[:, None], found.axes, 0.0), np.where(real, found.explained, 0.0)
    return CellColours(values.astype(np.float32).reshape(shape), axes, found.mean, explained, pixels.reshape(shape))


def likeness(features: np.ndarray, photo: int, cell: tuple[int, int]) -> np.ndarray:
    """The cosine similarity of one cell with every cell of every photo, float32 `[photos h w]`; 0 where one is zero.

    Args:
        features: `[photos h w C]`.
        photo: The number of the photo of the cell.
        cell: Its row and column.
    """
    chosen = features[photo, cell[0], cell[1]].astype(np.float64)
    products = np.einsum("nhwc,c->nhw", features, chosen)
    norms = np.sqrt(np.einsum("nhwc,nhwc->nhw", features, features, dtype=np.float64)) * np.linalg.norm(chosen)
    found = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return np.clip(found, -1, 1).astype(np.float32)
