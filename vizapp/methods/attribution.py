"""Attribution maps: integrated gradients, SmoothGrad and DeepLIFT by Captum; Grad-CAM and guided Grad-CAM."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory, release_frames
from vizapp.engine.projection.project import argmax_cell, project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.tap import Tap, check_differentiable
from vizapp.engine.trace.flow import gradients_at, sites_on_every_path
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit, channels_first
from vizapp.errors import VizError
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.projection import certificate_text
from vizapp.settings import settings
from vizapp.zoo.network import Network

_AT_ONCE = 8  # integration steps or noisy samples per pass; larger batches were no faster
_CANDIDATES = 16  # layers that Grad-CAM tries, last first; the patches of the last few may not reach the class token
_SPREAD = 0.1  # largest share of the squared gradient that the mean over cells may lose before Grad-CAM is called rough
_TRUSTED = 0.01  # largest gap of completeness
_STEPS = 32  # if the user gives no number; of integrated gradients, in each part of the path
_PARTS = 8


@dataclass(frozen=True)
class AttributionParams(Params):
    """The kind of attribution and its options."""

    kind: Literal["integrated_gradients", "smoothgrad", "gradcam", "deeplift", "guided_gradcam"] = knob(
        "integrated_gradients", "Kind of attribution"
    )
    steps: int = knob(
        0,
        "Steps of integrated gradients, or noisy samples of SmoothGrad; 0: 32, and up to 256 steps where 32 are too few",
        low=0,
        high=500,
    )
    noise: float = knob(
        0.15, "Standard deviation of SmoothGrad's noise, as a share of the input range", low=0.01, high=1
    )
    layer: str = knob("", "Layer for Grad-CAM; by default the last feature map on all paths from the input to the unit")
    seed: int = knob(0, "Random seed for the noise", low=0, high=2**31 - 1)


@functools.cache
def _captum() -> ModuleType:
    # Captum imports matplotlib, which would otherwise write to the home folder or warn where it cannot.
    os.environ.setdefault("MPLCONFIGDIR", str(settings().cache / "matplotlib"))
    import captum.attr  # takes seconds, because it imports matplotlib

    return captum.attr


class UnitOf(nn.Module):
    """A module whose output is the activation `[N 1]` of one unit, for Captum to explain."""

    def __init__(self, module: nn.Module, site: Site, unit: Unit) -> None:
        super().__init__()
        self.module, self._site, self._unit = module, site, unit

    def forward(self, batch: Tensor) -> Tensor:
        """The unit's activation on each picture of `[N C H W]`."""
        with Tap(self.module, {self._site.name}, stop=False) as tap:
            self.module(batch)
        return _value(tap.kept, self._site, self._unit)[:, None]


def _value(kept: dict[str, Tensor], site: Site, unit: Unit) -> Tensor:
    """The activation `[N]` of a unit with a cell (or of a vector)."""
    return channels_first(kept[site.name], site)[(slice(None), unit.channel, *(unit.cell or ()))]


def private_copy(module: nn.Module, in_place: bool = False) -> nn.Module:
    """A copy that shares the weights and, unless `in_place`, whose activations do not write into their inputs.

    Captum registers hooks on modules. On the shared module they would affect other threads, and in-place activations break
    them.
    """
    shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    copied = copy.deepcopy(module, dict(shared))
    for part in copied.modules():
        if not in_place and isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False  # type: ignore[assignment]
    return copied


@dataclass(frozen=True)
class _Asked:
    """A unit, at its strongest cell, and the input `[1 C H W]` on which it is explained."""

    network: Network
    site: Site
    unit: Unit
    batch: Tensor
    value: float
    params: AttributionParams
    job: Job


