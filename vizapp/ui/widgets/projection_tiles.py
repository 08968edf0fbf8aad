"""Projections as pictures: three rules beside the photo, nine units beside their patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import contrast_limit, contrasted, crop_box, sheet
from vizapp.media.picture import Picture
from vizapp.methods.activations import strength_order
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.params import build
from vizapp.methods.projection import ProjectionParams, project_units, revealing_rule
from vizapp.ui.session import compute, forms, state
from vizapp.ui.widgets import unit_picker
from vizapp.ui.widgets.maps import Box, three_across
from vizapp.zoo.network import Network

PARTS = {"patch": "Receptive field", "whole": "Whole photo"}  # what is shown of a picture
OPTIONS = ("seed", "extent", "pools", "response_norm", "gates", "extended")  # of a projection of one unit
_TILE = 64  # pixels that small tiles come near to
RULES = {"deconvnet": "Deconvnet", "guided": "Guided", "gradient": "Gradient"}


def nine(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """The tiles as one picture, three in a row, uint8 `[H W 3]`: small ones enlarged, so that the gaps stay narrow."""
    return sheet(tiles, 3, gap=2, enlarge=max(1, _TILE // max(max(tile.shape[:2]) for tile in tiles)))


def rule(network: Network) -> str:
    """The chosen rule; by default the one that suits the network."""
    chosen: str | None = state.get(forms.choices("projection")["rule"])
    return chosen or revealing_rule(network)


def rule_switch(network: Network, key: str) -> None:
    """Draw a button per rule."""
    unit_picker.switch(forms.choices("projection")["rule"], RULES, key, value=rule(network))


def project_strongest(
    network: Network, picture: Picture, site: str, values: np.ndarray, **params: Any
) -> Result | None:
    """Projections of the nine strongest units of a layer, each from its strongest cell, in one batched call.

    None if there is no result; a message then says why.

    Args:
        network: The network.
        picture: The picture.
        site: The name of the layer.
        values: Its activations `[C ...]`.
        **params: Parameters of the method `projection`.
    """
    units = [Unit(site, int(channel)) for channel in strength_order(values)[:9]]
    chosen = build(ProjectionParams, params, "projection")
    return compute.compute(
        compute.key_of("projection.strongest", network, picture, unit=units[0], units=units, **params),
        lambda tick: project_units(Question(network, picture), units, chosen, Job(tick)),
        device=str(network.device),
    )


def scales(projections: Mapping[str, np.ndarray], contrast: str) -> dict[str, float]:
    """The magnitude with full contrast, per projection `[H W 3]`: "shared" by all, or its "own"."""
    own = {name: contrast_limit(values) for name, values in projections.items()}
    return dict.fromkeys(own, max(own.values())) if contrast == "shared" else own


def crop_or_whole(pixels: np.ndarray, box: Box, part: str) -> np.ndarray:
    """The "patch" in the box (the whole where the box is larger than the picture), or the "whole"."""
    return crop_box(pixels, box) if part == "patch" else pixels


def tiles(seen: np.ndarray, result: Result, part: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Patches of the crop `[H W 3]`, and projections on one scale per unit, of a result for several units."""
    boxes: list[Box] = [tuple(box) for box in result.arrays["field"].tolist()]
    patches = [crop_or_whole(seen, box, part) for box in boxes]
    down = [
        crop_or_whole(contrasted(values), box, part)
        for values, box in zip(result.arrays["projection"], boxes, strict=True)
    ]
    return patches, down


def grid_data(
    drawn: list[np.ndarray], result: Result, chosen: int | None, names: Sequence[str], label: str
) -> dict[str, Any]:
    """Data of the sheet component for a tile per unit of a result, in rows of three.

    Args:
        drawn: The tiles, uint8 `[h w 3]`.
        result: The result for several units.
        chosen: The channel to highlight, if any.
        names: Names of the channels; may be empty.
        label: Describes the sheet.
    """
    arrays = result.arrays
    channels = [int(channel) for channel in arrays["channel"]]
    silent = [not values.any() for values in arrays["projection"]]
    cells = [f", cell {row},{column}" if row >= 0 else "" for row, column in arrays["cell"]]
    titles = [names[c] if names else f"Channel {c}" for c in channels]
    details = [
        f"activation {value:.4g}{cell}{', zero here' if nothing else ''}"
        for value, cell, nothing in zip(arrays["activation"], cells, silent, strict=True)
    ]
    return three_across(drawn, titles, details, label) | {"items": channels, "chosen": chosen, "still": False}
