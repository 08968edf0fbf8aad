"""The range of numbers that pixels between black and white reach, through operations that move, scale and shift them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import IDENTITIES, LINEAR
from vizapp.engine.projection.affine import affine
from vizapp.engine.projection.rules import Rule, Shapes
from vizapp.engine.projection.windowed_signal import Signal, added, scale
from vizapp.engine.trace.recording import Call, Step, map_leaves

_MIXING = frozenset(
    {"add", "sub", "rsub", "mean", "sum", "nansum", "trace", "cumsum", "diff", "interpolate", "upsample"}
)
_MOVES = frozenset(
    name for name in LINEAR - _MIXING if "pool" not in name and "add" not in name and not name.startswith("fft")
)


@dataclass(frozen=True)
class PixelRange:
    """The range of a value of which each number comes from one number of the picture: `middle` plus or minus `half`.

    `half` is negative where white is less than black. `steps` made the value from the picture.
    """

    middle: Tensor
    half: Tensor
    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, value: int, call: Call, low: tuple[float, ...], high: tuple[float, ...]) -> PixelRange | None:
        """The range of a value that the call reads; None if it is computed from several numbers of the picture."""
        if not low:
            return None
        if value == 0:
            x = call.inputs[call.step.reads.index(0)]
            black, white = (x.new_tensor(bound).view(1, -1, 1, 1) for bound in (low, high))
            return cls((black + white) / 2, (white - black) / 2)
        maker = call.recording.makers.get(value)
        return None if maker is None else maker.ctx.get("pixels")

    @classmethod
    def after(cls, call: Call, low: tuple[float, ...], high: tuple[float, ...]) -> PixelRange | None:
        """The range of what a call computes."""
        ranges = [cls.of(value, call, low, high) for value in call.step.reads]
        given = [one for one in ranges if one is not None]
        if not given or len(given) < len(ranges):
            return None
        if call.operation not in _MOVES | IDENTITIES and affine(call) is None:
            return None
        shapes = [tensor.shape for tensor in call.inputs]

        def bound(sign: int) -> Tensor:
            numbers = {
                id(tensor): (one.middle + sign * one.half).expand(shape).clone()
                for tensor, one, shape in zip(call.inputs, given, shapes, strict=True)
            }
            args, kwargs = (
                map_leaves(part, lambda leaf: numbers.get(id(leaf), leaf)) for part in (call.args, call.kwargs)
            )
            result = call.function(*args, **kwargs)
            return next(iter(tensors_in(args[0] if call.operation == "setitem" else result)))

        black, white = bound(-1), bound(1)
        steps = dict.fromkeys(step for one in given for step in one.steps)
        return cls((black + white) / 2, (white - black) / 2, (*steps, call.step))

    def enter(self, call: Call) -> int:
        """The number of a value of the picture's shape to which the call's signal now goes: relevance over `half`."""
        recording = call.recording
        recording.shapes.append(recording.shapes[0])
        recording.dtypes.append(recording.dtypes[0])
        recording.sloped.append(True)
        call.step.inputs, call.step.dtypes = (len(recording.shapes) - 1,), (recording.dtypes[0],)
        return len(recording.shapes) - 1

    def to_picture(self, relevance: Signal, read: int, rule: Rule, shapes: Shapes) -> Signal | None:
        """Relevance at the value `read`, over its `half`, moved to the pixels that it belongs to."""
        signals = {read: scale(relevance, torch.where(self.half == 0, 1, self.half).reciprocal())}
        for step in reversed(self.steps):
            above = [signals.pop(output, None) for output in step.outputs]
            if all(signal is None for signal in above):
                continue
            below, _ = Rule.backward(rule, step, above, shapes)
            for value, signal in zip(step.inputs, below, strict=True):
                if signal is not None:
                    signals[value] = added(signals[value], signal) if value in signals else signal
        return signals.get(0)
