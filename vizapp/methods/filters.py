"""The kernels of a convolution: pictures, tuning, dead and duplicate kernels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from vizapp.engine.layers.gratings import power, symmetries
from vizapp.engine.layers.kernels import Kernels, kernels_of
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.gallery import open_gallery
from vizapp.media.drawing import heat, sheet, signed
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.diagnosis import BANDS, UNDER_COVERED, Diagnosis, diagnose, in_words
from vizapp.methods.output import Output, contact_sheet
from vizapp.methods.params import Params, knob
from vizapp.zoo.network import Network

SHOWN_SLICES = 9  # of a deep kernel in the sheet of all kernels: the strongest
_GAP = 64  # grey between the slices of one kernel


@dataclass(frozen=True)
class FilterParams(Params):
    """How kernels are drawn, and the thresholds for duplicate and dead ones."""

    scale: Literal["layer", "filter"] = knob("layer", "One scale for the layer, or one per filter")
    alike: float = knob(0.9, "Minimum correlation of near-duplicate filters", low=0.5, high=1.0)
    shifts: int = knob(0, "Largest shift in cells when two filters are compared", low=0, high=3)
    dead: float = knob(0.1, "Share of the median norm below which a filter is dead", low=0.0, high=1.0)
    gallery: str = knob(
        "", "Folder of a gallery of this network; channels that none of its photos activates count as dead"
    )


def filters(question: Question, params: FilterParams, job: Job) -> Result:
    """The kernels of the convolution that computes the unit's layer, and what each is tuned to.

    Without a unit, the kernels of the first convolution.

    `arrays`: `kernels` float32 `[out in kh kw]` (`in`: channels of one group); `spectrum` `[out S S]`, their power, with
    frequency 0 in the middle and S samples per cycle per cell; `bands` `[3]` and `energy` `[3]`: number of kernels tuned to,
    and share of the power in, low (below 1/6 cycle per cell), middle and high (from 1/3) frequencies. `table`, a row per
    kernel: RMS and norm; correlation with its mirror images; frequency (cycles per cell) and orientation (of the stripes,
    degrees anticlockwise from horizontal) of the strongest grating, and the share of the kernel that it explains; the most
    similar kernel; duplicate; opposite; dead. Undefined values (the orientation of a blob) are None. The fact `diagnosis`
    is the summary in words.
    """
    network = question.network
    unit = question.unit or Unit(first_convolution(network), 0)
    batch = torch.zeros(1, *network.input_size, dtype=network.dtype, device=network.device)
    kernels = kernels_of(network.clean.module, batch, unit.site)  # interventions leave the kernels as they are
    weight = kernels.weight.float().cpu().numpy()
    job.report(0.2)
    spectra = power(weight)
    job.report(0.4)
    silent, told = _silent(network, unit.site, kernels.name, params.gallery) if params.gallery else ([], "")
    found = diagnose(weight, spectra, params.alike, params.shifts, params.dead, silent)
    job.report(0.9)
    arrays: dict[str, np.ndarray] = {
        "kernels": np.ascontiguousarray(weight, np.float32),
        "spectrum": spectra.astype(np.float32),
        "bands": np.array([found.bands[name] for name in BANDS], np.int64),
        "energy": np.array([found.energy[name] for name in BANDS], np.float32),
    }
    chosen = unit.channel
    panels = (
        Panel(
            "sheet",
            contact_sheet(kernel_tiles(weight, params.scale), gap=2),
            f"All {len(weight)} filters of {kernels.name}.",
        ),
        Panel(f"filter-{chosen}", slices_of(weight[chosen]), f"Filter {chosen}, every input."),
        Panel(f"spectrum-{chosen}", heat(spectra[chosen]), f"Power of filter {chosen}, frequency 0 in the middle."),
    )
    facts = _facts(unit.site, kernels, found, params) | ({"gallery": told} if told else {})
    return Result("filters", arrays, panels, facts, _table(weight, found))


def _silent(network: Network, site: str, convolution: str, folder: str) -> tuple[list[int], str]:
    """The channels that no picture of the gallery activates, and a sentence about them.

    The gallery may contain the activation or norm right after the convolution, the convolution, or the layer, in this
    order: a norm may lift a channel that is below zero.
    """
    found = open_gallery(folder)
    if found.manifest["network"]["digest"] != network.digest:
        raise VizError(
            f"The gallery in {folder} is of {found.manifest['network']['name']} with other weights.",
            code="other-network",
        )
    names = [one.name for one in network.sites]
    start = names.index(network.site(convolution).name)
    channels = network.sites[start].channels
    after = itertools.takewhile(
        lambda one: one.kind in ("norm", "activation") and one.channels == channels,
        network.sites[start + 1 : start + 3],
    )
    near = [*reversed([one.name for one in after]), names[start], network.site(site).name]
    known = next((name for name in near if name in found.sites), None)
    if known is None:
        return [], f"It has no layer {convolution}."
    dead = found.units_of(known)["dead"].tolist()
    words = f"{sum(dead)} of {len(dead)} channels of {known} are not activated by any of {found.pictures} photos"
    words += f" of {found.manifest['data']['name']}."
    return [channel for channel, one in enumerate(dead) if one], words


def first_convolution(network: Network) -> str:
    """The layer whose kernels are shown without a unit.

    Raises:
        VizError: the network has no convolution.
    """
    found = next((site.name for site in network.sites if site.kind == "convolution" and site.is_map), None)
    if found is None:
        raise VizError(f"{network.name} has no convolution, so it has no kernels to show.", code="no-convolution")
    return found


def tile(kernel: np.ndarray, scale: float | None = None) -> np.ndarray:
    """One kernel `[in kh kw]` as uint8 `[H W 3]` with zero mid-grey: in colour if it has three input channels, else its
    strongest slices in rows. `scale`: the magnitude at full contrast; by default the kernel's maximum."""
    scale = float(np.abs(kernel).max(initial=0)) if scale is None else scale
    if len(kernel) == 3:
        return signed(kernel.transpose(1, 2, 0), scale)
    if len(kernel) > 1:
        kernel = kernel[np.argsort(-(kernel**2).sum((1, 2)), kind="stable")[:SHOWN_SLICES]]
    return _in_rows([signed(part, scale) for part in kernel])


