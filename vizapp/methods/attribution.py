"""Attribution maps computed by Captum: integrated gradients, SmoothGrad, Grad-CAM, DeepLIFT and guided Grad-CAM."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory, release_frames
from vizapp.engine.projection.project import argmax_cell
from vizapp.engine.tap import Tap
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, Unit, channels_first
from vizapp.errors import VizError
from vizapp.methods.base import Job, Method, Question, Result
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.settings import settings

_AT_ONCE = 8  # integration steps or noisy samples per pass; larger batches were no faster


@dataclass(frozen=True)
class AttributionParams(Params):
    """The kind of attribution and its options."""

    kind: Literal["integrated_gradients", "smoothgrad", "gradcam", "deeplift", "guided_gradcam"] = knob(
        "integrated_gradients", "Kind of attribution"
    )
    steps: int = knob(32, "Steps of integrated gradients, or noisy samples of SmoothGrad", low=2, high=500)
    noise: float = knob(
        0.15, "Standard deviation of SmoothGrad's noise, as a share of the input range", low=0.01, high=1
    )
    layer: str = knob("", "Module for Grad-CAM; by default the last one whose output is a feature map")
    seed: int = knob(0, "Random seed for the noise", low=0, high=2**31 - 1)


@functools.cache
def _captum() -> ModuleType:
    # Captum imports matplotlib, which would otherwise write to the home folder or warn where it cannot.
    os.environ.setdefault("MPLCONFIGDIR", str(settings().cache / "matplotlib"))
    import captum.attr  # takes seconds, because it imports matplotlib

    return captum.attr


class UnitOf(nn.Module):
    """A module whose output is the activation `[N 1]` of one unit, for Captum to explain."""

    def __init__(self, module: nn.Module, site: Site, unit: Unit, cell: tuple[int, int] | None) -> None:
        super().__init__()
        self.module, self._site, self._unit, self._cell = module, site, unit, cell

    def forward(self, batch: Tensor, stop: bool = False) -> Tensor:
        """The unit's activation on each picture of `[N C H W]`; with `stop`, the layers above are skipped."""
        with Tap(self.module, {self._site.name}, stop=stop) as tap:
            self.module(batch)
        maps = channels_first(tap.kept[self._site.name], self._site.layout)
        values = maps[:, self._unit.channel]
        return (values if self._cell is None else values[:, self._cell[0], self._cell[1]])[:, None]


def private_copy(module: nn.Module) -> nn.Module:
    """A copy that shares the weights and whose activations do not write into their inputs.

    Captum registers hooks on modules. On the shared module they would affect other threads, and in-place activations break
    them.
    """
    shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    copied = copy.deepcopy(module, dict(shared))
    for part in copied.modules():
        if isinstance(getattr(part, "inplace", None), bool):
            part.inplace = False  # type: ignore[assignment]
    return copied


