"""Maps from signals that go back to the pixels: those of Captum, and the projections by the rules of two papers."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from vizapp.engine.projection.project import project
from vizapp.engine.projection.rescale import RescaleTap
from vizapp.engine.projection.rules import RuleName, rule_named
from vizapp.engine.tap import check_computed, check_differentiable
from vizapp.errors import VizError
from vizapp.methods.attribution.kind import Kind
from vizapp.methods.attribution.request import Request, UnitOf, activation
from vizapp.methods.projection import CAUTION, silence, what_was_reversed
from vizapp.settings import settings

_TRUSTED = 0.01  # largest gap of completeness
_STEPS = 32  # if the user gives no number; of integrated gradients, in each part of the path
_PARTS = 8


@functools.cache
def _captum() -> ModuleType:
    # Captum imports matplotlib, which would otherwise write to the home folder or warn where it cannot.
    os.environ.setdefault("MPLCONFIGDIR", str(settings().cache / "matplotlib"))
    import captum.attr  # takes seconds, because it imports matplotlib

    return captum.attr


class IntegratedGradients(Kind):
    """The gradient, averaged along the straight path from the baseline, times the way."""

    key, title = "integrated_gradients", "Integrated gradients"
    source = "Sundararajan et al. 2017, section 3"
    caution = (
        "It says what changes on the way from a plain colour to the photo; another colour gives another map, and what has "
        "that colour gets nothing (Kindermans 2017)."
    )
    signed = by_captum = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """Captum's integral along the path from the baseline. By default, where it is not exact enough, it is the sum over
        parts of the path: the part with the largest gap of completeness is halved until the whole has a small one.
        """
        model, chosen = _differentiable(request), request.params.steps
        size = min(size, model.at_once(request.batch)) if size > 1 else 1
        values = {0.0: model.value(0 * request.batch), 1.0: request.value}

        def integral(start: float, end: float) -> Tensor:
            found: Tensor = _captum().IntegratedGradients(model).attribute(
                end * request.batch, start * request.batch, target=0, n_steps=chosen or _STEPS, internal_batch_size=size
            )  # fmt: skip
            return found.detach()

        def gap(part: tuple[float, float]) -> float:
            return abs(float(parts[part].double().sum()) - (values[part[1]] - values[part[0]]))

        parts = {(0.0, 1.0): integral(0, 1)}
        while True:
            found = torch.stack(list(parts.values())).sum(0)
            told = _completeness(request, model, found, "Take more steps.")
            if chosen or "caution" not in told or len(parts) == _PARTS:
                break
            request.job.report(0.1 + 0.9 * len(parts) / _PARTS)
            start, end = worst = max(parts, key=gap)
            middle = (start + end) / 2
            values[middle] = model.value(middle * request.batch)
            del parts[worst]
            parts |= {ends: integral(*ends) for ends in ((start, middle), (middle, end))}
        note = f"{len(parts) * (chosen or _STEPS)} steps from {request.network.preprocessing.zero_colour}"
        note += f", in {len(parts)} parts of the path" * (len(parts) > 1)
        return found[0].sum(0), {"note": f"{note}.", **told}


class SmoothGrad(Kind):
    """The gradient, averaged over noisy copies of the photo."""

    key, title = "smoothgrad", "SmoothGrad"
    source = "Smilkov et al. 2017, section 3"
    caution = (
        "It shows how the score would change with a pixel, not what the pixel contributes (Smilkov 2017, section 2), and its "
        "look depends on the noise."
    )
    signed = by_captum = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """Captum's mean of the gradients, with their signs."""
        model, batch, p = _differentiable(request), request.batch, request.params
        samples = p.steps or _STEPS
        size = min(size, model.at_once(batch)) if size > 1 else 1
        with torch.random.fork_rng(devices=[batch.device] if batch.device.type == "cuda" else []):
            torch.manual_seed(p.seed)
            found = _captum().NoiseTunnel(_captum().Saliency(model)).attribute(
                batch, nt_type="smoothgrad", nt_samples=samples, nt_samples_batch_size=size, target=0, abs=False,
                stdevs=p.noise * float(batch.max() - batch.min()),
            )  # fmt: skip
        return found[0].sum(0), {"note": f"{samples} noisy samples."}


