"""No cell depends on pixels outside of its field: over single operations, compositions and operations that nobody knows.

Gradients show what differentiable operations read. Changed pixels show what gradients do not: values that are rounded,
compared, counted, read as bits or read out of torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import deform_conv2d, nms, roi_align

from vizapp.engine.receptive_field.field import ReceptiveFieldTrace, receptive_fields
from vizapp.engine.receptive_field.interval import ReceptiveField
from vizapp.engine.tap import Tap
from vizapp.engine.trace.sites import channels_first, survey

Operation = Callable[[Tensor], Tensor]
OBLONG, CUBE = (2, 4, 9, 6), (2, 6, 6, 6)  # in the second, no axis can be told from another by its extent


def weights(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64) + 0.1


@torch.library.custom_op("vizapp_tests::relu", mutates_args=())
def reversed_sum(x: Tensor) -> Tensor:
    """No ReLU."""
    return x.flip(2).cumsum(3)


reversed_sum.register_autograd(
    lambda ctx, grad: grad.flip(3).cumsum(3).flip(3).flip(2), setup_context=lambda ctx, inputs, output: None
)


class Applied(nn.Module):
    """A 3 × 3 convolution and the operation."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(F.conv2d(x, weights(x.shape[1], x.shape[1], 3, 3), padding=1))


def field_of(operation: Operation, picture: Tensor) -> ReceptiveField:
    module, batch = Applied(operation), picture.clone()
    with torch.no_grad(), ReceptiveFieldTrace(module, batch) as trace:
        output = module(batch)
    field = trace.of(output)
    assert field is not None
    return field


