"""Convolutions of pictures whose gradient by the picture takes a half to a third of oneDNN's time.

oneDNN computes 16 channels at once, so a gradient by three channels takes as long as one by 16. Here each position computes a
block of 2 x 2 pixels or more, so that it has 12 channels or more; the result is the same but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from vizapp.engine.call_arguments import argument, pair

_FEW = 4  # channels
_LARGEST_STRIDE = 4  # blocks of a larger one have so many channels that oneDNN is fast by itself


def picture_convolution(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """`F.conv2d` of `[n C H W]` with few channels on a CPU, followed by autograd for the picture alone.

    None if the call is another one, or no gradient is wanted.
    """
    pictures, weight, bias = (argument(args, kwargs, i, key, None) for i, key in enumerate(("input", "weight", "bias")))
    if not (torch.is_grad_enabled() and pictures.requires_grad) or pictures.device.type != "cpu" or pictures.ndim != 4:
        return None
    padding, groups = argument(args, kwargs, 4, "padding", 0), argument(args, kwargs, 6, "groups", 1)
    stride = pair(argument(args, kwargs, 3, "stride", 1))
    if pictures.shape[1] > _FEW or groups != 1 or isinstance(padding, str) or stride[0] != stride[1]:
        return None
    if stride[0] > _LARGEST_STRIDE or pair(argument(args, kwargs, 5, "dilation", 1)) != (1, 1):
        return None
    answer: Tensor = _PictureConvolution.apply(pictures, weight.detach(), bias, stride[0], pair(padding))
    return answer


class _PictureConvolution(Function):
    @staticmethod
    def forward(
        ctx: Any, pictures: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.call = stride, padding, pictures.shape[2:]
        return F.conv2d(pictures, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _gradient_by_blocks(gradients[0], *ctx.saved_tensors, *ctx.call), None, None, None, None


def _gradient_by_blocks(
    gradient: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """The gradient `[n C H W]` by the input of `F.conv2d`, from that by its output `[n O h w]` and the weight `[O C kh kw]`.

    Pixel i of the padded input gets what output o gives through row u of the kernel if i = stride · o + u. With blocks of b
    pixels, a multiple of the stride, that is a convolution of stride b / stride for each of the b pixels of a block.

    Args:
        size: Height and width of the input.
    """
    block = max(2, stride)
    apart = block // stride  # outputs from one block to the next
    (down, rows), (across, columns) = (_taps(kernel, stride, block) for kernel in weight.shape[2:])
    spread = F.pad(weight, (0, 1, 0, 1))[:, :, down][..., across]  # [O C b Kh b Kw]; zeros outside of the kernel
    kernels = spread.permute(1, 2, 4, 0, 3, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    more = apart - 1  # one output further, so that the last block is complete
    blocks = F.conv2d(gradient, kernels, None, apart, (rows + more, columns + more))
    padded = F.pixel_shuffle(blocks, block)
    height, width = padded.shape[2:]
    top, left = (pad + stride * more for pad in padding)
    # Crops, and fills in zeros for pixels that no output sees.
    return F.pad(padded, (-left, left + size[1] - width, -top, top + size[0] - height))


def _taps(kernel: int, stride: int, block: int) -> tuple[Tensor, int]:
    """The row of the kernel `[b K]` that joins pixel a of a block to the k-th output that it sees, `kernel` where none does.

    Also how many outputs before its own position a block sees.
    """
    before = (kernel - 1) // stride
    outputs = torch.arange(-before, (block - 1) // stride + 1)
    row = torch.arange(block)[:, None] - stride * outputs
    return torch.where((row >= 0) & (row < kernel), row, kernel), before
