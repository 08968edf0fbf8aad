"""Sweeps of networks with operations that windows cannot follow, or whose names mislead, equal whole passes at every place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from tests.engine.occlusion.test_sweep import brute_force, grid, noise
from vizapp.engine.occlusion.sweep import Sweep

SIZE = (23, 26)
Operation = Callable[[Tensor], Tensor]


@torch.library.custom_op("vizapp_tests::silu", mutates_args=())
def reversed_rows(x: Tensor) -> Tensor:
    """No SiLU."""
    return x.flip(2).cumsum(3)


def weights(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64) - 0.4


class Between(nn.Module):
    """A strided convolution, the operation, a convolution, a head over all cells."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        x = self.operation(F.conv2d(x, weights(6, 3, 3, 3), stride=2, padding=1))
        x = F.conv2d(x, weights(6, x.shape[1], 3, 3), padding=1).relu() if x.ndim == 4 else x
        return x.flatten(1) @ weights(x[0].numel(), 3)


def through_numpy(x: Tensor) -> Tensor:
    return x * float(x.numpy()[..., :2].mean())


OPERATIONS: dict[str, Operation] = {
    "nothing": lambda x: x,
    "reflected": lambda x: F.pad(x, (2, 1, 3, 0), mode="reflect"),
    "replicated": lambda x: F.pad(x, (2, 1, 0, 3), mode="replicate"),
    "circular": lambda x: F.pad(x, (2, 2, 1, 1), mode="circular"),
    "blur pool": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), weights(6, 1, 3, 3), stride=2, groups=6),
    "padded with ones": lambda x: F.pad(x, (1, 1), value=1.0),
    "cropped by padding": lambda x: F.pad(x, (-1, 0, -2, 1)),
    "flipped": lambda x: x.flip(2),
    "rolled": lambda x: x.roll((2, -3), (2, 3)),
    "transposed": lambda x: x.mT,
    "rotated": lambda x: torch.rot90(x, 1, (2, 3)),
    "shuffled": lambda x: F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2),
    "unshuffled": lambda x: F.pixel_unshuffle(x[:, :, :12, :12], 2),
    "sliced rows": lambda x: x[:, :, 1:-2, ::2],
    "resized": lambda x: F.interpolate(x, scale_factor=0.7),
    "resized bilinear": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "antialiased": lambda x: F.interpolate(x, size=(7, 6), mode="bilinear", antialias=True),
    "transposed convolution": lambda x: F.conv_transpose2d(x, weights(6, 4, 3, 3), stride=2),
    "deformable": lambda x: deform_conv2d(
        x, torch.full((len(x), 18, *x.shape[2:]), 1.7, dtype=x.dtype), weights(6, 6, 3, 3), padding=1
    ),
    "custom operation": lambda x: torch.ops.vizapp_tests.silu(x),
    "custom overload": lambda x: torch.ops.vizapp_tests.silu.default(x),
    "aten convolution": lambda x: torch.ops.aten.conv2d.default(x, weights(6, 6, 3, 3), None, [1, 1], [1, 1]),
    "torch.convolution": lambda x: torch.convolution(
        x, weights(6, 6, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    ),
    "torch.batch_norm": lambda x: torch.batch_norm(
        F.conv2d(x, weights(6, 6, 1, 1)),
        weights(6),
        weights(6) * 3,
        weights(6) * 2,
        weights(6) + 2,
        False,
        0.1,
        1e-5,
        False,
    ),
    "aten batch_norm": lambda x: torch.ops.aten.batch_norm(
        F.conv2d(x, weights(6, 6, 1, 1)),
        weights(6),
        weights(6) * 3,
        weights(6) * 2,
        weights(6) + 2,
        False,
        0.1,
        1e-3,
        False,
    ),
    "numpy": through_numpy,
    "fft": lambda x: torch.fft.ifft2(torch.fft.fft2(x) * weights(*x.shape[2:])).real,
    "sorted": lambda x: x.sort(2)[0],
    "normalized rows": lambda x: F.normalize(x, dim=3),
    "cumulative": lambda x: x.cummax(2)[0],
    "channel attention": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "row attention": lambda x: x * x.mean(3, keepdim=True).sigmoid(),
    "attention": lambda x: F.scaled_dot_product_attention(*(x.flatten(2).transpose(1, 2),) * 3),
    "windows of attention": lambda x: F.scaled_dot_product_attention(
        *(x[:, :, :12, :12].reshape(len(x), 6, 3, 4, 3, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 6),) * 3
    ).reshape(len(x), -1),
    "channels last prelu": lambda x: F.prelu(x.permute(0, 2, 3, 1), weights(x.shape[2])).permute(0, 3, 1, 2),
    "prelu": lambda x: F.prelu(x, weights(6)),
    "mean over nothing": lambda x: x - x.mean((), keepdim=True),
    "bits": lambda x: (x.view(torch.int64) & -(2**40)).view(torch.float64),
    "bits as numbers": lambda x: x.view(torch.int64).double() * 1e-18,
    "halves of the bits": lambda x: x.view(torch.int32).double() * 1e-9,
    "item": lambda x: x * x.mean().item(),
    "counted": lambda x: x * len(x[x > 0]),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :12, :12], 2, return_indices=True), 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (5, 7)),
    "positions": lambda x: x * torch.arange(x.shape[3], dtype=x.dtype),
    "masked": lambda x: torch.where(x > 0, x, x.flip(3)),
    "gathered": lambda x: x.gather(2, x.argsort(2)),
    "row norm": lambda x: F.layer_norm(x, x.shape[3:]),
    "group norm": lambda x: F.group_norm(x, 2),
    "batched view": lambda x: torch.cat([part.cumsum(0) for part in x.unbind(0)]).view(len(x), -1, *x.shape[2:]),
    "in place": lambda x: x.add_(x.flip(2)),
    "floor": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_place_equals_a_whole_pass(name: str) -> None:
    module = Between(OPERATIONS[name])
    clean, patch, boxes = noise(1, 3, *SIZE), noise(1, 3, *SIZE, seed=1), grid(SIZE, (4, 5), 5)
    sweep = Sweep(module, module, clean, patch, boxes)
    assert "off by" not in sweep.facts["evaluation"], "a plan that is refused by its own trial hides a wrong rule"
    found = torch.cat([answers.scores for answers in sweep.batches()])
    expected = torch.stack([brute_force(module, clean, patch, box) for box in boxes])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["reflected", "replicated", "blur pool", "prelu", "nothing"])
def test_padding_of_any_mode_is_done_on_windows(name: str) -> None:
    module = Between(OPERATIONS[name])
    clean = noise(1, 3, 47, 41)
    sweep = Sweep(module, module, clean, torch.zeros_like(clean), grid((47, 41), (3, 4), 9))
    assert "Only what an occluder touches" in sweep.facts["evaluation"]
    assert "up to flatten" in sweep.facts["evaluation"]