def pictures(shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    """Of several scales, so that clamps and sorts come out differently."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for scale in (0.1, 1.0, 0.5)[:count]]


def probes(shape: torch.Size) -> list[tuple[int, ...]]:
    """The first, the last, a middle and some other elements of a result, as indices."""
    generator = np.random.default_rng(0)
    some = [tuple(int(generator.integers(extent)) for extent in shape) for _ in range(3)]
    return [
        tuple(0 for _ in shape),
        tuple(extent - 1 for extent in shape),
        tuple(extent // 2 for extent in shape),
        *some,
    ]


def supports(operation: Operation, shape: tuple[int, ...]) -> dict[tuple[int, ...], tuple[int, int, int, int] | None]:
    """(first row, row after the last, first column, column after the last) of gradients, over several pictures."""
    reached: dict[tuple[int, ...], Tensor] = {}
    for picture in pictures(shape):
        leaf = picture.clone().requires_grad_()
        output = Applied(operation)(leaf)
        for index in probes(output.shape):
            (gradient,) = torch.autograd.grad(output[index], leaf, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(leaf) if gradient is None else gradient.abs()
            cells = (gradient > 1e-12 * gradient.max()).any(0).any(0)
            reached[index] = cells | reached.get(index, cells)
    return {index: hull(cells) for index, cells in reached.items()}


def hull(cells: Tensor) -> tuple[int, int, int, int] | None:
    if not cells.any():
        return None
    rows, columns = cells.any(1).nonzero().flatten().tolist(), cells.any(0).nonzero().flatten().tolist()
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def check(operation: Operation, shape: tuple[int, ...], exact: bool) -> None:
    field = field_of(operation, pictures(shape, 1)[0])
    for index, support in supports(operation, shape).items():
        found: list[int] = []
        for span in (field.rows, field.columns):
            at = 0 if span.axis is None else index[span.axis]
            found += [int(span.low[at]), int(span.high[at])]
            first, last = span.unclipped(at)
            assert found[-2] >= found[-1] or (first <= found[-2] and found[-1] <= last), "a box is not inside its field"
        top, bottom, left, right = found
        if support is None:
            assert not exact or top >= bottom or left >= right, (index, found)
        elif exact:
            assert tuple(found) == support, index
        else:
            assert top <= support[0] and support[1] <= bottom, (index, found, support)  # noqa: PT018
            assert left <= support[2] and support[3] <= right, (index, found, support)  # noqa: PT018


def interpolated(**options: object) -> Operation:
    return lambda x: F.interpolate(x, **options)


def padded(mode: str, *sides: int) -> Operation:
    return lambda x: F.pad(x, sides, mode=mode)


def written(change: Callable[[Tensor, Tensor], object], zeros: bool = True) -> Operation:
    """What is in a tensor after something was written into a part of it."""

    def run(x: Tensor) -> Tensor:
        room = torch.zeros_like(x) if zeros else x.clone()
        change(room, x)
        return room * 2

    return run


def index_of(x: Tensor, axis: int) -> Tensor:
    return torch.arange(x.shape[axis] - 1, -1, -1)


# Fields that equal the extent of gradients.
EXACT: dict[str, Operation] = {
    "relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu in place": lambda x: F.silu(x, inplace=True),
    "exp": torch.exp,
    "erf": torch.erf,
    "a power": lambda x: x**2,
    "a division": lambda x: 1 / (x.abs() + 1),
    "where": lambda x: torch.where(x > 9, 0, x),
    "to": lambda x: x.to(torch.float64) * 2,
    "type_as": lambda x: x.type_as(x.mean()),
    "batch norm": lambda x: F.batch_norm(x, weights(x.shape[1]), weights(x.shape[1])),
    "torch.batch_norm": lambda x: torch.batch_norm(
        x, *(weights(x.shape[1]) for _ in range(4)), False, 0.1, 1e-5, False
    ),
    "local response norm": lambda x: F.local_response_norm(x, 3),
    "normalize channels": F.normalize,
    "softmax of channels": lambda x: x.softmax(1),
    "conv 1x1": lambda x: F.conv2d(x, weights(4, x.shape[1], 1, 1)),
    "conv 3x2 stride": lambda x: F.conv2d(x, weights(4, x.shape[1], 3, 2), stride=(2, 1), padding=(2, 0)),
    "conv dilated": lambda x: F.conv2d(x, weights(4, x.shape[1], 2, 3), dilation=(3, 2), padding=(1, 2)),
    "conv same even": lambda x: F.conv2d(x, weights(4, x.shape[1], 4, 2), padding="same", dilation=(1, 2)),
    "conv grouped": lambda x: F.conv2d(x, weights(x.shape[1], 1, 3, 3), groups=x.shape[1]),
    "conv by keywords": lambda x: F.conv2d(weight=weights(4, x.shape[1], 3, 3), input=x, stride=2),
    "torch.convolution": lambda x: torch.convolution(
        x, weights(4, x.shape[1], 3, 3), None, [2, 1], [1, 1], [1, 1], False, [0, 0], 1
    ),
    "aten conv": lambda x: torch.ops.aten.conv2d.default(x, weights(4, x.shape[1], 3, 3), None, [1, 2], [1, 0]),
    "aten avg pool": lambda x: torch.ops.aten.avg_pool2d(x, [3, 2], [1, 1]),
    "aten relu": torch.ops.aten.leaky_relu.default,
    "aten add": lambda x: torch.ops.aten.add.Tensor(x, x),
    "transposed conv": lambda x: F.conv_transpose2d(x, weights(x.shape[1], 3, 3, 2), stride=(2, 3), padding=(1, 0)),
    "transposed conv dilated": lambda x: F.conv_transpose2d(x, weights(x.shape[1], 3, 2, 3), dilation=2, padding=1),
    "transposed convolution": lambda x: torch.convolution(
        x, weights(x.shape[1], 4, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1
    ),
    "conv1d along rows": lambda x: F.conv1d(x.mean(3), weights(4, x.shape[1], 3), padding=1),
    "conv3d with a spatial kernel": lambda x: F.conv3d(x[:, None], weights(2, 1, 1, 3, 2), padding=(0, 1, 1)),
    "avg pool": lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0)),
    "avg pool ceil": lambda x: F.avg_pool2d(x, 3, 2, 1, True),
    "avg_pool3d": lambda x: F.avg_pool3d(x[:, None], 3, 1, 1)[:, 0],
    "avg_pool1d": lambda x: F.avg_pool1d(x.mean(3), 3, 2),
    "lp pool": lambda x: F.lp_pool2d(x, 2, 3, 2),
    "unbatched avg pool": lambda x: F.avg_pool2d(x[0], 3, 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "adaptive larger": lambda x: F.adaptive_avg_pool2d(x, (11, 8)),
    "nearest": interpolated(size=(5, 11)),
    "nearest scale": interpolated(scale_factor=0.7),
    "nearest-exact": interpolated(scale_factor=(1.7, 0.45), mode="nearest-exact"),
    "bilinear": interpolated(size=(7, 11), mode="bilinear"),
    "bilinear scale .7": interpolated(scale_factor=0.7, mode="bilinear"),
    "bilinear scale .3": interpolated(scale_factor=0.3, mode="bilinear"),
    "bilinear scale recomputed": interpolated(scale_factor=0.7, mode="bilinear", recompute_scale_factor=True),
    "bilinear aligned": interpolated(size=(5, 4), mode="bilinear", align_corners=True),
    "bilinear antialias": interpolated(size=(4, 3), mode="bilinear", antialias=True),
    "bicubic": interpolated(scale_factor=1.5, mode="bicubic"),
    "bicubic antialias": interpolated(size=(4, 4), mode="bicubic", antialias=True),
    "area": interpolated(size=(4, 5), mode="area"),
    "linear": lambda x: F.interpolate(x.mean(3), size=5, mode="linear"),
    "trilinear": lambda x: F.interpolate(x[:, None], size=(3, 5, 4), mode="trilinear"),
    "pad": padded("constant", 1, 2, 0, 3),
    "pad with ones": lambda x: F.pad(x, (1, 1, 2, 0), value=1.0),
    "crop by pad": padded("constant", -1, 0, 0, -2),
    "reflect": padded("reflect", 2, 1, 3, 0),
    "replicate": padded("replicate", 2, 1, 0, 3),
    "circular": padded("circular", 2, 1, 3, 0),
    "blur behind reflect": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 2),
    "conv circular": lambda x: F.avg_pool2d(F.pad(x, (0, 0, 1, 1), mode="circular"), (1, 1)),
    "flip": lambda x: x.flip(2),
    "flip both": lambda x: torch.flip(x, (2, 3)),
    "fliplr": lambda x: torch.fliplr(x[0]),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "rot270": lambda x: torch.rot90(x, 3, (2, 3)),
    "mT": lambda x: x.mT,
    "T": lambda x: x[0, 0].T,
    "swapdims": lambda x: x.swapdims(2, 3),
    "moveaxis": lambda x: x.moveaxis(2, 3),
    "movedim": lambda x: x.movedim((1, 2), (3, 1)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "permute list": lambda x: torch.permute(x, [3, 0, 2, 1]),
    "transpose": lambda x: x.transpose(1, 2).contiguous(),
    "as_strided": lambda x: x.contiguous().as_strided((2, 3, 4), (x.stride(0), x.shape[3], 1)),
    "shuffle": lambda x: F.channel_shuffle(x, 2),
    "channels by hand": lambda x: x.view(2, 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "pixel shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 2, 1, 1), 2),
    "slices": lambda x: x[:, 1:, 2:, :-1],
    "strided slices": lambda x: x[..., ::2, 1::3],
    "one row": lambda x: x[:, :, 3],
    "one column": lambda x: x[..., -1],
    "ellipsis": lambda x: x[..., None, 1:],
    "a list": lambda x: x[:, :, [4, 0, 2]],
    "select": lambda x: x.select(2, 3),
    "narrow": lambda x: x.narrow(3, 1, 3),
    "index_select": lambda x: x.index_select(2, index_of(x, 2)),
    "take_along_dim": lambda x: torch.take_along_dim(x, index_of(x, 2).view(1, 1, -1, 1), 2),
    "chunk": lambda x: x.chunk(3, 2)[1],
    "unbind": lambda x: x.unbind(2)[3],
    "split": lambda x: torch.split(x, [2, x.shape[2] - 2], 2)[1],
    "tensor_split": lambda x: x.tensor_split(3, 3)[2],
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "fftshift": lambda x: torch.fft.fftshift(x, 2),
    "flatten channels": lambda x: x[:, :, None].flatten(1, 2),
    "unsqueeze": lambda x: x.unsqueeze(2).squeeze(2),
    "expand": lambda x: x[:, None].expand(2, 3, *x.shape[1:]),
    "unfold rows": lambda x: x.unfold(3, 1, 2)[..., 0],
    "cat rows": lambda x: torch.cat([x, x.flip(2)], 2),
    "cat channels": lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1).sum(1),
    "stack": lambda x: torch.stack([x, x], 2)[:, :, 1],
    "hstack": lambda x: torch.hstack([x, x]),
    "slice by slice": lambda x: torch.cat([x[:, :, i : i + 1] for i in range(3)], 2),
    "mean over rows": lambda x: x.mean(2),
    "mean kept": lambda x: x.mean(2, keepdim=True),
    "sum by axis": lambda x: x.sum(axis=3),
    "norm": lambda x: x.norm(2, 1),
    "norm over rows": lambda x: x.norm(1, 2),
    "logsumexp": lambda x: x.logsumexp(3),
    "std": lambda x: x.std(2),
    "var_mean": lambda x: torch.var_mean(x, 2)[0],
    "row gate": lambda x: x * x.mean(2, keepdim=True).sigmoid(),
    "softmax rows": lambda x: x.softmax(2),
    "softmin": lambda x: F.softmin(x, 3),
    "normalize columns": lambda x: F.normalize(x, dim=-1),
    "normalize": lambda x: F.normalize(x, dim=2),
    "layer norm of rows": lambda x: F.layer_norm(x, x.shape[3:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[3:]),
    "channels-last norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)),
    "linear on channels": lambda x: F.linear(x.permute(0, 2, 3, 1), weights(5, x.shape[1])),
    "linear on columns": lambda x: F.linear(x, weights(5, x.shape[3])),
    "matmul on channels": lambda x: x.permute(0, 2, 3, 1) @ weights(x.shape[1], 5),
    "matmul on rows": lambda x: weights(5, x.shape[2]) @ x,
    "einsum on channels": lambda x: torch.einsum("nchw,oc->nohw", x, weights(5, x.shape[1])),
    "einsum on rows": lambda x: torch.einsum("nchw,oh->now", x, weights(5, x.shape[2])),
    "einsum list": lambda x: torch.einsum("ab, nbij -> naij", [weights(2, x.shape[1]), x]),
    "copied": written(lambda room, x: room.copy_(x)),
    "set rows": written(
        lambda room, x: room.__setitem__(
            (slice(None), slice(None), slice(2, 4)), x[:, :, 5:7] if x.shape[2] > 6 else x[:, :, 4:6]
        )
    ),
    "set all": written(lambda room, x: room.__setitem__(slice(None), x.flip(3))),
    "set a number": written(lambda room, x: room.__setitem__((..., 0), 7), zeros=False),
    "written through a view": written(lambda room, x: room[:, 0:].copy_(x)),
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :, :2], 2, 3, 5),
    "index_copy": lambda x: x.index_copy(2, torch.tensor([1, 0]), x[:, :, 3:5]),
    "ffted channels": lambda x: torch.fft.fft(x, dim=1).real,
    "ffted rows": lambda x: torch.fft.fft(x, dim=2).abs(),
    "ffted": lambda x: torch.fft.rfft2(x).real,
    "cumulative last": lambda x: x.cumsum(2)[:, :, -1:],
    "glu": lambda x: F.glu(x, 1),
    "masked": lambda x: x.masked_fill(torch.zeros(x.shape, dtype=torch.bool), 0.0),
}

# Fields that hold all gradients, and may hold more.
SOUND: dict[str, Operation] = {
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool dilated": lambda x: F.max_pool2d(x, 2, 1, 1, dilation=2, ceil_mode=True),
    "max pool and indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool3d": lambda x: F.max_pool3d(x[:, None], 3, 1, 1)[:, 0],
    "triu": torch.triu,
    "max_pool1d": lambda x: F.max_pool1d(x.mean(2), 3, 2),
    "aten max pool": lambda x: torch.ops.aten.max_pool2d(x, [3, 3], [2, 2], [1, 1]),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "fractional": lambda x: F.fractional_max_pool2d(
        x, 2, output_size=(3, 3), _random_samples=weights(2, x.shape[1], 2)
    ),
    "unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "deform": lambda x: deform_conv2d(
        x, torch.full((2, 18, *x.shape[2:]), 1.7, dtype=x.dtype), weights(3, x.shape[1], 3, 3), padding=1
    ),
    "deform strided": lambda x: deform_conv2d(
        x,
        torch.full((2, 2, (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2), 1.7, dtype=x.dtype),
        weights(3, x.shape[1], 1, 1),
        stride=2,
    ),
    "roi_align": lambda x: roi_align(x, [torch.tensor([[1.0, 1, 4, 4]], dtype=x.dtype)] * 2, 3),
    "grid_sample": lambda x: F.grid_sample(x, torch.rand(2, *x.shape[2:], 2, dtype=x.dtype), align_corners=False),
    "custom operation": lambda x: torch.ops.vizapp_tests.relu(x),
    "custom callable": lambda x: reversed_sum(x),
    "numpy": lambda x: x * float(x.detach().numpy()[..., :2].mean()) + F.pad(x[..., 1:], (0, 1)),
    "cumsum": lambda x: x.cumsum(2),
    "cumprod": lambda x: x.cumprod(3),
    "cummax": lambda x: x.cummax(-1)[0],
    "cummin": lambda x: x.cummin(2)[0],
    "logcumsumexp": lambda x: x.logcumsumexp(2),
    "sort": lambda x: x.sort(2)[0],
    "sort default": lambda x: x.sort()[0],
    "topk": lambda x: x.topk(3)[0],
    "topk rows": lambda x: x.topk(x.shape[2], 2)[0],
    "msort": torch.msort,
    "kthvalue": lambda x: x.kthvalue(2, 3)[0],
    "median": lambda x: x.median(2)[0],
    "max": lambda x: x.max(3)[0],
    "max of two": lambda x: torch.max(x, x.flip(2)),
    "amax": lambda x: x.amax((2, 3), keepdim=True) + x,
    "quantile": lambda x: x.quantile(0.3, 2),
    "renorm": lambda x: x.renorm(2, 2, 0.5),
    "fft2": lambda x: torch.fft.fft2(x).real,
    "fft2 and back": lambda x: torch.fft.ifft2(torch.fft.fft2(x) * weights(*x.shape[2:])).real,
    "fftn": lambda x: torch.fft.fftn(x).imag,
    "view_as_real": lambda x: torch.view_as_real(torch.fft.rfft(x, dim=1)),
    "hfft": lambda x: torch.fft.hfft(x),
    "stft": lambda x: torch.stft(x[0, 0], 4, 1, window=weights(4), return_complex=True).abs(),
    "scatter": lambda x: torch.zeros_like(x).scatter(2, index_of(x, 2).view(1, 1, -1, 1).expand_as(x), x),
    "scatter_add": lambda x: x.scatter_add(2, torch.zeros(x.shape, dtype=torch.long), x),
    "gather": lambda x: x.gather(3, index_of(x, 3).expand(x.shape)),
    "gather what it sorted": lambda x: x.gather(2, x.argsort(2)),
    "index_add": lambda x: x.index_add(2, torch.tensor([0, 0]), x[:, :, 2:4]),
    "put": lambda x: x.index_put((torch.tensor([0]),), x[1:2].flip(2), accumulate=True),
    "take": lambda x: x.take(torch.arange(12).view(3, 4)),
    "tensordot": lambda x: torch.tensordot(x, weights(x.shape[2], 3), dims=([2], [0])),
    "inner": lambda x: torch.inner(x, weights(3, x.shape[3])),
    "matmul of two": lambda x: x @ x.mT,
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x.flip(2)),
    "einsum of two": lambda x: torch.einsum("nchw,ncij->nhij", x, x),
    "einsum with dots": lambda x: torch.einsum("...hw,oh->...ow", x, weights(5, x.shape[2])),
    "einsum trace": lambda x: torch.einsum("nchh->nch", x[..., :6, :6]),
    "bilinear of two": lambda x: F.bilinear(x, x, weights(2, x.shape[3], x.shape[3])),
    "weights from the picture": lambda x: F.conv2d(x, x[:1, :, :3, :3]),
    "weights alone": lambda x: F.conv2d(torch.ones_like(x), x[:1, :, :2, :2]),
    "linear of weights": lambda x: F.linear(weights(3, x.shape[3]), x[0, 0]),
    "pinv": lambda x: torch.linalg.pinv(x),
    "qr": lambda x: torch.linalg.qr(x)[0],
    "svdvals": lambda x: torch.linalg.svdvals(x),
    "matrix_exp": lambda x: torch.matrix_exp(x[..., :6, :6]),
    "inverse": lambda x: torch.linalg.inv(x[..., :6, :6] + 9 * torch.eye(6)),
    "diff": lambda x: x.diff(dim=2),
    "gradient": lambda x: torch.gradient(x, dim=2)[0],
    "cov": lambda x: torch.cov(x[0, 0]),
    "cdist": lambda x: torch.cdist(x, x),
    "pdist": lambda x: F.pdist(x[0, 0]),
    "trapezoid": lambda x: torch.trapezoid(x, dim=2),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(2), dim=1),
    "pairwise": lambda x: F.pairwise_distance(x, x.flip(2) + 1),
    "unfold": lambda x: F.unfold(x, 3, padding=1),
    "fold": lambda x: F.fold(F.unfold(x, 3), x.shape[2:], 3),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :6, :6], 2),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "tokens and back": lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).unflatten(2, x.shape[2:]),
    "windows": lambda x: x[:, :, :6, :6].reshape(2, -1, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(8, 9, -1).mean(1),
    "instance norm": lambda x: F.instance_norm(x),
    "group norm": lambda x: F.group_norm(x, 2),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True),
    "global": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "mean": lambda x: x.mean() * x,
    "added in place": written(lambda room, x: room.add_(x.flip(2)), zeros=False),
    "multiplied through a view": written(lambda room, x: room[..., 2:].mul_(room.mean()), zeros=False),
    "written through a transpose": written(
        lambda room, x: room.transpose(2, 3).add_(x[:, :, :6, :6].mT if x.shape[2] == x.shape[3] else x.transpose(2, 3))
    ),
    "written through a square transpose": written(
        lambda room, x: room[..., :6, :6].transpose(2, 3).copy_(x[..., :6, :6])
    ),
    "written through a flattened view": written(lambda room, x: room.view(-1).add_(x.flatten().flip(0))),
    "written through a shifted view": written(
        lambda room, x: room.as_strided((1, 1, 4, 6), room.stride(), room.shape[3]).copy_(x[:1, :1, :4, :6])
    ),
    "set with a mean": written(
        lambda room, x: room.__setitem__((slice(None), slice(None), 0), x.mean((2, 3))[..., None]), zeros=False
    ),
    "set through a view": written(
        lambda room, x: room[0].__setitem__((slice(None), 1), x.mean((2, 3))[0, :, None]), zeros=False
    ),
    "set by a mask": written(lambda room, x: room.__setitem__(room > 0, x.mean()), zeros=False),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x.flip(2)),
    "out": lambda x: (
        torch.add(x, x.flip(2), out=None) if x.requires_grad else torch.add(x, x.flip(2), out=torch.empty_like(x))
    ),
    "where by rows": lambda x: torch.where(x.mean(2, keepdim=True) > 0, x, x.flip(2)),
    "foreach": lambda x: torch._foreach_add([x], [x.flip(2)])[0],
    "checkpointed": lambda x: torch.utils.checkpoint.checkpoint(lambda y: y.flip(2), x, use_reentrant=False),
    "lstm": lambda x: torch.lstm(
        x[0],
        (torch.zeros(1, x.shape[2], 3, dtype=x.dtype),) * 2,
        [weights(12, x.shape[3]), weights(12, 3), weights(12), weights(12)],
        True,
        1,
        0.0,
        False,
        False,
        False,
    )[0],
    "embedded": lambda x: F.embedding_bag(torch.arange(3)[None], x[0, 0], mode="sum"),
}


@pytest.mark.parametrize("shape", [OBLONG, CUBE], ids=["oblong", "cube"])
@pytest.mark.parametrize("name", EXACT)
def test_fields_equal_the_extent_of_gradients(name: str, shape: tuple[int, ...]) -> None:
    check(EXACT[name], shape, exact=True)


@pytest.mark.parametrize("shape", [OBLONG, CUBE], ids=["oblong", "cube"])
@pytest.mark.parametrize("name", SOUND)
def test_fields_hold_all_gradients(name: str, shape: tuple[int, ...]) -> None:
    check(SOUND[name], shape, exact=False)


# What gradients cannot see.
UNSEEN: dict[str, Operation] = {
    "float32 bits": lambda x: x.view(torch.float32),
    "int64 bits": lambda x: x.view(torch.int64),
    "complex bits": lambda x: x.view(torch.complex128),
    "smaller bits": lambda x: x.float().view(torch.int16),
    "bytes": lambda x: x.half().view(dtype=torch.uint8),
    "bits of a transpose": lambda x: x.mT.contiguous().view(torch.int32),
    "masked bits": lambda x: (x.view(torch.int64) & -(2**40)).view(torch.float64).flip(2),
    "item": lambda x: x * x.mean().item(),
    "float": lambda x: x + float(x[0, 0, 0, 0]),
    "int": lambda x: x + int(10 * x[0, 0, 0, 0]),
    "complex": lambda x: x * complex(x.mean()).real,
    "format": lambda x: x * float(f"{x.mean():.3f}"),
    "text": lambda x: x * len(str(x)),
    "one by one": lambda x: x * [float(number) for number in x.flatten()][3],
    "tolist": lambda x: x * torch.tensor(x.tolist()).flip(3),
    "array": lambda x: x + torch.from_numpy(x.detach().numpy()[..., ::-1].copy()),
    "asarray": lambda x: x + torch.as_tensor(np.asarray(x) * 2).flip(2),
    "dlpack": lambda x: x + torch.from_dlpack(np.from_dlpack(x.detach()) * 1.0).flip(2),
    "ufunc": lambda x: x + torch.as_tensor(np.cumsum(x, 2)),
    "storage": lambda x: x * x.untyped_storage()[6],
    "numbers that are used later": lambda x: F.conv2d(x, weights(4, x.shape[1], 1, 1) * x.mean().item())[..., :2],
    "moved by a number": lambda x: x.roll(int(x[0].argmax()), 3),
    "length of a choice": lambda x: x * len(x[x > 0]),
    "count of a choice": lambda x: x * x.masked_select(x > 0).numel(),
    "shape of what is not zero": lambda x: x * (x > 0).nonzero().shape[0],
    "size of argwhere": lambda x: x * torch.argwhere(x > 0).size(0),
    "where alone": lambda x: x * torch.where(x > 0)[0].numel(),
    "distinct numbers": lambda x: x * x.round().unique().shape[0],
    "distinct neighbours": lambda x: x * x.round().flatten().unique_consecutive().shape[0],
    "ones like a choice": lambda x: x * torch.ones_like(x[x > 0]).sum(),
    "repeated by a number": lambda x: x * x.repeat_interleave((x[0, :, 0, 0] * 10).long().abs(), 1).shape[1],
    "bins": lambda x: x * len(torch.bincount((x * 5).abs().long().flatten())),
    "kept boxes": lambda x: x * len(nms(x[0, 0, :, :4].abs().cumsum(1), x[0, 0, :, 0], 0.5)),
    "argmax": lambda x: x.argmax(2),
    "argsort": lambda x: x.argsort(3),
    "max indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "sign": torch.sign,
    "round": torch.round,
    "compared": lambda x: (x > 0) & (x.flip(2) > 0),
    "long": lambda x: (x * 10).long() << 1,
    "isin": lambda x: torch.isin(x.round(), x.round()[0, 0, 0]),
    "count_nonzero": lambda x: (x > 0).count_nonzero(2),
    "histogram": lambda x: torch.histc(x, 5, -1, 1),
    "searchsorted": lambda x: torch.searchsorted(x.sort(3)[0], x),
    "bucketize": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 9, dtype=x.dtype)),
    "one hot": lambda x: F.one_hot((x > 0).long(), 2),
    "embedding": lambda x: F.embedding((x > 0).long(), weights(2, 3)),
    "table": lambda x: weights(9)[(x * 3).long().clamp(0, 8)],
    "index from the picture": lambda x: x[:, :, :, (x[0, 0, 0] > 0).long()],
    "set where positive": lambda x: torch.zeros_like(x).index_put_(torch.where(x > 0), torch.ones((), dtype=x.dtype)),
    "quantized": lambda x: torch.fake_quantize_per_tensor_affine(x.float(), 0.1, 0, -128, 127),
    "exponent": lambda x: torch.frexp(x)[1],
    "applied": lambda x: x.detach().clone().apply_(lambda number: number + 1),
    "data": lambda x: x.data.flip(2),
}


def seen_from(field: ReceptiveField, shape: torch.Size, row: int, column: int) -> Tensor:
    """Which elements of a result see a pixel, by its field."""
    seen = torch.ones(shape, dtype=torch.bool)
    for span, pixel in ((field.rows, row), (field.columns, column)):
        sees = torch.from_numpy((span.low <= pixel) & (pixel < span.high))
        seen &= sees.view([-1 if axis == span.axis else 1 for axis in range(len(shape))])
    return seen


@pytest.mark.parametrize("shape", [OBLONG, CUBE], ids=["oblong", "cube"])
@pytest.mark.parametrize("name", [*UNSEEN, *EXACT, *SOUND])
@torch.no_grad()
def test_a_changed_pixel_changes_no_cell_whose_field_lacks_it(name: str, shape: tuple[int, ...]) -> None:
    operation = (UNSEEN | EXACT | SOUND)[name]
    module, picture = Applied(operation), pictures(shape, 2)[1]
    field, before, changes = field_of(operation, picture), module(picture.clone()), 0
    for place in range(0, shape[2] * shape[3], 1 if name in UNSEEN else 5):
        row, column = divmod(place, shape[3])
        other = picture.clone()
        other[:, :, row, column] += 1
        after = module(other)
        differs = (
            ~torch.isclose(after, before, 1e-9, 1e-12, equal_nan=True)
            if after.is_floating_point() or after.is_complex()
            else after != before
        )
        changes += int(differs.sum())
        assert not (differs & ~seen_from(field, after.shape, row, column)).any(), (row, column)
    assert changes


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.mT,
        lambda x: F.avg_pool2d(x.mT, (1, 2), (1, 2)),
        lambda x: torch.rot90(x, 1, (2, 3))[..., 1:],
        lambda x: F.conv2d(x.transpose(2, 3), weights(2, x.shape[1], 3, 1), stride=(2, 1)),
        lambda x: x.permute(0, 3, 2, 1),
        lambda x: x,
    ],
)
def test_the_cell_of_a_transposed_map_is_that_of_its_own_rows_and_columns(operation: Operation) -> None:
    picture = pictures(OBLONG, 1)[0]
    field = field_of(operation, picture)
    leaf = picture.clone().requires_grad_()
    output = Applied(operation)(leaf)
    rows, columns = sorted((field.rows.axis, field.columns.axis))
    for cell in ((0, 1), (1, output.shape[columns] - 1), (output.shape[rows] - 1, 2)):
        chosen = output.select(rows, cell[0]).select(columns - 1, cell[1])
        (gradient,) = torch.autograd.grad(chosen.square().sum(), leaf, retain_graph=True)
        support = hull(gradient.ne(0).any(0).any(0))
        assert support is not None
        top, left, bottom, right = field.inside(cell)
        assert (top, bottom, left, right) == support
        top, left, bottom, right = field.box(cell)
        assert (max(0, top), min(9, bottom), max(0, left), min(6, right)) == support
        assert field.centre(cell) == ((top + bottom) / 2, (left + right) / 2)


class Sites(nn.Module):
    """Maps that are not square, or as deep as wide, behind operations without a rule and behind moves of cells."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation, self.last = operation, nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.operation(x))


@pytest.mark.parametrize("size", [(3, 3), (7, 4), (1, 5), (6, 6)])
@pytest.mark.parametrize(
    "operation",
    [
        reversed_sum,
        lambda x: deform_conv2d(x, torch.ones(1, 2, *x.shape[2:]), torch.ones(3, 3, 1, 1)),
        lambda x: F.grid_sample(x, torch.zeros(1, *x.shape[2:], 2), align_corners=False),
        lambda x: F.pad(x, (1, 0, 0, 0), mode="replicate"),
        lambda x: x.mT,
        lambda x: x.flip(2),
        lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
        lambda x: F.conv_transpose2d(x, torch.ones(3, 3, 2, 2), stride=2),
        lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    ],
)
def test_behind_any_operation_maps_are_sites(operation: Operation, size: tuple[int, int]) -> None:
    module = Sites(operation)
    site = next(site for site in survey(module, torch.rand(1, 3, *size)) if site.name == "last")
    assert site.layout == "chw"
    assert site.shape == tuple(module(torch.rand(1, 3, *size)).shape[1:])


def test_cells_of_one_row_keep_their_axis() -> None:
    field = field_of(
        lambda x: x[:, :, :1].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).roll(1, 1),
        torch.rand(1, 3, 8, 5).double(),
    )
    assert (field.rows.axis, field.columns.axis) == (2, 3)