class DeepLift(Kind):
    """The rescale rule: differences from the activations on a baseline, sent back."""

    key, title = "deeplift", "DeepLIFT"
    source = "Shrikumar et al. 2017, section 3.5"
    caution = (
        "It compares with one plain colour, and two networks that compute the same may get different maps (Sundararajan 2017, "
        "section 2.2)."
    )
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The contributions `[H W]`, from one pass over the photo and the baseline."""
        model, batch = request.model(), request.batch
        if model.at_once(batch) == 1:
            raise VizError(
                "DeepLIFT passes the photo and its baseline through the network together, and this network takes, or answers, "
                "one input at a time; choose another kind.",
                code="one-at-a-time",
            )
        pair = torch.cat([batch, torch.zeros_like(batch)]).requires_grad_()
        with RescaleTap(model.module, {request.site.name}) as tap:
            model.module(pair.clone())  # the network may write into its input
        check_computed([request.site.name], tap.kept)
        check_differentiable(value := activation(tap.kept, request.site, request.unit)[0])
        found = torch.autograd.grad(value, pair)[0][:1] * batch
        advice = "DeepLIFT has no rule for products of activations, softmax and largest numbers of whole maps."
        facts = {"note": f"Against {request.network.preprocessing.zero_colour}."}
        return found[0].sum(0), facts | _completeness(request, model, found, advice)


class Deconvnet(Kind):
    """The projection of the unit to the pixels: a rectifier passes what is positive."""

    key: ClassVar[RuleName] = "deconvnet"
    title = "Deconvnet"
    source = "Zeiler & Fergus 2013, section 2.1"
    caution = CAUTION
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The projection `[H W]`."""
        return projected(request, self.key)


class Guided(Deconvnet):
    """The same; a rectifier passes what is positive where it was active itself."""

    key, title = "guided", "Guided"
    source = "Springenberg et al. 2014, section 3.4"


def projected(request: Request, rule: RuleName) -> tuple[Tensor, dict[str, str]]:
    """The projection of the unit by a rule, from a signal of 1, summed over colours `[H W]`, and what was reversed how."""
    network = request.network
    (down,) = project(network.module, request.batch, [request.unit], network.sites, rule_named(rule), "one")
    facts = {name: fact for name, fact in what_was_reversed(down.certificate, rule).items() if name != "caution"}
    return down.values[0].sum(0), facts | ({"silent": silence(down.ends)} if down.ends else {})


def _differentiable(request: Request) -> UnitOf:
    """The network up to the unit.

    Raises:
        VizError: autograd does not follow the unit from the pixels.
    """
    model = request.model()
    check_differentiable(model(request.batch.clone().requires_grad_()))
    return model


def _completeness(request: Request, model: UnitOf, found: Tensor, advice: str) -> dict[str, str]:
    """Whether the attributions add up to the rise of the unit above the baseline, as both methods promise."""
    baseline = model.value(torch.zeros_like(request.batch))
    total, rise = float(found.detach().double().sum()), request.value - baseline
    gap = abs(total - rise)
    share = 0.0 if gap <= 1e-5 * (abs(request.value) + abs(baseline)) else gap / abs(rise) if rise else float("inf")
    told = f"The attributions add up to {total:.4g}; the unit rises by {rise:.4g} from the baseline"
    facts = {"completeness": f"{told}: a gap of {100 * share:.2f} %." if share < float("inf") else f"{told}."}
    if share > _TRUSTED:
        facts["caution"] = (
            f"Do not trust these numbers: they should add up to {rise:.4g}, but they add up to {total:.4g}. {advice}"
        )
    return facts