def slices_of(kernel: np.ndarray) -> np.ndarray:
    """All slices of one kernel `[in kh kw]` in the order of the inputs: uint8 `[H W 3]`; in colour if there are three."""
    scale = float(np.abs(kernel).max(initial=0))
    return tile(kernel, scale) if len(kernel) == 3 else _in_rows([signed(part, scale) for part in kernel])


def kernel_tiles(weight: np.ndarray, scale: str) -> list[np.ndarray]:
    """A picture per kernel of `[out in kh kw]`, as `tile`, on one scale for the "layer" or one per "filter"."""
    shared = float(np.abs(weight).max(initial=0)) if scale == "layer" else None
    return [tile(kernel, shared) for kernel in weight]


def _in_rows(slices: list[np.ndarray]) -> np.ndarray:
    return sheet(slices, math.ceil(math.sqrt(len(slices))), gap=int(len(slices) > 1), background=_GAP)


def _facts(site: str, kernels: Kernels, found: Diagnosis, params: FilterParams) -> dict[str, str]:
    count, inputs, height, width = kernels.weight.shape
    stride = f", stride {max(kernels.stride)}" if max(kernels.stride) > 1 else ""
    what = f"{count} kernels of {kernels.name}, {inputs} x {height} x {width}{stride}"
    facts = {"layer": what if site == kernels.name else f"{what}, the convolution before {site}"}
    if kernels.groups > 1:
        facts["groups"] = "Each kernel reads one channel." if kernels.depthwise else (
            f"{kernels.groups} groups: each kernel reads {inputs} channels."
        )  # fmt: skip
    facts["diagnosis"] = in_words(found, kernels)
    if max(height, width) > 1:
        cell = "pixel" if kernels.sees_pixels else "cell of the layer below"
        facts["bands"] = (
            "; ".join(
                f"{name}: {found.bands[name]} filters, {100 * found.energy[name]:.0f} % of the power" for name in BANDS
            )
            + f" (limits 1/6 and 1/3 cycle per {cell}; under-covered: fewer than {100 * UNDER_COVERED:.0f} % of the filters)"
        )
    facts["thresholds"] = (
        f"near-duplicate: normalized correlation of at least {params.alike:g}"
        + (f", shifted by up to {params.shifts} cells" if params.shifts else "")
        + f"; opposite: correlation of at most -{params.alike:g}; dead: norm below {params.dead:g} times the median norm; "
        "dominating: norm above 3 times the median norm"
    )
    return facts


def _table(weight: np.ndarray, found: Diagnosis) -> tuple[dict[str, Any], ...]:
    mirrors, size = symmetries(weight), weight[0].size
    rows = []
    for number in range(len(weight)):
        rows.append({
            "filter": number,
            "rms": float(found.norms[number] / math.sqrt(size)),
            "norm": float(found.norms[number]),
            "mirror": _number(mirrors[number, 0]),
            "upside_down": _number(mirrors[number, 1]),
            "half_turn": _number(mirrors[number, 2]),
            "frequency": _number(found.gratings.frequency[number]),
            "orientation": _number(found.gratings.orientation[number]),
            "grating": _number(found.gratings.share[number]),
            "twin": int(found.twin[number]) if found.twin[number] >= 0 else None,
            "alike": float(found.alike[number]),
            "duplicate": bool(found.duplicate[number]),
            "opposite": bool(found.opposite[number]),
            "dead": bool(found.dead[number]),
        })  # fmt: skip
    return tuple(rows)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


METHOD = Method(
    key="filters",
    title="Filters",
    source="Zeiler & Fergus 2013, section 4.1 and figure 6",
    params=FilterParams,
    run=filters,
    needs=frozenset(),
    optional_inputs=frozenset({"unit"}),
    shows=(Output("kernels", "signed map"), Output("spectrum", "heat map"), Output("table", "table")),
)