def attribution(question: Question, params: AttributionParams, job: Job) -> Result:
    """How much each pixel or region contributes to a class or a unit.

    Grad-CAM looks at a layer as a map, in its own layout: the tokens of a transformer lie on their grid, special tokens are
    left out. The fact "rough" says where averaging the gradient over cells loses it, as under fully connected layers. Guided
    Grad-CAM multiplies it with the projection by the guided rule. The others are Captum's. `arrays`:
    `attribution` `[H W]` float32, summed over colours (Grad-CAM: resized from its layer, not below zero).
    """
    network, unit = question.network, question.require_unit()
    site = network.site(unit.site)
    batch = network.prepare(question.require_picture())
    maps = observe(network.module, batch, [site])[site.name][0]
    unit = replace(unit, site=site.name, cell=argmax_cell(maps, unit))
    asked = _Asked(network, site, unit, batch, float(maps[(unit.channel, *(unit.cell or ()))]), params, job)
    job.report(0.1)
    try:
        with torch.enable_grad():
            values, facts = _in_parts(asked, network.batch_limit(_AT_ONCE, gradients=True))
    except (AssertionError, RuntimeError, AttributeError, TypeError, ValueError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise VizError(f"{params.kind} cannot be computed on this network: {reason}", code="captum-failed") from error
    pixels = values.detach().float().cpu().numpy()
    by = "" if params.kind in _CAMS else f", computed by Captum {importlib.metadata.version('captum')}"
    return Result("attribution", {"attribution": pixels}, facts={"attribution": f"{params.kind}{by}", **facts})


def _in_parts(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    """The attribution with at most `size` inputs per pass; fewer if they do not fit into memory."""
    while True:
        try:
            return _RUN[asked.params.kind](asked, size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            release_frames(error)
        size //= 2


def _model(asked: _Asked) -> UnitOf:
    """The network up to the unit; with in-place activations only if it computes something else without."""
    model = UnitOf(private_copy(asked.network.module), asked.site, asked.unit).eval()
    with torch.no_grad():
        value = float(model(asked.batch))
    if abs(value - asked.value) > 1e-3 * max(abs(value), abs(asked.value)):
        model.module = private_copy(asked.network.module, in_place=True)
    return model


# ---------------------------------------------------------------------------------------------------------- Captum's


def _differentiable(asked: _Asked) -> UnitOf:
    """The network up to the unit.

    Raises:
        VizError: autograd does not follow the unit from the pixels.
    """
    model = _model(asked)
    check_differentiable(model(asked.batch.clone().requires_grad_().clone()))  # the network may write into its input
    return model


def _integrated_gradients(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    """Captum's integral along the path from the baseline. By default, where it is not exact enough, it is the sum over parts
    of the path: the part with the largest gap of completeness is halved until the whole has a small one.
    """
    model, chosen = _differentiable(asked), asked.params.steps
    values = {0.0: _on(model, 0 * asked.batch), 1.0: asked.value}

    def integral(start: float, end: float) -> Tensor:
        found: Tensor = _captum().IntegratedGradients(model).attribute(
            end * asked.batch, start * asked.batch, target=0, n_steps=chosen or _STEPS, internal_batch_size=size
        )  # fmt: skip
        return found.detach()

    def gap(part: tuple[float, float]) -> float:
        return abs(float(parts[part].double().sum()) - (values[part[1]] - values[part[0]]))

    parts = {(0.0, 1.0): integral(0, 1)}
    while True:
        found = torch.stack(list(parts.values())).sum(0)
        told = _completeness(asked, model, found, "Take more steps.")
        if chosen or "caution" not in told or len(parts) == _PARTS:
            break
        asked.job.report(0.1 + 0.9 * len(parts) / _PARTS)
        start, end = worst = max(parts, key=gap)
        middle = (start + end) / 2
        values[middle] = _on(model, middle * asked.batch)
        del parts[worst]
        parts |= {ends: integral(*ends) for ends in ((start, middle), (middle, end))}
    note = f"{len(parts) * (chosen or _STEPS)} steps from {asked.network.preprocessing.zero_colour}"
    note += f", in {len(parts)} parts of the path" * (len(parts) > 1)
    return found[0].sum(0), {"note": f"{note}.", **told}


def _smoothgrad(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    model, batch, p, samples = _differentiable(asked), asked.batch, asked.params, asked.params.steps or _STEPS
    with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
        torch.manual_seed(p.seed)
        found = _captum().NoiseTunnel(_captum().Saliency(model)).attribute(
            batch, nt_type="smoothgrad", nt_samples=samples, nt_samples_batch_size=size, target=0, abs=False,
            stdevs=p.noise * float(batch.max() - batch.min()),
        )  # fmt: skip
    return found[0].sum(0), {"note": f"{samples} noisy samples."}


def _deeplift(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    model = _differentiable(asked)
    found = _captum().DeepLift(model).attribute(asked.batch, baselines=torch.zeros_like(asked.batch), target=0)
    advice = "DeepLIFT does not fit every operation of this network: functional activations get their plain gradient."
    note = f"Against {asked.network.preprocessing.zero_colour}."
    return found[0].sum(0), {"note": note, **_completeness(asked, model, found, advice)}


def _on(model: UnitOf, batch: Tensor) -> float:
    """The unit's activation on a picture `[1 C H W]`."""
    with torch.no_grad():
        return float(model(batch))


def _completeness(asked: _Asked, model: UnitOf, found: Tensor, advice: str) -> dict[str, str]:
    """Whether the attributions add up to the rise of the unit above the baseline, as both methods promise."""
    baseline = _on(model, torch.zeros_like(asked.batch))
    total, rise = float(found.detach().double().sum()), asked.value - baseline
    gap = abs(total - rise)
    share = 0.0 if gap <= 1e-5 * (abs(asked.value) + abs(baseline)) else gap / abs(rise) if rise else float("inf")
    told = f"The attributions add up to {total:.4g}; the unit rises by {rise:.4g} from the baseline"
    facts = {"completeness": f"{told}: a gap of {100 * share:.2f} %." if share < float("inf") else f"{told}."}
    if share > _TRUSTED:
        facts["caution"] = (
            f"Do not trust these numbers: they should add up to {rise:.4g}, but they add up to {total:.4g}. {advice}"
        )
    return facts


# ---------------------------------------------------------------------------------------------------------- Grad-CAM


def _gradcam(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    return _cam(asked)


def _guided_gradcam(asked: _Asked, size: int) -> tuple[Tensor, dict[str, str]]:
    heat, facts = _cam(asked)
    (down,) = project(asked.network.module, asked.batch, [asked.unit], asked.network.sites, rule_named("guided"), "one")
    return down.values[0].sum(0) * heat, facts | {"certificate": certificate_text(down.certificate, "guided")}


def _cam(asked: _Asked) -> tuple[Tensor, dict[str, str]]:
    """Grad-CAM `[H W]` and where it looked: the maps, each weighted by the mean of the unit's gradient over its cells."""
    found = _explaining(asked)
    if found is None:
        layer = asked.params.layer or "any feature map on all paths from the input to it"
        raise VizError(f"{asked.site.name!r} has no gradient at {layer}; choose another layer.", code="no-feature-map")
    site, maps, gradient = found
    heat = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    special = site.prefix_tokens + site.suffix_tokens
    chosen = "" if asked.params.layer else ", the last feature map on all paths from the input to the unit"
    note = f"At layer {site.name}{chosen}."
    note += f" Special tokens left out: {special}." if special else ""
    note += "" if heat.any() else " The map is zero: no cell there raises the unit."
    size, facts = asked.batch.shape[2:], {"layer": site.name, "note": note}
    spread = float((gradient - gradient.mean((2, 3), keepdim=True)).square().sum() / gradient.square().sum())
    if spread > _SPREAD:
        facts["rough"] = (
            f"A rough guide: Grad-CAM averages the gradient over the cells of {site.name}, but the layers above read "
            f"each cell in their own way, so {100 * spread:.0f} % of the gradient is lost."
        )
    return nn.functional.interpolate(heat, size=size, mode="bilinear", align_corners=False)[0, 0], facts


def _explaining(asked: _Asked) -> tuple[Site, Tensor, Tensor] | None:
    """The layer that a CAM explains, its maps and the unit's gradient there `[1 C h w]`; None without any gradient."""
    module = _model(asked).module
    sites = [_checked(asked, asked.params.layer)] if asked.params.layer else _carrying(asked, module)
    kept, gradients = gradients_at(
        module, asked.batch, lambda kept: _value(kept, asked.site, asked.unit).sum(),
        {asked.site.name, *(site.name for site in sites)},
    )  # fmt: skip
    for site in reversed(sites):
        gradient = gradients.get(site.name)
        if gradient is not None and channels_first(gradient, site).any():
            return site, channels_first(kept[site.name], site), channels_first(gradient, site)
    return None


def last_map_on_all_paths(network: Network, unit: Unit, batch: Tensor, value: float) -> Site | None:
    """The layer that CAMs explain by default; where autograd finds none, the last feature maps up to the unit.

    `unit` has a cell or is of a vector; `value` is its activation on the input `batch`.
    """
    site, found = network.site(unit.site), None
    try:
        found = _explaining(_Asked(network, site, unit, batch, value, AttributionParams(), Job()))
    except RuntimeError as error:  # of a network that overwrites what autograd needs
        if is_out_of_memory(error):
            raise
    return network.last_feature_map(site) if found is None else found[0]


def _carrying(asked: _Asked, module: nn.Module) -> list[Site]:
    """The maps below the unit that carry all that it sees of the picture, in running order; the last few."""
    below = asked.network.sites[: asked.network.sites.index(asked.site)]
    maps = {site.name: site for site in below if _shows_places(site) and site.kind not in {"reshape", "identity"}}
    names = sites_on_every_path(module, asked.batch, asked.site.name, list(maps))
    return [maps[name] for name in names][-_CANDIDATES:]


def _shows_places(site: Site) -> bool:
    return site.is_map and site.located and site.shape[1] * site.shape[2] > 1


def _checked(asked: _Asked, name: str) -> Site:
    """The layer that the user chose.

    Raises:
        VizError: it is no map, or runs after the unit.
    """
    site, sites = asked.network.site(name), asked.network.sites
    if sites.index(site) >= sites.index(asked.site):
        raise VizError(f"{site.name} does not run below the unit; choose an earlier layer.", code="not-below-unit")
    if not _shows_places(site):
        raise VizError(
            f"Grad-CAM needs a layer whose cells are positions in the photo; {site.name} gives "
            f"{' x '.join(map(str, site.shape))}. Leave layer empty for the last map.",
            code="no-feature-map",
        )
    return site


_CAMS = ("gradcam", "guided_gradcam")
_Run = Callable[[_Asked, int], "tuple[Tensor, dict[str, str]]"]
_RUN: dict[str, _Run] = {
    "integrated_gradients": _integrated_gradients,
    "smoothgrad": _smoothgrad,
    "gradcam": _gradcam,
    "deeplift": _deeplift,
    "guided_gradcam": _guided_gradcam,
}

METHOD = Method(
    key="attribution",
    title="Attribution",
    source="Sundararajan 2017 (integrated gradients); Smilkov 2017 (SmoothGrad); Selvaraju 2017 (Grad-CAM, guided "
    "Grad-CAM); Shrikumar 2017 (DeepLIFT)",
    params=AttributionParams,
    run=attribution,
    needs=frozenset({"picture", "unit"}),
    memory_hint="Grad-CAM",
    shows=(Output("attribution", "support map", over_photo=True, title="Support"),),
)
