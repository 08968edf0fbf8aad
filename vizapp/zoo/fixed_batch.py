"""Whether a network that was exported at one batch size gives the same answers at others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vizapp.engine.tap import first_tensor
from vizapp.errors import VizError

_CLOSE = 1e-3  # relative to the largest answer: other batch sizes may add in another order


def check_batches(name: str, module: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Check that two pictures in one batch get the answers that each gets alone.

    Raises:
        VizError: they do not, or the network takes only the batch size that it was exported with.
    """
    module.eval()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, *input_size, generator=generator)
    dtype = next((t.dtype for t in module.state_dict().values() if t.is_floating_point()), torch.float32)
    try:
        with torch.no_grad():
            alone = [_answer(module(picture[None].to(dtype))) for picture in pictures]
            together = _answer(module(pictures.to(dtype)))
        wanted = torch.cat(alone)
        same = together.shape == wanted.shape and bool(
            (together - wanted).abs().max() <= _CLOSE * wanted.abs().max().clamp_min(1e-6)
        )
        reason = "" if same else "two pictures in one batch get other answers than each alone"
    except (RuntimeError, ValueError, TypeError, LookupError, NotImplementedError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if reason:
        raise VizError(
            f"{name} works only at the batch size that it was exported with ({reason}). Export it with a dynamic batch size.",
            code="fixed-batch-size",
        )


def _answer(output: object) -> Tensor:
    if isinstance(output, dict):
        output = list(output.values())
    found = first_tensor(output)
    if found is None:
        raise TypeError("it returns no tensor")
    return found.float()
