"""A conversion accepts operations that do the same at each place; it refuses unknown ones and others that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.errors import refuses
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.fully_convolutional.forward import dense_scores

SIDE = 20


@torch.library.custom_op("vizapp_tests::mean", mutates_args=())
def reversed_rows(x: Tensor, dims: list[int]) -> Tensor:
    """No mean."""
    return x.flip(2)


def weights(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64) - 0.4


class Between(nn.Module):
    """A convolution without padding, the operation, a convolution, a mean over all cells, a linear layer."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(F.conv2d(x, weights(6, 3, 3, 3), stride=2))
        return F.conv2d(x, weights(6, x.shape[1], 3, 3)).mean((2, 3)) @ weights(6, 4)


SAME_AT_EACH_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "rows without the first and last": lambda x: x[:, :, 1:-1],
    "some channels": lambda x: x[:, 1:4],
    "channels reversed": lambda x: x.flip(1),
    "channels repeated": lambda x: x.repeat(1, 2, 1, 1),
    "channels by index": lambda x: x.index_select(1, torch.tensor([3, 0, 4])),
    "channels by shuffle": lambda x: F.channel_shuffle(x, 3),
    "blend": lambda x: x.lerp(x * 2, 0.3),
    "prelu": lambda x: F.prelu(x, weights(6)),
    "channels normalized": F.normalize,
    "channels-last product": lambda x: (x.permute(0, 2, 3, 1) @ weights(6, 6)).permute(0, 3, 1, 2),
    "einsum": lambda x: torch.einsum("nchw,oc->nohw", x, weights(6, 6)),
    "torch.batch_norm": lambda x: torch.batch_norm(x, *(weights(6).abs() for _ in range(4)), False, 0.1, 1e-5, False),
}
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "custom operation": lambda x: torch.ops.vizapp_tests.mean(x, [2, 3]),
    "fixed rows": lambda x: x[:, :, 1:8],
    "last rows": lambda x: x[:, :, -8:],
    "narrow": lambda x: x.narrow(2, 1, 7),
    "rows by index": lambda x: x.index_select(2, torch.arange(1, 8)),
    "rows by take_along_dim": lambda x: torch.take_along_dim(x, torch.arange(1, 8).view(1, 1, -1, 1), 2),
    "first chunk of rows": lambda x: x.chunk(2, 2)[0],
    "rows reversed": lambda x: x.flip(2),
    "rows rolled": lambda x: x.roll(1, 2),
    "as_strided": lambda x: x.as_strided((1, 6, 8, 8), x.stride()),
    "transposed": lambda x: x.mT,
    "cummax": lambda x: x.cummax(2)[0],
    "softmax over rows": lambda x: x.softmax(2),
    "fft": lambda x: torch.fft.fft2(x).real,
    "a blend per place": lambda x: torch.lerp(x, weights(1, 1, *x.shape[2:]), 0.5),
    "mean of all": lambda x: x * x.mean(),
    "item": lambda x: x * x.mean().item(),
    "float": lambda x: x * float(x[0, 0, 0, 0]),
    "numpy": lambda x: x * float(x.numpy().mean()),
    "counted": lambda x: x * len(x[x > 0]),
    "counted by nonzero": lambda x: x * (x > 0).nonzero().shape[0],
}


@pytest.mark.parametrize("name", SAME_AT_EACH_PLACE)
def test_what_is_accepted_gives_the_scores_of_crops(name: str) -> None:
    module = Between(SAME_AT_EACH_PLACE[name])
    photo = weights(1, 3, 2 * SIDE, SIDE + 9)
    plan = plan_conversion(module, photo[:, :, :SIDE, :SIDE])
    found, step = dense_scores(module, plan, photo)[0], plan.stride[0]
    for row, column in ((0, 0), (found.shape[1] // 2, 1), (found.shape[1] - 1, found.shape[2] - 1)):
        crop = photo[:, :, row * step : row * step + SIDE, column * step : column * step + SIDE]
        torch.testing.assert_close(found[:, row, column], module(crop)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_the_place_is_refused(name: str) -> None:
    with refuses("not-convolutional"):
        plan_conversion(Between(REFUSED[name]), weights(1, 3, SIDE, SIDE))
