"""A classifier as a convolution of itself gives, at each place, what it gives on the crop there.

The oracle is the network itself, run on one crop after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.engine.fully_convolutional import tiles
from vizapp.engine.fully_convolutional.conversion_plan import ConversionPlan
from vizapp.engine.fully_convolutional.convert import plan_conversion
from vizapp.engine.fully_convolutional.forward import dense_scores
from vizapp.engine.fully_convolutional.tiles import DenseMap, available_strides, dense_map, map_size
from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.engine.memory.peak import PeakMemory
from vizapp.errors import VizError
from vizapp.zoo.classic.lenet import LeNet5
from vizapp.zoo.classic.overfeat import OverFeat

CPU = torch.device("cpu")


class Net(nn.Module):
    """Two layers, the first strided, and a head of any kind: `forward` of the subclass."""

    def __init__(self, padding: int = 0, channels: int = 8) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, stride=2, padding=padding)
        self.two = nn.Conv2d(6, channels, 3, padding=padding)
        self.fc = nn.Linear(channels, 5)
        self.wide = nn.Linear(channels * 36 if padding else channels * 9, 5)
        self.norm = nn.BatchNorm1d(5)

    def maps(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))))


class ViewByConstant(Net):
    def forward(self, x):
        return self.wide(self.maps(x).view(-1, self.wide.in_features))


class ViewBySizeReadFirst(Net):
    def forward(self, x):
        pictures = x.size(0)
        return self.wide(self.maps(x).reshape(pictures, -1))


class FlattenWithNormAndSoftmax(Net):
    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.maps(x), (6, 6) if self.one.padding[0] else (3, 3))  # changes nothing
        x = F.dropout(torch.flatten(x, 1), 0.5, self.training)
        return torch.softmax(F.layer_norm(self.norm(self.wide(x)), (5,)), 1)


class ReducingAdaptivePool(Net):
    def forward(self, x):
        return self.fc(F.adaptive_avg_pool2d(self.maps(x), (2, 1)).flatten(2).amax(2))


class MeanOverPositions(Net):
    def forward(self, x):
        return self.fc(self.maps(x).mean((2, 3)))


class SumOverPositions(Net):
    def forward(self, x):
        return self.fc(self.maps(x).sum(dim=(2, 3)))


class TwoMeansAndTheirSquare(Net):
    def forward(self, x):
        x = self.maps(x).mean((-1, -2), keepdim=True)
        return self.fc((x * x + x).squeeze(-1).squeeze(-1))


class PoolAsLargeAsItsInput(Net):
    def forward(self, x):
        x = self.maps(x)
        x = torch.cat([x, x], 1)[:, : x.shape[1]]
        x = F.pad(x, (1, 1, 1, 1))
        return self.fc(F.avg_pool2d(x, x.size(3)).flatten(1))


class PaddedByItsSize(Net):
    """As TensorFlow's "same": nothing at the training size of 12, one row and column on odd sizes."""

    def forward(self, x):
        x = F.pad(x, pad=(x.shape[3] % 2, 0, x.shape[2] % 2, 0))
        return self.fc(self.maps(x).mean((2, 3)))


class Greatest(Net):
    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_max_pool2d(self.maps(x), 1), 1))


class ConvolutionalHead(Net):
    def forward(self, x):
        return F.adaptive_avg_pool2d(F.conv2d(self.maps(x), self.fc.weight[:, :, None, None]), 1).flatten(1)


class ConvolutionalHeadWithoutPool(Net):
    def forward(self, x):
        return F.conv2d(self.maps(x), self.wide.weight.view(5, 8, *(2 * [6 if self.one.padding[0] else 3])))


class ChannelsLastInside(Net):
    def forward(self, x):
        x = self.maps(x).permute(0, 2, 3, 1)
        x = F.layer_norm(x, (8,))
        return self.fc(F.linear(x, self.two.weight[:8, :, 0, 0] @ self.two.weight[:8, :, 0, 1].T).mean([1, 2]))


class ShuffledChannels(Net):
    def forward(self, x):
        n, c, h, w = (x := self.maps(x)).shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        left, right = x.chunk(2, 1)
        return self.fc(torch.cat((left, right * 2), 1).mean([2, 3]))


