"""The feature maps of a layer for a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vizapp.engine.trace.observe import observe_with_tokens
from vizapp.media.drawing import heat, lay_over, limits, veil
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output, contact_sheet
from vizapp.methods.params import Params, knob

CLIPPED = 99  # percentile of a layer's values that has the brightest colour
OPACITY = 0.85  # of the strongest cell over the photo


@dataclass(frozen=True)
class ActivationParams(Params):
    """How the contact sheet is drawn; the numbers do not depend on it."""

    order: Literal["strength", "number"] = knob("strength", "Strongest channel first, or by channel number")
    scale: Literal["layer", "channel", "clipped"] = knob(
        "layer",
        "One brightness scale for the layer, up to its largest value or clipped at the 99th percentile, or one per channel",
    )


def statistics(activations: np.ndarray) -> dict[str, np.ndarray]:
    """Minimum, maximum, mean and fraction of zeros of each channel of `[C h w]` or `[C]`; each `[C]`."""
    flat = activations.reshape(len(activations), -1) + 0.0  # a silenced unit may have -0
    return {"min": flat.min(1), "max": flat.max(1), "mean": flat.mean(1), "zeros": (flat == 0).mean(1)}


def strength_order(activations: np.ndarray) -> np.ndarray:
    """Channel numbers `[C]`, the one with the largest single activation first; ties to the lower number."""
    peaks = activations.reshape(len(activations), -1).max(1)
    return np.argsort(-np.nan_to_num(peaks, nan=-np.inf), kind="stable")


def strongest_cell(channel: np.ndarray) -> tuple[int, int]:
    """Row and column of the largest value of a map `[h w]`; NaN counts as the smallest."""
    row, column = np.unravel_index(np.nan_to_num(channel, nan=-np.inf).argmax(), channel.shape)
    return int(row), int(column)


def scale_limits(activations: np.ndarray, scale: str = "layer") -> tuple[float, float]:
    """The values with the darkest and the brightest colour, of `[C h w]`: the smallest and largest finite ones.

    "clipped": the 99th percentile of all finite values in place of the largest, unless that is the smallest.
    """
    low, high = limits(activations)
    finite = activations[np.isfinite(activations)]
    if scale == "clipped" and finite.size:
        clipped = float(np.percentile(finite, CLIPPED))
        return low, clipped if clipped > low else high
    return low, high


def channel_tiles(activations: np.ndarray, scale: str = "layer") -> list[np.ndarray]:
    """A picture per channel of `[C h w]`, uint8 `[h w 3]`, on one scale ("layer", "clipped") or one per "channel"."""
    low, high = (None, None) if scale == "channel" else scale_limits(activations, scale)
    return [heat(channel, low, high) for channel in activations]


def over_photo(seen: np.ndarray, channel: np.ndarray) -> np.ndarray:
    """One channel `[h w]` over the crop, uint8 `[H W 3]`, the more opaque the stronger."""
    return lay_over(seen, veil(channel, *limits(channel)), OPACITY, "nearest")


def activations(question: Question, params: ActivationParams, job: Job) -> Result:
    """All feature maps of the unit's layer for the photo.

    `arrays`: `activations` float32 `[C h w]` (or `[C]`); of a layer with special tokens, `tokens` float32 `[C t]`, whose names
    are in the facts. `table`: minimum, maximum, mean and fraction of zeros of each
    channel, in the order of the sheet. A panel shows the unit's channel over the picture, or alone if its cells have no
    place in it.
    """
    network, picture, unit = question.network, question.require_picture(), question.require_unit()
    site = network.site(unit.site)
    maps, tokens = observe_with_tokens(network.module, network.prepare(picture), site)
    values = maps[0].float().cpu().numpy()
    job.report(0.5)
    order = strength_order(values) if params.order == "strength" else np.arange(len(values))
    numbers = statistics(values)
    table = tuple({"channel": int(c)} | {name: float(column[c]) for name, column in numbers.items()} for c in order)
    panels: tuple[Panel, ...] = ()
    if values.ndim == 3:
        chosen = values[unit.channel]
        peak = np.unravel_index(int(np.nanargmax(chosen)) if np.isfinite(chosen).any() else 0, chosen.shape)
        panels = (
            Panel(
                "sheet",
                contact_sheet(channel_tiles(values[order], params.scale)),
                f"All {len(values)} channels of {site.name}.",
            ),
            Panel(
                f"channel-{unit.channel}",
                over_photo(network.seen(picture), chosen) if site.located else heat(chosen),
                f"Channel {unit.channel}, strongest at cell {int(peak[0])},{int(peak[1])} with {chosen.max():.3g}.",
            ),
        )
    dead = int((numbers["max"] <= 0).sum()) if site.kind == "activation" else 0
    facts = {"layer": f"{site.name}, {site.kind}, {' x '.join(map(str, values.shape))}"}
    if site.is_map and not site.located:
        facts["cells"] = (
            "The cells of this layer are not positions in the photo, as those of attention matrices are not."
        )
    elif site.layout in ("tokens", "tokens-last"):
        around = (
            f"special tokens, in the array tokens: {', '.join(site.special)}" if site.special else "no special tokens"
        )
        facts["tokens"] = f"The patch tokens are laid out as a map of {site.shape[1]} x {site.shape[2]}; {around}."
    if dead:
        facts["silent"] = f"{dead} of {len(values)} channels are never above zero on this photo."
    if not np.isfinite(values).all():
        facts["not finite"] = f"{int((~np.isfinite(values)).sum())} activations are infinite or NaN."
    arrays = {"activations": values.astype(np.float32)}
    if tokens.shape[2]:
        arrays["tokens"] = tokens[0].float().cpu().numpy()
    return Result("activations", arrays, panels, facts, table)


METHOD = Method(
    key="activations",
    title="Feature maps",
    source="Zeiler & Fergus 2013, section 2",
    params=ActivationParams,
    run=activations,
    needs=frozenset({"picture", "unit"}),
    shows=(Output("activations", "heat map"), Output("table", "table")),
)
