"""The target of a detector: one box, as a single score of how well the network finds it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.engine.detection.boxes import Detections, TargetBox, iou, match, target_of
from vizapp.engine.detection.designs import detector_of
from vizapp.engine.trace.interventions import intervene
from vizapp.errors import VizError, quoted
from vizapp.zoo.network import Network, class_index


def toward_box(network: Network, box: Any, class_: int | str | None, batch: Tensor) -> Network:
    """The network whose only score is how well its proposals match a box (D-RISE: Petsiuk et al. 2021), from 0 to 1.

    Its `signal` has as its only score the class logit of the proposal that matches best on the photo, at a fixed place.

    Args:
        network: A detector, which may be under interventions.
        box: (top, left, bottom, right) in pixels of the network's crop, or the number of a detection on the photo.
        class_: Its class; by default that of the detection, or of the detection that overlaps the box most.
        batch: The photo `[1 C H W]`. Detections and proposals are those of the network without interventions.

    Raises:
        VizError: it is no box, there is no such detection or class, or no proposal meets the box.
    """
    base = network.clean.module
    detector = detector_of(base, batch, len(network.categories))
    if detector is None:
        raise VizError(
            f"{network.name} returns no boxes for this photo; choose a detection network, or another target.",
            code="no-boxes",
        )
    (found,), (proposals,) = detector.found(batch), detector.proposals(batch)
    label = None if class_ is None else class_index(network, class_)
    number = None
    with suppress(TypeError):
        number = None if isinstance(box, bool) else operator.index(box)
    if number is None:
        chosen = torch.tensor(_sides(network, box), device=batch.device)
        target = _target(network, found, chosen, label, proposals.scores)
    else:
        if not 0 <= number < len(found.boxes):
            raise VizError(_count(network, found, number), code="no-such-detection")
        target = target_of(found, number, proposals)
        target = target if label is None else _one_hot(target.box, label, proposals.scores)
    if float(match(proposals, target)) == 0:
        raise VizError(
            f"No proposal of {network.name} for {network.class_name(target.label)!r} meets the box "
            f"{_place(target.box)}.{_nearest(network, found, target.box)}",
            code="no-such-box",
        )
    told = f"box {_place(target.box)} as {network.class_name(target.label)}"
    what = _bytes(target.box) + _bytes(target.scores) + str(target.label).encode()
    matched = _derived(network, lambda: detector.matcher(target), told, "match", what)
    told = f"class logit of {told}"
    signal = _derived(network, lambda: detector.signal(batch, target), told, "logit", what + _bytes(batch))
    return replace(matched, signal=signal, of_photo=number is not None)


def _sides(network: Network, box: Any) -> list[float]:
    """The sides of a box in pixels of the crop."""
    try:
        top, left, bottom, right = (float(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        top = left = bottom = right = math.nan
    if isinstance(box, (set, frozenset)) or not all(map(math.isfinite, (top, left, bottom, right))):
        raise VizError(
            f"The box of a target is {quoted(box)}; give (top, left, bottom, right) in pixels of the crop, or the number of a "
            "detection.",
            code="bad-target",
        )
    _, height, width = network.input_size
    if not (top < bottom and left < right and top < height and left < width and bottom > 0 and right > 0):
        raise VizError(
            f"The box {top:g},{left:g},{bottom:g},{right:g} is empty or outside the crop of {width} × {height} pixels; top and "
            "left come before bottom and right.",
            code="bad-target",
        )
    return [top, left, bottom, right]


def _target(network: Network, found: Detections, box: Tensor, label: int | None, scores: Tensor) -> TargetBox:
    """A given box, of a given class or that of the detection that overlaps it most."""
    if label is None:
        overlaps = iou(found.boxes, box)
        if not len(overlaps) or float(overlaps.max()) == 0:
            raise VizError(
                f"No detection on this photo overlaps the box {_place(box)}, so its class is not known; give the class too."
                f"{_nearest(network, found, box)}",
                code="no-such-box",
            )
        label = int(found.labels[overlaps.argmax()])
    return _one_hot(box, label, scores)


def _one_hot(box: Tensor, label: int, scores: Tensor) -> TargetBox:
    wanted = torch.zeros_like(scores[0]) if len(scores) else scores.new_zeros(label + 1)
    wanted[label] = 1
    return TargetBox(box, label, wanted)


def _count(network: Network, found: Detections, number: int) -> str:
    if not len(found.boxes):
        return f"{network.name} finds nothing on this photo; give a box as (top, left, bottom, right) and a class."
    return f"{network.name} returns detections 0 to {len(found.boxes) - 1} on this photo, not {quoted(number)}."


def _nearest(network: Network, found: Detections, box: Tensor) -> str:
    """The detection whose centre is nearest, for messages."""
    if not len(found.boxes):
        return " The network finds nothing on this photo."
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - (box[:2] + box[2:]) / 2
    number = int(centres.square().sum(1).argmin())
    name, score = network.class_name(int(found.labels[number])), float(found.scores[number])
    return f" The nearest detection is number {number}: {name} at {_place(found.boxes[number])} ({100 * score:.0f} %)."


def _place(box: Tensor) -> str:
    return ",".join(f"{side:.0f}" for side in box.tolist())


def _derived(network: Network, make: Callable[[], nn.Module], told: str, quantity: str, what: bytes) -> Network:
    """The network with a pass that ends in one score, which `what` tells apart from others.

    Interventions that the network is under go on in that pass.
    """
    aimed = make()
    changes = network.module.__dict__.get("_intervened", (None, ()))[1]
    unchanged = network.unchanged and _derived(network.unchanged, lambda: aimed, told, quantity, what)
    module = intervene(aimed, changes) if changes else aimed
    return network.toward(module, told, "identity", quantity, what, unchanged)


def _bytes(numbers: Tensor) -> bytes:
    return numbers.detach().double().cpu().numpy().tobytes()
