"""The unit on many masked copies of the photo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from vizapp.engine.memory.chunks import in_chunks
from vizapp.engine.occlusion.repeated_passes import RepeatedPasses
from vizapp.methods.attribution.request import Request

_AT_ONCE = 32  # masks
_TRIED = 2


class MaskedPasses:
    """Passes over the photo times masks: hidden pixels get the colour that an input of zeros stands for.

    `facts`: how they run. `make` gives some of `count` masks, by number: `[n H W]`, from 0 to 1.
    """

    def __init__(self, request: Request, make: Callable[[Sequence[int]], Tensor], count: int) -> None:
        self._request, self._make, self._count = request, make, count
        with torch.no_grad():
            some = self._masked(make(range(min(_TRIED, count))))
            self._passes = RepeatedPasses(request.network.module, some, request.site)
        self.facts = self._passes.facts

    def answers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The unit's activations `[n]` and the masks `[n H W]`, some at a time, in order."""
        tick = lambda share: self._request.job.report(0.1 + 0.9 * share)  # noqa: E731
        size = self._request.network.batch_limit(_AT_ONCE)
        with torch.no_grad():
            yield from in_chunks(range(self._count), self._answer, size, tick)

    def _answer(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        masks = self._make(numbers)
        seen = self._passes.activations(self._masked(masks))
        return seen.movedim(0, -1)[self._request.position].float().clone(), masks  # a view would keep all channels

    def _masked(self, masks: Tensor) -> Tensor:
        return self._request.batch * masks.to(self._request.batch)[:, None]
