"""Deconvnet, guided and gradient projections of a unit to the pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from vizapp.engine.projection.project import Certificate, Projections, project, project_recording
from vizapp.engine.projection.rules import Rule, rule_named
from vizapp.engine.trace.recording import Recording
from vizapp.engine.trace.sites import Unit
from vizapp.media.drawing import contrasted, crop_box
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.zoo.network import Network

Boxes = list[tuple[int, int, int, int]]  # (top, left, bottom, right) in input pixels
CAUTION = (
    "It shows what in this photo activates the unit, given the pooling switches. It hardly depends on later layers and "
    "does not explain the class decision (Nie 2018, Adebayo 2018, Sixt 2020)."
)


@dataclass(frozen=True)
class ProjectionParams(Params):
    """The rule, and options for what the papers leave open."""

    rule: Literal["deconvnet", "guided", "gradient"] = knob("deconvnet", "Backward rule of rectifiers")
    seed: Literal["value", "one"] = knob("value", "Start with the unit's activation, or with 1")
    extent: Literal["cell", "map"] = knob(
        "cell", "Start at one cell (the strongest, or the unit's), or at the whole map"
    )
    pools: Literal["sum", "overwrite"] = knob("sum", "Overlapping pooling windows add up, or the last one wins")
    response_norm: Literal["identity", "derivative"] = knob("identity", "Backward rule of local response normalization")
    gates: Literal["held", "derivative"] = knob(
        "held", "Gates (squeeze and excitation) held constant, or differentiated"
    )
    extended: bool = knob(True, "Apply the rule of rectifiers to ReLU6, SiLU, GELU …; otherwise their derivative")

    def build_rule(self) -> Rule:
        """The engine's rule with these options."""
        return rule_named(
            self.rule, pools=self.pools, response_norm=self.response_norm, gates=self.gates, extended=self.extended
        )


def revealing_rule(network: Network) -> Literal["deconvnet", "guided"]:
    """The rule whose projections show the photo: deconvnet if the network has a max pool, whose switches record where the
    maxima were, else guided (Springenberg et al. 2014, section 3.4)."""
    return "deconvnet" if any("max_pool" in site.operation for site in network.sites) else "guided"


def projection(question: Question, params: ProjectionParams, job: Job) -> Result:
    """The part of the photo that activates the unit, projected to the pixels.

    `arrays`: `projection` `[H W 3]` float32, signed, in the network's normalised input space (`[H W C]` of networks that take C
    channels, other than 1); `patch` uint8 `[h w 3]`, the
    part of the picture that the unit's cell can see (grey beyond the border); `field` (top, left, bottom,
    right) in input pixels, which may extend beyond the border; `activation` of the unit.
    """
    unit, seen = question.require_unit(), question.network.seen(question.require_picture())
    down, boxes = _sent_down(question, [unit], params, job)
    cell, box, pixels = down.cells[0], boxes[0], as_pixels(down.values[0])
    patch = crop_box(seen, box)
    arrays = {
        "projection": pixels,
        "patch": patch,
        "field": np.array(box, np.int64),
        "activation": np.array(float(down.activations[0]), np.float32),
    }
    where = "" if cell is None or params.extent == "map" else f" at cell {cell[0]},{cell[1]}"
    name = _unit_name(question, unit)
    drawn = contrasted(pixels)
    panels = (
        Panel("seen", seen, "The photo as the network sees it."),
        Panel("projection", drawn, f"{params.rule}: {name}{where}, activation {float(down.activations[0]):.4g}."),
        Panel("patch", patch, "What the cell can see of the photo."),
        Panel("projection-patch", crop_box(drawn, box), "The same part of the projection."),
    )
    facts = {"unit": f"{name}{where}"} | what_was_reversed(down.certificate, params.rule)
    if down.ends:
        facts["silent"] = silence(down.ends)
    return Result("projection", arrays, panels, facts)


def project_units(question: Question, units: Sequence[Unit], params: ProjectionParams, job: Job) -> Result:
    """Projections of some units of one layer in one backward pass; `question` names network and picture.

    `arrays`, an entry per unit: `projection` `[K H W 3]` float32 as in `projection`; `field` `[K 4]`; `activation` and
    `channel` `[K]`; `cell` `[K 2]` (row, column), -1 where none was chosen.
    """
    down, boxes = _sent_down(question, units, params, job)
    arrays = {
        "projection": np.stack([as_pixels(values) for values in down.values]),
        "field": np.array(boxes, np.int64),
        "activation": down.activations.float().cpu().numpy(),
        "channel": np.array([unit.channel for unit in units], np.int64),
        "cell": np.array([(params.extent == "cell" and cell) or (-1, -1) for cell in down.cells], np.int64),
    }
    return Result("projection", arrays, facts=what_was_reversed(down.certificate, params.rule))


