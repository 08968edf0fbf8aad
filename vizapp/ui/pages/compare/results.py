"""Results of two networks for the page Compare: second layers, projections, occlusion maps, matching units."""

from __future__ import annotations

import numpy as np

from vizapp.engine.trace.sites import Unit
from vizapp.media.picture import Picture
from vizapp.methods.base import Job, Result
from vizapp.methods.matching import match_units
from vizapp.ui.inputs import images, networks, targets
from vizapp.ui.session import compute, messages
from vizapp.ui.widgets import projection_tiles
from vizapp.zoo.network import Network

Pair = tuple[Network, Network]
_SMALL = 64  # pixels: sweeps over such inputs take a fraction of a second


def weights_of(network: Network) -> str:
    """Its weights, in words."""
    words = {"default": "trained", "none": "random weights"}
    return words.get(network.weights, f"weights of {network.weights}")


def labels(pair: Pair) -> tuple[str, str]:
    """Distinct names for the two."""
    first, second = (network.name for network in pair)
    if first == second:
        first, second = (f"{network.name}, {weights_of(network)}" for network in pair)
    return (first, second) if first != second else (f"{first} (first)", f"{second} (second)")


def second_layer(network: Network) -> str | None:
    """The second convolution, rectified where a rectifier follows before the next one; None where there is none."""
    sites = [site for site in networks.sites(network) if site.is_map]
    convolutions = [index for index, site in enumerate(sites) if site.kind == "convolution"]
    if len(convolutions) < 2:
        return None
    start, end = convolutions[1], convolutions[2] if len(convolutions) > 2 else len(sites)
    rectified = (site.name for site in sites[start:end] if site.kind == "activation")
    return next(rectified, sites[start].name)


def project_second_layer(network: Network, picture: Picture, site: str) -> Result | None:
    """Deconvnet projections of the nine strongest units of the layer."""
    layer = compute.run("activations", network, picture, unit=Unit(site, 0))
    return layer and projection_tiles.project_strongest(network, picture, site, layer.arrays["activations"])


def occlude(network: Network, picture: Picture) -> Result | None:
    """The occlusion map of what is explained, by a square of a seventh of the input: 7 × 7 positions, or 13 × 13 of small
    inputs."""
    side = min(network.input_size[1:])
    stride = side // 7 if side > _SMALL else side // 14
    unit = targets.class_unit_of(network, picture)
    return compute.run("occlusion", network, picture, unit=unit, window=max(2, side // 7), stride=max(1, stride))


def difference(first: tuple[np.ndarray, float], second: tuple[np.ndarray, float]) -> np.ndarray:
    """The second's map `[h w]` minus the first's, each minus its probability without occlusion; on the first's grid."""
    (a, clean_a), (b, clean_b) = first, second
    rows = np.linspace(0, b.shape[0] - 1, a.shape[0]).round().astype(int)
    columns = np.linspace(0, b.shape[1] - 1, a.shape[1]).round().astype(int)
    return (b[np.ix_(rows, columns)] - clean_b) - (a - clean_a)


def match(pair: Pair, sites: tuple[str, str], path: str) -> Result | None:
    """The units of two layers matched over the pictures of a folder of this machine."""
    folder = images.folder(path)
    return compute.compute(
        compute.key_of("matching", pair[0], folder=folder, other=pair[1].digest, sites=sites),
        lambda tick: match_units(pair, sites, folder, Job(tick)),
        title=f"Matching over {messages.escaped(folder.name)}",
        device=str(pair[0].device),
    )
