"""The cost of LRP, for `attribution.py`.

LRP, one unit: against a plain backward pass, which is a forward pass with gradients and the gradient of one class score by the
pixels, by autograd on the same network (its weights without gradients). The bound, in passes of the multiply-adds of the
network (the plain backward pass takes 2): rules 0 and epsilon take a forward pass and a transposed one, 2 together, so 1.0;
gamma takes one more pass for the sums of absolute contributions, and a second transposed one where a layer's outputs of both
signs get relevance: 1.5 to 2.0 for a network in which all layers have it; "depth" is between.

LRP, many units: against zennit, one unit after the other, with the same rules (EpsilonGammaBox) and its canonizer.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package runs from the checkout
from vizapp.engine.memory.reuse import reused_memory
from vizapp.engine.memory.trim import give_back
from vizapp.engine.projection.relevance import relevance
from vizapp.engine.projection.relevance_rule import Relevance
from vizapp.engine.trace.sites import Unit, survey

LOW, HIGH = (-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median processor seconds of each, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def relevance_rows(name: str, side: int, units: int, repeats: int = 3) -> None:
    """LRP of one unit against autograd, and of many against zennit."""
    module = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    picture = torch.rand(1, 3, side, side) * 4 - 2
    with torch.no_grad():
        sites = survey(module, picture)
    layer = sites[-1].name

    def plain() -> Tensor:
        pixels = picture.clone().requires_grad_()
        return torch.autograd.grad(module(pixels)[0, 7], pixels)[0]

    def lrp(count: int, composite: str) -> Tensor:
        rule = Relevance(composite=composite, low=LOW, high=HIGH)  # type: ignore[arg-type]
        with reused_memory():  # as `vizapp.ask` runs it
            values = relevance(module, picture, [Unit(layer, k) for k in range(count)], sites, rule).values
        give_back()  # the next side has memory of its own
        return values

    rules = ("zero", "epsilon", "depth", "composite")
    works: dict[str, Callable[[], object]] = {"plain": plain}
    works |= {rule: (lambda rule=rule: lrp(1, rule)) for rule in rules}  # type: ignore[misc]
    found = interleaved(works, repeats)
    print(f"{name} {side} px: plain backward pass {1000 * found['plain']:.0f} ms; LRP of one unit, times that: "
          + ", ".join(f"{rule} {found[rule] / found['plain']:.2f}" for rule in rules))  # fmt: skip
    both = interleaved(
        {"ours": lambda: lrp(units, "composite"), "zennit": lambda: zennits(module, picture, name, 2)}, repeats
    )
    each = both["zennit"] / 2
    print(f"{name} {side} px: {units} units {both['ours']:.2f} s; zennit {each:.3f} s each, so {units * each:.2f} s: "
          f"{units * each / both['ours']:.1f} times ours")  # fmt: skip


def zennits(module: nn.Module, picture: Tensor, name: str, units: int) -> None:
    """zennit's maps of some units, one after the other, with the composite attached once."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonGammaBox
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    low, high = (torch.tensor(bound)[None, :, None, None] for bound in (LOW, HIGH))
    canonizer = ResNetCanonizer() if name.startswith("resnet") else VGGCanonizer()
    with Gradient(model=module, composite=EpsilonGammaBox(low=low, high=high, canonizers=[canonizer])) as attributor:
        for k in range(units):
            attributor(picture.clone().requires_grad_(), lambda y, k=k: torch.eye(y.shape[1])[[k]] * y)