def attribution(question: Question, params: AttributionParams, job: Job) -> Result:
    """How much each pixel contributes to the unit, by one of Captum's methods.

    `arrays`: `attribution` `[H W]` float32, summed over colours (Grad-CAM: resized from its layer, not below zero).
    """
    network, unit = question.network, question.require_unit()
    site = network.site(unit.site)
    batch = network.prepare(question.require_picture())
    maps = observe(network.module, batch, [site])[site.name][0]
    cell = argmax_cell(maps, unit)
    model = UnitOf(private_copy(network.module), site, unit, cell)
    model.eval()
    job.report(0.1)
    try:
        with torch.enable_grad():
            values, note = _in_parts(model, batch, params, network.batch_limit(_AT_ONCE, gradients=True))
    except (AssertionError, RuntimeError, AttributeError, TypeError, ValueError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise VizError(
            f"Captum cannot compute {params.kind} on this network: {reason}", code="captum-failed"
        ) from error
    pixels = values.detach().float().cpu().numpy()
    facts = {"attribution": f"{params.kind}, computed by Captum {importlib.metadata.version('captum')}", "note": note}
    return Result("attribution", {"attribution": pixels}, facts={k: v for k, v in facts.items() if v})


def _in_parts(model: UnitOf, batch: Tensor, params: AttributionParams, size: int) -> tuple[Tensor, str]:
    """The attribution with at most `size` inputs per pass; fewer if they do not fit into memory."""
    while True:
        try:
            return _RUN[params.kind](model, batch, params, size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            release_frames(error)
        size //= 2


def _summed(values: Tensor) -> Tensor:
    return values[0].sum(0)  # [H W]


def _integrated_gradients(model: nn.Module, batch: Tensor, p: AttributionParams, size: int) -> tuple[Tensor, str]:
    found = _captum().IntegratedGradients(model).attribute(batch, target=0, n_steps=p.steps, internal_batch_size=size)
    return _summed(found), f"{p.steps} steps from the mean colour."


def _smoothgrad(model: UnitOf, batch: Tensor, p: AttributionParams, size: int) -> tuple[Tensor, str]:
    with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
        torch.manual_seed(p.seed)
        found = _captum().NoiseTunnel(_captum().Saliency(model)).attribute(
            batch, nt_type="smoothgrad", nt_samples=p.steps, nt_samples_batch_size=size, target=0, abs=False,
            stdevs=p.noise * float(batch.max() - batch.min()),
        )  # fmt: skip
    return _summed(found), f"{p.steps} noisy samples."


def _deeplift(model: UnitOf, batch: Tensor, p: AttributionParams, size: int) -> tuple[Tensor, str]:
    found = _captum().DeepLift(model).attribute(batch, baselines=torch.zeros_like(batch), target=0)
    return _summed(found), f"Against the mean colour. {_visible(model)}"


def _gradcam(model: UnitOf, batch: Tensor, p: AttributionParams, size: int) -> tuple[Tensor, str]:
    for name, layer in _layers(model, batch, p.layer):
        found = _if_used(_captum().LayerGradCam(model, layer).attribute, batch, target=0, relu_attributions=True)
        if found is not None:
            found = nn.functional.interpolate(found, size=batch.shape[2:], mode="bilinear", align_corners=False)
            return _summed(found), f"At layer {name}."
    raise VizError(_NO_LAYER, code="no-feature-map")


def _guided_gradcam(model: UnitOf, batch: Tensor, p: AttributionParams, size: int) -> tuple[Tensor, str]:
    for name, layer in _layers(model, batch, p.layer):
        wanting = batch.clone().requires_grad_()
        found = _if_used(
            _captum().GuidedGradCam(model, layer).attribute, wanting, target=0, interpolate_mode="bilinear"
        )
        if found is not None:
            return _summed(found), f"At layer {name}. {_visible(model)}"
    raise VizError(_NO_LAYER, code="no-feature-map")


_NO_LAYER = "Grad-CAM needs a layer with a feature map on which the unit depends; there is none."


def _if_used(attribute: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor | None:
    """Captum's result, or None if the unit does not depend on the layer (the other branch of a concatenation)."""
    try:
        found = attribute(*args, **kwargs)
    except RuntimeError as error:
        if "not to have been used" in str(error) or "not have been used" in str(error):
            return None
        raise
    return found if bool(found.any()) else None


def _visible(model: nn.Module) -> str:
    count = sum(isinstance(part, nn.ReLU) for part in model.modules())
    return (
        f"Captum sees {count} ReLU modules; functional ones get their plain gradient (the method projection sees all)."
    )


def _layers(model: UnitOf, batch: Tensor, wanted: str) -> list[tuple[str, nn.Module]]:
    """The named module; by default all leaf modules below the unit whose output has more than one cell, last first."""
    modules = dict(model.module.named_modules())
    if wanted and wanted not in modules:
        raise VizError(
            f"The network has no module {wanted!r} for Grad-CAM; leave layer empty for the last map.",
            code="no-such-module",
        )
    kept: dict[str, tuple[int, ...]] = {}
    looked = [wanted] if wanted else [name for name, part in modules.items() if not any(part.children())]
    handles = [modules[name].register_forward_hook(_note(kept, name)) for name in looked]  # on the private copy
    try:
        with torch.no_grad():
            model.forward(batch, stop=True)
    finally:
        for handle in handles:
            handle.remove()
    with_cells = [name for name, shape in kept.items() if len(shape) == 4 and (wanted or shape[2] * shape[3] > 1)]
    if wanted and not with_cells:
        gives = f"gives {list(kept[wanted])}" if wanted in kept else "does not run below the unit"
        raise VizError(
            f"Grad-CAM needs a layer that gives a feature map, [1 C h w], below the unit; {wanted} {gives}. "
            "Leave layer empty for the last map.",
            code="no-feature-map",
        )
    return [(name, modules[name]) for name in reversed(with_cells)]


def _note(kept: dict[str, tuple[int, ...]], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kept.pop(name, None)
            kept[name] = tuple(output.shape)

    return hook


_Run = Callable[[UnitOf, Tensor, AttributionParams, int], "tuple[Tensor, str]"]
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
    shows=(Output("attribution", "signed map", over_photo=True),),
)