class WithAuxiliary(Net):
    def forward(self, x):
        x = self.maps(x)
        return {"logits": self.fc(x.mean((2, 3))), "aux": self.fc(x.amax((2, 3)))}


HEADS = [
    ViewByConstant, ViewBySizeReadFirst, FlattenWithNormAndSoftmax, ReducingAdaptivePool, MeanOverPositions,
    SumOverPositions, TwoMeansAndTheirSquare, PoolAsLargeAsItsInput, PaddedByItsSize, Greatest,
    ConvolutionalHead, ConvolutionalHeadWithoutPool,
    ChannelsLastInside, ShuffledChannels, WithAuxiliary,
]  # fmt: skip


class GateOfConvolutions(Net):
    def forward(self, x):
        x = F.relu(self.one(x))
        x = x * torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(x, 1), self.two.weight[:6, :, :1, :1]))
        x = F.relu(self.two(x))
        gate = F.hardsigmoid(F.linear(x.mean((2, 3)), self.two.weight[:, :, 0].flatten(1)[:, :8]))
        return self.fc((gate.view(-1, 8, 1, 1).expand_as(x) * x).mean((2, 3)))


class GateAcrossChannels(Net):
    def forward(self, x):
        x = self.maps(x)
        gate = F.conv1d(x.mean((2, 3)).view(x.shape[0], 1, -1), self.one.weight[:1, :1, 0], padding=1)
        return self.fc((x * torch.sigmoid(gate).view(x.shape[0], -1, 1, 1)).mean((2, 3)))


GATED = [GateOfConvolutions, GateAcrossChannels]


def tensor_of(output: object) -> Tensor:
    output = next(iter(output.values())) if isinstance(output, dict) else output
    assert isinstance(output, Tensor)
    return output.flatten(1)


def logits_of(module: nn.Module, picture: Tensor) -> Tensor:
    """What a dense map gives for a crop: the network's scores, behind a softmax their logarithms."""
    scores = tensor_of(module(picture))
    return scores.log() if isinstance(module, FlattenWithNormAndSoftmax) else scores


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planned(module: nn.Module, side: int, channels: int = 3) -> ConversionPlan:
    return plan_conversion(module, noise(1, channels, side, side, seed=0))


def map_of(module: nn.Module, made: ConversionPlan, photo: Tensor, **options: object) -> DenseMap:
    def read(top: int, left: int, bottom: int, right: int) -> Tensor:
        return photo[:, :, top:bottom, left:right]

    return dense_map(module, made, read, photo.shape[2], photo.shape[3], CPU, **options)  # type: ignore[arg-type]


def crop_by_crop(module: nn.Module, photo: Tensor, side: int, stride: int) -> np.ndarray:
    """Scores `[classes h w]`, one crop after the other."""
    rows = [
        torch.cat(
            [logits_of(module, photo[:, :, y : y + side, x : x + side]) for x in starts(photo.shape[3], side, stride)]
        )
        for y in starts(photo.shape[2], side, stride)
    ]
    return torch.stack(rows).permute(2, 0, 1).numpy()


def starts(length: int, side: int, stride: int) -> range:
    return range(0, length - side + 1, stride)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the rounding of float32 sums in another order: 1e-5 of the largest."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# ------------------------------------------------------------------------------------------------------- the twin


@pytest.mark.parametrize(
    "head", [head for head in HEADS if head not in {PoolAsLargeAsItsInput, PaddedByItsSize}]
)  # they pad
def test_every_cell_is_the_crop_where_nothing_pads(head: type[Net]) -> None:
    module = seeded(head())
    photo = noise(2, 3, 23, 19)
    found = dense_scores(module, planned(module, 11), photo)
    for picture in range(2):
        expected = crop_by_crop(module, photo[picture : picture + 1], 11, 2)
        assert found.shape[2:] == (7, 5)
        close(found[picture].numpy(), expected)


class AuxiliaryScores(Net):
    def forward(self, x):
        maps = self.maps(x)
        return self.fc(maps.mean((2, 3))), torch.relu_(self.wide(maps.flatten(1)))