def projected_map(
    question: Question, unit: Unit, params: ProjectionParams, recording: Recording | None = None
) -> tuple[np.ndarray, str]:
    """The projection `[H W 3]` of a unit as in `projection`, and its certificate.

    `recording`: the pass over the picture up to the unit's layer, recorded with the rule; None: not made yet.
    """
    down, _ = _sent_down(question, [unit], params, Job(), recording)
    return as_pixels(down.values[0]), certificate_text(down.certificate, params.rule)


def _sent_down(
    question: Question, units: Sequence[Unit], params: ProjectionParams, job: Job, recording: Recording | None = None
) -> tuple[Projections, Boxes]:
    """The projections of units of one layer, and the (top, left, bottom, right) that each unit sees."""
    network = question.network.smooth
    rule = params.build_rule()

    def tick(share: float) -> None:
        job.report(0.7 * share)

    if recording is None:
        batch = network.prepare(question.require_picture())
        (down,) = project(network.module, batch, units, network.sites, rule, params.seed, params.extent, tick)
    else:
        site = network.site(units[0].site)
        down = project_recording(recording, site, units, rule, params.seed, params.extent, tick)
    job.report(0.7)
    cells = down.cells if params.extent == "cell" else [None] * len(units)
    return down, _field_boxes(network, units[0].site, cells)


def what_was_reversed(certificate: Certificate, rule: str) -> dict[str, str]:
    """Facts about the backward pass: certificate and cautions."""
    facts = {"certificate": certificate_text(certificate, rule), "caution": CAUTION}
    if certificate.extended:
        facts["extended"] = (
            "Some activations on the way (ReLU6, SiLU, GELU …) are not covered by the paper; they were treated like rectifiers."
        )
    if certificate.detached:
        facts["detached"] = (
            "The network detaches activations on the way, or computes them under torch.no_grad or torch.inference_mode. The "
            "signal passes them; autograd would stop there."
        )
    if certificate.custom:
        facts["custom"] = (
            "The network has custom autograd functions on the way whose backward pass is not their derivative. The signal "
            "passes them by that backward pass, whatever the rule."
        )
    if rule == "deconvnet" and certificate.nonlinearities and not certificate.switches:
        facts["no switches"] = (
            "There is no max pool between unit and pixels, so the projection hardly depends on this photo; deconvnet works "
            "poorly there (Springenberg 2014)."
        )
    return facts


def silence(ends: Collection[str]) -> str:
    """Why a projection is zero everywhere."""
    reasons = []
    if "start" in ends:
        reasons.append("the unit's activation is zero")
    if "rectifier" in ends:
        reasons.append("the rectifiers removed all of the signal, as they do if the unit is below zero")
    names = sorted(set(ends) - {"start", "rectifier"})
    if names:
        reasons.append(f"the derivative of {' and '.join(names)} is zero here")
    return f"No signal reaches the pixels: {'; '.join(reasons)}."


def as_pixels(values: torch.Tensor) -> np.ndarray:
    """A projection `[C H W]` as float32 `[H W C]`; the channel of a grey network is repeated three times."""
    pixels = values.permute(1, 2, 0).float().cpu().numpy()
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels)


def depth_of(network: Network) -> int:
    """The channels of a projection: those of the network's input, or three of a grey one."""
    return 3 if network.input_size[0] == 1 else network.input_size[0]


def _field_boxes(network: Network, site: str, cells: Sequence[tuple[int, int] | None]) -> Boxes:
    """(top, left, bottom, right) of each cell in input pixels; the whole picture where there is no cell."""
    height, width = network.input_size[1:]
    field, whole = network.receptive_field(network.site(site), height, width), (0, 0, height, width)
    return [whole if cell is None or field.rows.axis is None else field.box(cell) for cell in cells]


def certificate_text(certificate: Certificate, rule: str) -> str:
    """The certificate as a sentence."""
    count = certificate.nonlinearities
    noun = "non-linearity" if count == 1 else "non-linearities"
    pools = f"{certificate.switches} max pool{'s' * (certificate.switches != 1)} with switches"
    gates = f", {certificate.gates} gate{'s' * (certificate.gates != 1)} held constant" if certificate.gates else ""
    custom = f", {certificate.custom} by their own backward pass" if certificate.custom else ""
    if rule == "gradient":
        return f"{count} {noun} between unit and pixels, all differentiated (gradient); {pools}{gates}."
    return (
        f"{count} {noun} between unit and pixels: {certificate.paper} reversed by the paper's rule, "
        f"{certificate.extended} by an extended rule, {certificate.differentiated} only differentiated{custom}; {pools}{gates}."
    )


def _unit_name(question: Question, unit: Unit) -> str:
    names = question.network.class_names(question.network.site(unit.site))
    place = f"{unit.site}:{unit.channel}"
    return f"class {names[unit.channel]} ({place})" if names else place


METHOD = Method(
    key="projection",
    title="Projection",
    source="Zeiler & Fergus 2013, section 2.1; Springenberg et al. 2014; Simonyan et al. 2013",
    params=ProjectionParams,
    run=projection,
    needs=frozenset({"picture", "unit"}),
    shows=(Output("projection", "signed image"), Output("patch", "images")),
)