def test_reflected_padding_keeps_size_and_stride_of_fields() -> None:
    """A 3 × 3 blur of stride 2 between two 3 × 3 convolutions, by hand: 3 + 2 = 5 pixels, then 5 + 2·2 = 9."""
    blurred = Applied(
        lambda x: F.conv2d(F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 3, 2), weights(3, 3, 3, 3), padding=1)
    )
    field = receptive_fields(blurred, torch.rand(1, 3, 24, 24, dtype=torch.float64))["conv2d_1"]
    assert (field.size, field.stride) == ((9, 9), (2, 2))
    assert field.box((0, 0)) == (-4, -4, 5, 5)
    assert field.box((5, 6)) == (6, 8, 15, 17)


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5", "swin_t", "convnext_tiny"]
)
@pytest.mark.slow
def test_no_field_of_a_network_is_smaller_than_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval().double().requires_grad_(False)
    picture = torch.rand(2, 3, 96, 64, dtype=torch.float64, requires_grad=True)
    sites = [site for site in survey(module, picture.detach()[:1]) if site.is_map and site.kind != "reshape"]
    chosen = sites[:: max(1, len(sites) // 6)]
    with Tap(module, {site.name for site in chosen}) as tap:
        module(picture)
    for site in chosen:
        assert site.receptive_field is not None
        value = channels_first(tap.kept[site.name], site)
        for cell in {(0, 0), (value.shape[2] - 1, value.shape[3] // 2)}:
            (gradient,) = torch.autograd.grad(value[0, :, cell[0], cell[1]].square().sum(), picture, retain_graph=True)
            top, left, bottom, right = site.receptive_field.inside(cell)
            gradient[..., top:bottom, left:right] = 0
            assert not gradient.any(), (site.name, cell)