class AuxiliaryScoresAdded(AuxiliaryScores):
    def forward(self, x):
        scores, aside = super().forward(x)
        return scores + aside


class AuxiliaryScoresWrittenIntoAView(AuxiliaryScores):
    def forward(self, x):
        scores, aside = super().forward(x)
        scores[:, :3].add_(aside[:, 1:4])
        return scores


class AuxiliaryScoresAssigned(AuxiliaryScores):
    def forward(self, x):
        scores, aside = super().forward(x)
        scores[:, 1:] = aside[:, 1:]
        return scores


@pytest.mark.parametrize(
    ("head", "unused"),
    [
        (AuxiliaryScores, 1),
        (AuxiliaryScoresAdded, 0),
        (AuxiliaryScoresWrittenIntoAView, 0),
        (AuxiliaryScoresAssigned, 0),
    ],
)
def test_auxiliary_scores_are_computed_at_one_position_if_the_class_scores_do_not_depend_on_them(
    head: type[Net], unused: int
) -> None:
    module = seeded(head())
    made, photo = planned(module, 11), noise(2, 3, 23, 19)
    seen: list[Tensor] = []  # a size that is read here would be an operation of the network
    module.wide.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = dense_scores(module, made, photo)
    assert [len(cells) for cells in seen] == [2 if unused else 2 * 7 * 5]
    assert made.cell_bytes == 4 * (8 + 5 if unused else 2 * 8 * 9)
    for picture in range(2):
        expected = [
            torch.cat(
                [_first(module(photo[picture : picture + 1, :, y : y + 11, x : x + 11])) for x in starts(19, 11, 2)]
            )
            for y in starts(23, 11, 2)
        ]
        close(found[picture].numpy(), torch.stack(expected).permute(2, 0, 1).detach().numpy())


