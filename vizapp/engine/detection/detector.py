"""A network that returns boxes: what it returns, all that it scores, and twins whose pass ends with a number about a box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.detection.boxes import Detections, Proposals, TargetBox, match, matches
from vizapp.engine.tap import run_as
from vizapp.engine.trace.forward_override import override_forward

TARGET = "target"  # the site that a pass toward a box ends with


class Detector(ABC):
    """A network that returns boxes. `module` is in evaluation mode and stays as it is."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def found(self, batch: Tensor) -> list[Detections]:
        """What the network returns for each picture of a batch `[N C H W]`."""
        with torch.no_grad():
            return self.detections(self.module(batch.clone()), batch)

    def proposals(self, batch: Tensor) -> list[Proposals]:
        """All that the network scores for each picture of a batch `[N C H W]`."""
        with torch.no_grad():
            found: list[Proposals] = self.ending(self.read)(batch.clone())
        return found

    def matcher(self, target: TargetBox) -> nn.Module:
        """A twin that returns the match of the proposal that matches a box best (`boxes.match`), `[N 1]`."""

        def matched(scored: Any, batch: Tensor) -> Tensor:
            return torch.stack([match(proposals, target) for proposals in self.read(scored, batch)])[:, None]

        return self.ending(matched)

    def signal(self, batch: Tensor, target: TargetBox) -> nn.Module:
        """A twin that returns the class logit `[N 1]` of the proposal that matches a box best on a picture `[1 C H W]`.

        The proposal (an anchor, a query, or a region of the features) is that one for every picture, so the pass is smooth.
        """
        return self.logit(batch, int(matches(self.proposals(batch)[0], target).argmax()), target)

    @abstractmethod
    def detections(self, output: Any, batch: Tensor) -> list[Detections]:
        """The boxes in what the network returned for a batch."""

    @abstractmethod
    def read(self, scored: Any, batch: Tensor) -> list[Proposals]:
        """All scored boxes in what `scored` gave for a batch."""

    @abstractmethod
    def logit(self, batch: Tensor, index: int, target: TargetBox) -> nn.Module:
        """A twin that returns the logit `[N 1]` of the box's class for the proposal of that index on a picture `[1 C H W]`."""

    def scored(self, run: Callable[[Tensor], Any], batch: Tensor) -> Any:
        """The pass up to where all boxes are scored, which `read` reads. `run`: the twin's pass."""
        return run(batch)

    def ending(self, finish: Callable[[Any, Tensor], Any], **changes: Any) -> nn.Module:
        """A twin that returns `finish(scored, batch)`, computed at the site `target`.

        Args:
            finish: Takes what `scored` gave, and the batch.
            **changes: Parts and attributes that the twin has in place of the module's own.
        """

        def forward(twin: nn.Module, run: Callable[[Tensor], Any], batch: Tensor) -> Any:
            return run_as(TARGET, finish, self.scored(run, batch), batch)

        def made(module: nn.Module) -> nn.Module:
            return override_forward(module, forward, made)

        return made(twin_of(self.module, **changes))


def twin_of(module: nn.Module, **changes: Any) -> nn.Module:
    """A module of the same class, parts and weights, but with some parts or attributes changed."""
    twin: nn.Module = object.__new__(type(module))
    parts = {name: part for name, part in changes.items() if isinstance(part, nn.Module)}
    twin.__dict__.update(module.__dict__)
    twin.__dict__.update({name: value for name, value in changes.items() if name not in parts})
    twin.__dict__["_modules"] = {**module._modules, **parts}
    return twin


def returned_boxes(output: Any) -> list[Detections]:
    """The boxes in a list of dicts with `boxes` (left, top, right, bottom), `labels` and `scores`, one per picture."""
    return [_returned(one) for one in output]


def _returned(given: Mapping[str, Tensor]) -> Detections:
    order = given["scores"].argsort(descending=True, stable=True)
    masks, points = given.get("masks"), given.get("keypoints")
    return Detections(
        given["boxes"][order][:, [1, 0, 3, 2]].float(),
        given["labels"][order],
        given["scores"][order].float(),
        None if masks is None else masks[order].reshape(-1, *masks.shape[-2:]),
        None if points is None else points[order][..., [1, 0, 2]],
    )