def _first(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("head", HEADS + GATED)
def test_one_cell_is_the_classifier_at_the_training_size(head: type[Net], layout: torch.memory_format) -> None:
    module = seeded(head(padding=1)).to(memory_format=layout)
    picture = noise(1, 3, 12, 12).contiguous(memory_format=layout)
    try:
        expected = logits_of(module, picture)
    except RuntimeError:
        pytest.skip("this head does not bear channels-last itself")
    made = planned(module, 12)
    found = dense_scores(module, made, picture)
    assert found.shape == (1, 5, 1, 1)
    torch.testing.assert_close(found[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)
    larger = dense_scores(module, made, noise(1, 3, 12 + 3 * 2 + 1, 12 + 2))
    assert larger.shape[2] >= 4
    assert larger.shape[3] == 2


def gated(x: Tensor, gate_of: Callable[[Tensor], Tensor]) -> Tensor:
    """A map `[1 C 10 8]` times the gates that `gate_of` makes of means `[1 C]`, each over the 6 × 6 cells around a cell."""
    after = x.clone()
    for i, j in itertools.product(range(10), range(8)):
        top, left = min(max(i - 2, 0), 10 - 6), min(max(j - 2, 0), 8 - 6)
        after[0, :, i, j] *= gate_of(x[:, :, top : top + 6, left : left + 6].mean((2, 3))).flatten()
    return after


def gated_by_convolutions(module: Net, photo: Tensor) -> Tensor:
    weight = module.two.weight
    x = gated(F.relu(module.one(photo)), lambda mean: torch.sigmoid(mean @ weight[:6, :, 0, 0].T))
    return gated(F.relu(module.two(x)), lambda mean: F.hardsigmoid(mean @ weight[:, :, 0].flatten(1)[:, :8].T))


def gated_across_channels(module: Net, photo: Tensor) -> Tensor:
    kernel = module.one.weight[:1, :1, 0]
    return gated(module.maps(photo), lambda mean: torch.sigmoid(F.conv1d(mean[None], kernel, padding=1)))


@pytest.mark.parametrize(
    ("head", "formula"), [(GateOfConvolutions, gated_by_convolutions), (GateAcrossChannels, gated_across_channels)]
)
def test_a_gate_is_that_of_the_window_around_a_cell(head: type[Net], formula: Callable[[Net, Tensor], Tensor]) -> None:
    """Written out: the gate of each cell, from the crop-sized window around it that lies in the map."""
    module = seeded(head(padding=1))
    found = dense_scores(module, planned(module, 12), photo := noise(1, 3, 20, 16))[0]
    x = formula(module, photo)
    for i, j in itertools.product(range(5), range(3)):
        expected = module.fc(x[:, :, i : i + 6, j : j + 6].mean((2, 3)))[0]
        torch.testing.assert_close(found[:, i, j], expected, rtol=1e-4, atol=1e-5)


def test_a_training_size_that_is_not_square() -> None:
    class Flat(Net):
        def forward(self, x):
            return F.linear(self.maps(x).flatten(1), self.flat)

    class Pooled(Net):
        def forward(self, x):
            return self.fc(F.adaptive_max_pool2d(self.maps(x), 1).flatten(1) + self.maps(x).mean((2, 3)))

    for module in (seeded(Flat()), seeded(Pooled())):
        module.flat = noise(5, 8 * 3 * 6)
        made, photo = plan_conversion(module, noise(1, 3, 11, 17)), noise(1, 3, 21, 33)
        found = map_of(module, made, photo)
        assert found.label.shape == (6, 9)
        for i, j in itertools.product(range(6), range(9)):
            top, left, bottom, right = found.boxes(made.size)[i, j]
            close(found.scores[:, i, j], module(photo[:, :, top:bottom, left:right])[0].numpy())


class Oblong(nn.Module):
    """Strides that differ between rows and columns, one layer after the other."""

    def __init__(self, *strides: tuple[int, int]) -> None:
        super().__init__()
        self.one, self.two = (nn.Conv2d(i, o, 3, s) for i, o, s in zip((3, 6), (6, 8), strides, strict=True))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("layers", "known"), [(((2, 1), (2, 1)), [4]), (((1, 2), (2, 1)), [2, 1]), (((2, 1), (1, 2)), [2, 1])]
)
def test_strides_that_differ_between_rows_and_columns(layers: tuple[tuple[int, int], ...], known: list[int]) -> None:
    module, photo = seeded(Oblong(*layers)), noise(1, 3, 31, 27)
    made = planned(module, 15)
    assert available_strides(made) == known
    for stride in known:
        found = map_of(module, made, photo, stride=stride)
        boxes = found.boxes(made.size)
        assert boxes[-1, -1, 2] > 31 - stride
        assert boxes[-1, -1, 3] > 27 - found.across
        for i, j in np.ndindex(*found.label.shape):
            top, left, bottom, right = boxes[i, j]
            close(found.scores[:, i, j], module(photo[:, :, top:bottom, left:right])[0].numpy())


def test_the_map_moves_with_the_photo_far_from_its_edge() -> None:
    module = seeded(Branching())
    made = planned(module, 32)
    assert made.stride == (4, 4)
    photo = noise(1, 3, 96, 96)
    there = dense_scores(module, made, photo)[0]
    here = dense_scores(module, made, photo[:, :, 8:, 12:])[0]
    torch.testing.assert_close(here[:, 5:9, 5:9], there[:, 7:11, 8:12], rtol=1e-4, atol=1e-5)


def test_padding_that_depends_on_the_size_does_not_move_the_cells() -> None:
    module = seeded(PaddedByItsSize())
    made, photo = planned(module, 12), noise(1, 3, 25, 21)
    expected = crop_by_crop(module, photo, 12, 2)
    close(dense_scores(module, made, photo)[0].numpy()[:, : expected.shape[1], : expected.shape[2]], expected)


def test_what_a_cell_sees_is_its_plans_field() -> None:
    module = seeded(Branching()).double()
    made = plan_conversion(module, noise(1, 3, 32, 32).double())
    photo = torch.ones(1, 3, 96, 96, dtype=torch.float64).requires_grad_()
    for parameter in module.parameters():
        parameter.abs_()
    with torch.enable_grad():
        dense = dense_scores_with_gradient(module, made, photo)
        (seen,) = torch.autograd.grad(dense[0, :, 8, 7].sum(), photo)
    rows, columns = (torch.nonzero(seen.abs().sum((0, 1)).sum(axis)).flatten() for axis in (1, 0))
    for place, along, span in ((8, rows, made.field.rows), (7, columns, made.field.columns)):
        assert span.start is not None
        assert span.size is not None
        first, end = span.start + place * 4, span.start + place * 4 + span.size
        assert first <= int(along[0])
        assert int(along[-1]) < end
        assert end - first <= int(along[-1]) - int(along[0]) + 5, "a maximum may pass a neighbour's gradient"


def dense_scores_with_gradient(module: nn.Module, made: ConversionPlan, photo: Tensor) -> Tensor:
    """The twin's own pass, with autograd."""
    from vizapp.engine.fully_convolutional.forward import _FullyConvolutionalForward

    with _FullyConvolutionalForward(module, made, 1, 1) as twin:
        output = module(photo)
    found, (h, w) = twin.as_cells(output)
    return found.view(1, h, w, -1).permute(0, 3, 1, 2)


def test_nothing_of_the_weights_is_copied_and_nothing_is_left_behind() -> None:
    module = seeded(torchvision.models.alexnet(weights=None))
    state = {key: (value.data_ptr(), value._version) for key, value in module.state_dict().items()}
    made = planned(module, 224)
    largest = module.classifier[1].weight.numel() * 4
    widest = 0

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal widest
            output = func(*args, **(kwargs or {}))
            if isinstance(output, Tensor) and output.untyped_storage().data_ptr() not in owned:
                widest = max(widest, output.untyped_storage().nbytes())
            return output

    owned = {value.untyped_storage().data_ptr() for value in module.state_dict().values()}
    with Watching():
        dense_scores(module, made, noise(1, 3, 256, 288))
    assert 0 < widest < largest / 4
    assert state == {key: (value.data_ptr(), value._version) for key, value in module.state_dict().items()}
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


# ------------------------------------------------------------------------------------------- finer maps and OverFeat


def lenet() -> nn.Module:
    return seeded(LeNet5())


@pytest.mark.parametrize("stride", [4, 2, 1])
@pytest.mark.parametrize("share", [True, False])
def test_each_cell_of_lenet_is_the_crops_own_prediction(stride: int, share: bool) -> None:
    module, photo = lenet(), noise(1, 1, 45, 39)
    made = planned(module, 28, 1)
    assert available_strides(made) == [4, 2, 1]
    found = map_of(module, made, photo, stride=stride, share=share)
    assert (found.runs, found.shared) == ((1, 4 // stride) if share else ((4 // stride) ** 2, 1))
    expected = crop_by_crop(module, photo, 28, stride)
    assert expected.shape[1:] == map_size(made, 45, 39, stride)
    close(found.scores, expected)
    np.testing.assert_array_equal(found.label, expected.argmax(0))
    close(found.mean, expected.mean((1, 2)))
    close(found.peak, expected.max((1, 2)))


def test_shift_and_stitch_is_the_shifted_run_at_every_cell() -> None:
    module, photo = seeded(Branching()), noise(1, 3, 61, 70)
    made = planned(module, 32)
    for stride in (2, 1):
        found = map_of(module, made, photo, stride=stride)
        parts = 4 // stride
        assert (found.runs, found.shared) == (parts**2, 1), "it pads, so that nothing can be shared"
        for y, x in itertools.product(range(parts), repeat=2):
            shifted = dense_scores(module, made, photo[:, :, y * stride :, x * stride :])[0].numpy()
            there = found.scores[:, y::parts, x::parts]
            close(there, shifted[:, : there.shape[1], : there.shape[2]])


class HangingPool(nn.Module):
    """A last pool whose windows reach over the edge, over numbers below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 25, 5)

    def forward(self, x):
        return self.fc(F.max_pool2d(self.one(x) - 5, 3, 2, ceil_mode=True).flatten(1))


class TwoWaysToTheSameStride(Net):
    def forward(self, x):
        near = F.max_pool2d(F.max_pool2d(F.conv2d(x, self.one.weight[:, :, 1:, 1:]), 2), 2)
        far = F.avg_pool2d(F.conv2d(x, self.one.weight[:, :, :2, :2]), 4)
        return self.fc(torch.cat([near, far], 1)[:, :8].mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "side", "stride", "shared"),
    [(HangingPool, 12, 1, 2), (TwoWaysToTheSameStride, 17, 2, 1), (TwoWaysToTheSameStride, 17, 1, 4)],
)
def test_what_is_shared_is_what_shifted_runs_give(build, side: int, stride: int, shared: int) -> None:
    module, photo = seeded(build()), noise(1, 3, side + 14, side + 11)
    made = planned(module, side)
    found = map_of(module, made, photo, stride=stride)
    stitched = map_of(module, made, photo, stride=stride, share=False)
    assert found.shared == shared
    assert stitched.shared == 1
    close(found.scores, stitched.scores)


@pytest.mark.parametrize("gated", GATED)
def test_nothing_is_shared_below_a_gate(gated: type[Net]) -> None:
    module, photo = seeded(gated()), noise(1, 3, 24, 21)
    made = planned(module, 11)
    found = map_of(module, made, photo, stride=1)
    assert (found.runs, found.shared) == (4, 1)
    close(found.scores, map_of(module, made, photo, stride=1, share=False).scores)


TABLE = [  # scale: input, before the last pool, classifier per offset, map (algorithms, section 4)
    ((245, 245), (17, 17), (1, 1), (3, 3)),
    ((281, 317), (20, 23), (2, 3), (6, 9)),
    ((317, 389), (23, 29), (3, 5), (9, 15)),
    ((389, 461), (29, 35), (5, 7), (15, 21)),
    ((425, 497), (32, 38), (6, 8), (18, 24)),
    ((461, 569), (35, 44), (7, 10), (21, 30)),
]


@pytest.mark.parametrize(("photo", "before", "per_offset", "whole"), TABLE)
def test_overfeats_table_of_scales(photo, before, per_offset, whole) -> None:
    module = seeded(OverFeat(shrink=32, classes=7))
    made = planned(module, 221)
    assert made.stride == (36, 36)
    picture = noise(1, 3, *photo)
    assert module.features[:-1](picture).shape[2:] == before
    for y, x in itertools.product(range(3), repeat=2):
        offset = F.max_pool2d(module.features[:-1](picture)[:, :, y:, x:], 3, 3)
        assert tuple(size - 4 for size in offset.shape[2:]) == per_offset
    found = map_of(module, made, picture, stride=12)
    assert (found.runs, found.shared) == (1, 3)
    assert found.label.shape == whole == (3 * per_offset[0], 3 * per_offset[1])
    pooled = torch.stack(
        [dense_by_hand(module, picture, y, x) for y, x in itertools.product(range(3), repeat=2)]
    )  # [9 classes h w]
    stitched = pooled.view(3, 3, 7, *per_offset).permute(2, 3, 0, 4, 1).reshape(7, *whole)
    close(found.scores, stitched.numpy())


def dense_by_hand(module: OverFeat, picture: Tensor, y: int, x: int) -> Tensor:
    """OverFeat's last pool at an offset, then its classifier as convolutions: `[classes h w]`."""
    pooled = F.max_pool2d(module.features[:-1](picture)[:, :, y:, x:], 3, 3)
    c, head = pooled.shape[1], module.classifier
    hidden = F.relu(F.conv2d(pooled, head.fc6.weight.view(-1, c, 5, 5), head.fc6.bias))
    hidden = F.relu(F.conv2d(hidden, head.fc7.weight[:, :, None, None], head.fc7.bias))
    return F.conv2d(hidden, head.fc8.weight[:, :, None, None], head.fc8.bias)[0]


def without_padding(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.padding = (0, 0)
    return module


def test_offset_pooling_is_shift_and_stitch_and_the_crop() -> None:
    """Of OverFeat's layers without their padding; with it the runs differ at the edges, by what the zeros do."""
    module = OverFeat(shrink=32, classes=7)
    without_padding(module)
    module.classifier.fc6 = nn.Linear(32 * 25, 128)
    seeded(module)
    side = 221 + 8 * 12  # eight cells of the 3x3 layers more
    photo = noise(1, 3, side + 60, side + 36)
    made = planned(module, side)
    offsets = map_of(module, made, photo, stride=12)
    stitched = map_of(module, made, photo, stride=12, share=False)
    assert (offsets.runs, offsets.shared, stitched.runs, stitched.shared) == (1, 3, 9, 1)
    close(offsets.scores, stitched.scores)
    close(offsets.scores, crop_by_crop(module, photo, side, 12))


def test_overfeats_offset_pooling_is_shift_and_stitch_away_from_the_edge() -> None:
    module = seeded(OverFeat(shrink=32, classes=7))
    made, photo = planned(module, 221), noise(1, 3, 365, 329)
    offsets = map_of(module, made, photo, stride=12).scores
    stitched = map_of(module, made, photo, stride=12, share=False).scores
    edge = 6  # four padded layers reach four cells, which the offsets count in threes
    close(offsets[:, edge:, edge:], stitched[:, edge:, edge:])
    assert np.abs(offsets - stitched).max() > 1e-3, "the zeros at the shifted edge are seen"


# ------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize(
    ("build", "side", "stride"),
    [
        (lambda: Branching(), 32, 4),
        (lambda: Branching(), 32, 2),
        (lambda: GateOfConvolutions(padding=1), 12, 2),
        (lambda: GateAcrossChannels(padding=1), 12, 1),
        (lambda: OverFeat(shrink=64, classes=4), 221, 12),
    ],
)
def test_tiles_cannot_be_seen(build, side: int, stride: int) -> None:
    module = seeded(build())
    made, photo = planned(module, side), noise(1, 3, 4 * side + 5, 3 * side + 11)
    whole = map_of(module, made, photo, stride=stride)
    assert whole.tiles == 1
    tiled = smallest(module, made, photo, stride)
    assert tiled.tiles > 1
    close(tiled.scores, whole.scores)
    np.testing.assert_array_equal(tiled.label, tiled.scores.argmax(0))
    close(tiled.mean, whole.mean)
    close(tiled.peak, whole.peak)


def smallest(module: nn.Module, made: ConversionPlan, photo: Tensor, stride: int) -> DenseMap:
    """The map made with the least memory that is not refused, in steps of a half."""
    memory = 1000
    while True:
        try:
            return map_of(module, made, photo, stride=stride, memory=memory)
        except VizError:
            memory = math.ceil(memory * 1.5)


class Allocated(TorchFunctionMode):
    """The most bytes that activations alive at once take, counted by storage."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = PeakMemory()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.memory.track(output)
        return output


@pytest.mark.parametrize("megabytes", [3, 12])
@pytest.mark.slow
def test_the_memory_bound_holds_on_a_large_photo(megabytes: int) -> None:
    module, photo = seeded(Branching()), noise(1, 3, 1500, 1800)
    made = planned(module, 32)
    with Allocated() as counted:
        found = map_of(module, made, photo, memory=megabytes * 10**6, keep=[0])
    assert found.tiles > 1
    taken = counted.memory.peak - photo.numel() * 4  # the parts that are read are views of it
    assert megabytes * 1e5 < taken < megabytes * 1e6


def test_where_less_fits_than_was_thought_tiles_are_halved_down_to_one_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    module, photo, real = seeded(ViewByConstant(padding=1)), noise(1, 3, 26, 34), tiles.dense_scores
    made = planned(module, 12)
    whole = map_of(module, made, photo)
    assert whole.label.shape == (8, 12)
    halves = [(8, 12), (8, 6), (4, 6), (4, 3), (2, 3), (2, 2), (2, 1), (1, 1)]  # the longer side
    room = math.inf
    tried: list[int] = []

    def scores(module: nn.Module, plan: ConversionPlan, batch: Tensor, finer: int) -> Tensor:
        tried.append(batch.shape[2] * batch.shape[3])
        if tried[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(module, plan, batch, finer)

    monkeypatch.setattr(tiles, "dense_scores", scores)
    monkeypatch.setattr(
        "vizapp.engine.memory.chunks.gc.collect", lambda: 0
    )  # half a second each time, and no matter here
    counts = []
    while True:  # each time with room for a little less than the largest tile of the time before
        tried.clear()
        try:
            found = map_of(module, made, photo)
        except DoesNotFit as error:
            assert f"a map of {photo.shape[3]} x {photo.shape[2]} pixels" in str(error)  # noqa: PT017 - it ends the loop
            break
        counts.append(found.tiles)
        close(found.scores, whole.scores)
        close(found.mean, whole.mean)
        room = max(area for area in tried if area <= room) - 1
    ladder = [math.ceil(8 / down) * math.ceil(12 / across) for down, across in halves]
    assert [count for count in ladder if count in counts] == sorted(set(counts))
    # Where a smaller tile, moved to whole strides, takes as many pixels, it is passed over.
    assert set(ladder) - set(counts) <= {16}
    assert counts[-1] == 96, counts


def test_the_memory_of_a_pass_is_estimated_from_the_small_one() -> None:
    for module, side in ((seeded(Branching()), 32), (seeded(torchvision.models.squeezenet1_1(weights=None)), 224)):
        made, photo = planned(module, side), noise(1, 3, 3 * side, 4 * side)
        with Allocated() as counted:
            dense_scores(module, made, photo)
        estimate = made.pixel_bytes * photo.shape[2] * photo.shape[3]
        assert 0.4 * estimate < counted.memory.peak < 2.5 * estimate


def test_kept_classes_and_progress() -> None:
    module, photo, shares = lenet(), noise(1, 1, 64, 64), []
    made = planned(module, 28, 1)
    whole = map_of(module, made, photo)
    some = map_of(module, made, photo, keep=[7, 2], memory=200_000, tick=shares.append)
    close(some.scores, whole.scores[[7, 2]])
    np.testing.assert_array_equal(some.label, whole.label)
    assert shares == sorted(shares)
    assert len(shares) == some.tiles > 1
    assert shares[-1] == 1


# ---------------------------------------------------------------------------------------------------------- refusals


class Tokens(Net):
    def forward(self, x):
        x = self.maps(x).flatten(2).transpose(1, 2)
        return self.fc(F.scaled_dot_product_attention(x, x, x).mean(1))


class AttentionOnTheMap(Net):
    def forward(self, x):
        x = self.maps(x)
        return self.fc((x.transpose(2, 3) @ x).mean((2, 3)))


class NumberPerPosition(Net):
    def forward(self, x):
        x = self.maps(x)
        return self.fc((x + noise(1, 8, 3, 3)).mean((2, 3)))


class NormOverTheMap(Net):
    def forward(self, x):
        return self.fc(F.group_norm(self.maps(x), 2).mean((2, 3)))


class OtherWayWhenLarge(Net):
    def forward(self, x):
        return self.fc((torch.sin(self.maps(x)) if x.shape[2] > 11 else self.maps(x)).mean((2, 3)))


class FixedSize(Net):
    def forward(self, x):
        x = self.maps(x)
        return self.fc(x.view(-1, 2, 4, 3, 3).amax(1).view(-1, 4, 3, 3).repeat(1, 2, 1, 1).mean((2, 3)))


class AMap(Net):
    def forward(self, x):
        return self.maps(x)


@pytest.mark.parametrize(
    ("network", "code", "reason"),
    [
        (Tokens, "not-convolutional", "attention"),
        (AttentionOnTheMap, "not-convolutional", "attention"),
        (NumberPerPosition, "not-convolutional", "learned"),
        (NormOverTheMap, "not-convolutional", "norm"),
        (OtherWayWhenLarge, "not-convolutional", ""),
        (FixedSize, "not-convolutional", "21 × 21"),
        (AMap, "no-class-scores", ""),
    ],
)
def test_networks_without_a_twin_are_refused_with_the_reason(network: type[Net], code: str, reason: str) -> None:
    module = seeded(network())
    with refuses(code, reason):
        dense_scores(module, planned(module, 11), noise(1, 3, 21, 21))


def test_strides_and_sizes_that_cannot_be() -> None:
    module = lenet()
    made, photo = planned(module, 28, 1), noise(1, 1, 40, 40)
    for stride in (3, 8, 0):
        with refuses("no-such-stride", "4, 2, 1 pixels", f"{stride} "):
            map_of(module, made, photo, stride=stride)
    with refuses("picture-too-small", "40 × 27", "28 × 28"):
        map_of(module, made, photo[:, :, :27])
    with refuses("picture-too-small"):
        dense_scores(module, made, photo[:, :, :27])
    with refuses("out-of-memory"):
        map_of(module, made, photo, memory=10)
