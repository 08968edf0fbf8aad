"""The parts of a number are those of the formula: each kind of operation against a loop in float64 or known numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import Aliasing, seeded
from vizapp.engine.arithmetic.cell import CellArithmetic, take_apart
from vizapp.engine.arithmetic.operands import record_operands
from vizapp.engine.arithmetic.origins import Origins
from vizapp.engine.trace.interventions import Change, intervene
from vizapp.engine.trace.sites import Unit, survey
from vizapp.errors import VizError

PHOTO = torch.randn(1, 4, 9, 11, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class Run(nn.Module):
    """A network that is one function; its layers are attributes."""

    def __init__(self, function: Any, **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def apart(module: nn.Module, unit: Unit, photo: Tensor = PHOTO) -> CellArithmetic:
    module = module.to(photo.dtype).eval()
    sites = {site.name: site for site in survey(module, photo)}
    return take_apart(Origins(record_operands(module, photo, {unit.site}), sites), unit)


def correlated(x: np.ndarray, layer: Any, channel: int, cell: tuple[int, ...]) -> np.ndarray:
    """The products `[C kh kw]` of a convolution of an already padded map, tap by tap."""
    weight, group = layer.weight.detach().numpy(), channel * layer.groups // layer.out_channels
    size = x.shape[0] // layer.groups
    products = np.zeros_like(weight[channel])
    for c, a, b in itertools.product(*map(range, products.shape)):
        row, column = (cell[n] * layer.stride[n] + (a, b)[n] * layer.dilation[n] for n in (0, 1))
        products[c, a, b] = weight[channel, c, a, b] * x[group * size + c, row, column]
    return products


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1}, {"kernel_size": (3, 2), "stride": (2, 1), "padding": (2, 0)},
        {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 1), "groups": 2}, {"kernel_size": 2, "groups": 4, "bias": False},
        {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    ],
)  # fmt: skip
def test_the_products_of_a_convolution_are_kernel_times_patch(options: dict[str, Any], mode: str) -> None:
    layer = seeded(nn.Conv2d(4, 8, padding_mode=mode, **options)).double()
    output = layer(PHOTO).detach()[0]
    padding = options.get("padding", 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        sides = [(n // 2, n - n // 2) for n in total]
    else:
        sides = [(n, n) for n in (padding if isinstance(padding, tuple) else (padding, padding))]
    kind: Any = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    around = np.pad(PHOTO[0].numpy(), [(0, 0), *sides], kind)
    inside = np.pad(np.ones(PHOTO.shape[2:], bool), sides)
    for channel, cell in ((0, (0, 0)), (5, (2, 3)), (7, (output.shape[1] - 1, output.shape[2] - 1))):
        found = apart(nn.Sequential(layer), Unit("0", channel, cell))
        np.testing.assert_allclose(found.products, correlated(around, layer, channel, cell), rtol=1e-13, atol=0)
        assert found.value == float(output[(channel, *cell)])
        assert found.error < 1e-12
        bias = 0.0 if layer.bias is None else float(layer.bias[channel])
        np.testing.assert_allclose(found.contributions.sum() + bias, found.value, rtol=1e-12, atol=1e-12)
        rows, columns = (np.arange(k) * d + at * s for k, d, at, s in
                         zip(layer.kernel_size, layer.dilation, cell, layer.stride, strict=True))  # fmt: skip
        np.testing.assert_array_equal(found.padded, ~inside[np.ix_(rows, columns)])
        first = channel * layer.groups // 8 * (4 // layer.groups)
        assert [below.channel for below in found.below] == list(range(first, first + 4 // layer.groups))
        assert {below.site for below in found.below} == {""}  # the photo
        for one, products, patch in zip(found.below, found.products, found.patch, strict=True):
            assert one.cell is not None
            real = products[(patch != 0) | (found.cells[..., 0] >= 0)]
            at = patch[tuple(np.argwhere(np.abs(products) == np.abs(real).max())[0])]
            assert float(PHOTO[(0, one.channel, *one.cell)]) == at == one.value


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"kernel_size": (2, 3), "stride": 2, "padding": 1, "output_padding": 1},
     {"kernel_size": 3, "stride": (3, 1), "dilation": 2, "groups": 2, "padding": (1, 2)}],
)  # fmt: skip
def test_a_transposed_convolution_reads_the_cells_that_reach_it(options: dict[str, Any]) -> None:
    layer = seeded(nn.ConvTranspose2d(4, 6, **options)).double()
    output, weight, count = layer(PHOTO).detach()[0], layer.weight.detach().numpy(), 4 // layer.groups
    for channel, cell in itertools.product((0, 4), ((0, 0), (3, 4), (output.shape[1] - 1, output.shape[2] - 1))):
        first = channel // (6 // layer.groups) * count
        expected = np.zeros((count, *layer.kernel_size))
        reached = np.zeros(layer.kernel_size, bool)
        for c, a, b, i, j in itertools.product(range(count), *map(range, layer.kernel_size), *map(range, (9, 11))):
            row, column = (
                n * layer.stride[k] - layer.padding[k] + t * layer.dilation[k]
                for k, (n, t) in enumerate(((i, a), (j, b)))
            )
            if (row, column) == cell:
                reached[a, b] = True
                part = weight[first + c, channel % (6 // layer.groups), a, b] * float(PHOTO[0, first + c, i, j])
                expected[c, a, b] += part
        found = apart(nn.Sequential(layer), Unit("0", channel, cell))
        np.testing.assert_allclose(found.products, expected, rtol=1e-13, atol=0)
        np.testing.assert_array_equal(found.padded, ~reached)
        assert found.error < 1e-12
        assert found.value == float(output[(channel, *cell)])


def test_norm_and_activation_follow_the_sum() -> None:
    norm = nn.BatchNorm2d(3)
    module = seeded(nn.Sequential(nn.Conv2d(4, 3, 3), norm, nn.SiLU(inplace=True)))
    for parameter in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert parameter is not None
        nn.init.uniform_(parameter, 0.5, 2)
    found = apart(module, Unit("2", 1, (2, 3)))
    z = float(module[0](PHOTO)[0, 1, 2, 3])
    scale = float(norm.weight[1] / (norm.running_var[1] + norm.eps).sqrt())  # type: ignore[index]
    shift = float(norm.bias[1] - scale * norm.running_mean[1])  # type: ignore[index]
    assert found.total == z
    assert [stage.name for stage in found.stages] == ["1", "2"]
    normed, activated = found.stages
    np.testing.assert_allclose((normed.scale, normed.shift, normed.before), (scale, shift, z), rtol=1e-12)
    np.testing.assert_allclose(normed.after, z * scale + shift, rtol=1e-12)
    assert activated.before == normed.after
    np.testing.assert_allclose(activated.after, normed.after / (1 + np.exp(-normed.after)), rtol=1e-12)
    assert found.value == activated.after
    assert np.isnan([activated.scale, normed.mean]).all()


@pytest.mark.parametrize(
    ("norm", "over"),
    [(nn.GroupNorm(2, 4), (slice(2, 4), slice(None), slice(None))), (nn.InstanceNorm2d(4), (3, slice(None), slice(None))),
     (nn.BatchNorm2d(4, track_running_stats=False), (3, slice(None), slice(None))),
     (nn.LayerNorm([4, 9, 11]), (slice(None),) * 3)],
)  # fmt: skip
def test_norms_by_the_photo_tell_its_mean_and_deviation(norm: nn.Module, over: Any) -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1), norm)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2)
    (stage,) = apart(module, Unit("1", 3, (2, 3))).stages
    sums = module[0](PHOTO).detach()[0].numpy()
    np.testing.assert_allclose(stage.mean, sums[over].mean(), rtol=1e-12)
    np.testing.assert_allclose(stage.deviation, np.sqrt(sums[over].var() + 1e-5), rtol=1e-12)
    np.testing.assert_allclose(stage.before * stage.scale + stage.shift, stage.after, rtol=1e-11)
    assert stage.after == float(module(PHOTO).detach()[0, 3, 2, 3])


def test_a_linear_layer_behind_a_flattening_reads_the_map_channel_by_channel() -> None:
    module = seeded(
        nn.Sequential(nn.Conv2d(4, 3, 2), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten(), nn.Linear(240, 5))
    )
    found = apart(module, Unit("4", 2))
    maps = module[:2](PHOTO).detach()[0].numpy()
    np.testing.assert_array_equal(found.patch, maps)
    np.testing.assert_array_equal(found.weights, module[4].weight.detach().numpy()[2].reshape(3, 8, 10))
    for channel, below in enumerate(found.below):
        row, column = np.unravel_index(np.abs(found.products[channel]).argmax(), (8, 10))
        assert below == ("1", channel, (row, column), maps[channel, row, column])
    assert found.error < 1e-12
    assert not found.padded.any()


def test_a_max_pool_shows_its_window_and_the_winner_that_torch_picks() -> None:
    photo = torch.zeros(1, 4, 9, 11, dtype=torch.float64)
    photo[0, 1, 3:6, 3:6] = 2  # nine equal ones
    module = nn.Sequential(nn.Identity(), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    for cell in ((2, 2), (0, 0), (4, 5)):
        found = apart(nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True)), Unit("0", 1, cell), photo)
        winner = int(F.max_pool2d(photo, 3, 2, 1, ceil_mode=True, return_indices=True)[1][(0, 1, *cell)])
        assert found.below[0].cell == divmod(winner, 11)
        assert (found.weights == 1).sum() == 1
        assert found.value == found.contributions.sum() == float(module(photo)[(0, 1, *cell)])
        rows, columns = ({n for n in range(2 * at - 1, 2 * at + 2) if 0 <= n < size} for at, size in
                         zip(cell, (9, 11), strict=True))  # fmt: skip
        assert {tuple(cell) for cell in found.cells.reshape(-1, 2).tolist()} == set(itertools.product(rows, columns))


@pytest.mark.parametrize(
    ("function", "name", "shares"),
    [(lambda m, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "avg_pool2d", 4),
     (lambda m, x: x.mean((2, 3), keepdim=True), "mean", 99),
     (lambda m, x: F.adaptive_avg_pool2d(x, (2, 3)), "adaptive_avg_pool2d", 20)],
)  # fmt: skip
def test_means_have_equal_shares(function: Any, name: str, shares: int) -> None:
    found = apart(Run(function), Unit(name, 1, (0, 0)))
    np.testing.assert_allclose(found.weights, 1 / shares, rtol=1e-14)
    assert found.weights.size == shares
    np.testing.assert_array_equal(found.patch[0], PHOTO[0, 1][np.ix_(found.cells[:, 0, 0], found.cells[0, :, 1])])
    assert [below.channel for below in found.below] == [1]
    assert found.error < 1e-14


def test_an_addition_has_two_sides_and_a_subtraction_a_minus() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        a = self.a(x)
        a += self.b(x)
        return torch.sub(F.relu(a), self.b(x), alpha=2)

    module = seeded(Run(run, a=nn.Conv2d(4, 3, 1), b=nn.Conv2d(4, 3, 1))).double()
    a, b = module.a(PHOTO).detach()[0], module.b(PHOTO).detach()[0]
    found = apart(module, Unit("relu", 2, (4, 5)))
    np.testing.assert_allclose(found.contributions, [a[2, 4, 5], b[2, 4, 5]], rtol=1e-14)
    assert [(one.site, one.channel, one.cell) for one in found.below] == [("a", 2, (4, 5)), ("b", 2, (4, 5))]
    assert [stage.words for stage in found.stages] == ["ReLU"]
    found = apart(module, Unit("sub", 2, (4, 5)))
    np.testing.assert_allclose(
        found.contributions, [float((a + b).relu()[2, 4, 5]), -2 * float(b[2, 4, 5])], rtol=1e-14
    )
    assert [one.site for one in found.below] == ["relu", "b_1"]


def test_a_gate_a_concatenation_and_a_softmax() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.gate(x.mean((2, 3), keepdim=True)).sigmoid() * x
        x = torch.cat([x, self.conv(x[:, :2].repeat(1, 2, 1, 1))], 1)
        return x.amax((2, 3)).softmax(1)

    module = seeded(Run(run, conv=nn.Conv2d(4, 4, 1), gate=nn.Conv2d(4, 4, 1))).double()
    found = apart(module, Unit("mul", 3, (4, 5)))
    assert found.gate is not None
    assert (found.below[0].site, found.gate.site, found.gate.cell) == ("conv", "sigmoid", (0, 0))
    np.testing.assert_allclose(found.below[0].value * found.gate.value, found.value, rtol=1e-15)
    np.testing.assert_allclose(found.contributions, [found.value], rtol=1e-15)
    for channel, site, own in ((1, "mul", 1), (6, "conv_1", 2)):
        found = apart(module, Unit("cat", channel, (0, 1)))
        assert (found.below[0].site, found.below[0].channel, found.below[0].cell) == (site, own, (0, 1))
    found = apart(module, Unit("conv_1", 1, (0, 1)))  # of channels 0, 1, 0, 1
    assert [(one.site, one.channel) for one in found.below] == [("mul", 0), ("mul", 1), ("mul", 0), ("mul", 1)]
    found = apart(module, Unit("softmax", 6))
    logits = found.patch.ravel()
    np.testing.assert_allclose(found.contributions, np.exp(logits - logits.max()), rtol=1e-14)
    np.testing.assert_allclose(found.value, np.exp(logits[6]) / np.exp(logits).sum(), rtol=1e-13)
    assert [one.site for one in found.below] == ["amax"] * 8


def test_in_place_writing_and_reuse_do_not_change_what_is_read() -> None:
    module, photo = seeded(Aliasing()).double(), PHOTO[:, :3]
    sums = module.conv(photo).detach()[0, 1]
    row, column = divmod(int(sums.argmin()), sums.shape[1])
    assert apart(module, Unit("conv", 1, (row, column)), photo).value == float(sums.min()) < 0
    assert apart(module, Unit("add", 1, (row, column)), photo).contributions.tolist() == [0, 0]

    def run(self: Any, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x))
        x[:, :2].relu_()
        x[:, 2, 1:3] = 7
        return self.conv(x)

    module = seeded(Run(run, conv=nn.Conv2d(4, 4, 3, padding=1))).double()
    with torch.no_grad():
        first = module.conv(PHOTO)
        second = module.conv(first)
        third = second.clone()
        third[:, :2].relu_()
        third[:, 2, 1:3] = 7
    found = apart(module, Unit("conv", 1, (2, 3)))
    np.testing.assert_array_equal(found.patch, PHOTO[0, :, 1:4, 2:5])
    found = apart(module, Unit("conv_1", 1, (2, 3)))
    np.testing.assert_array_equal(found.patch, first[0, :, 1:4, 2:5])
    found = apart(module, Unit("conv_2", 1, (2, 3)))
    np.testing.assert_array_equal(found.patch, third[0, :, 1:4, 2:5])
    assert found.error < 1e-12


def test_a_part_that_was_written_through_a_view_is_followed_into_the_view() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = self.conv(x)
        x[:, :2].relu_()
        x[:, 3] = 7
        return x * 2.0

    module = seeded(Run(run, conv=nn.Conv2d(4, 4, 1))).double()
    sums = module.conv(PHOTO).detach()[0]
    for channel, words in ((1, ["ReLU", "times a constant"]), (2, ["times a constant"])):
        found = apart(module, Unit("mul", channel, (2, 3)))
        assert found.total == float(sums[channel, 2, 3])
        assert [stage.words for stage in found.stages] == words
    found = apart(module, Unit("mul", 3, (2, 3)))
    assert (found.parts.kind, found.parts.bias, found.value) == ("constant", 7, 14)


def test_constants_are_scale_and_shift() -> None:
    each = torch.arange(4.0, dtype=torch.float64).reshape(4, 1, 1)

    def run(self: Any, x: Tensor) -> Tensor:
        return 1 - torch.add(x / 4 + each, 3, alpha=2)  # 1 - (x / 4 + channel + 6)

    found = apart(Run(run), Unit("sub", 3, (2, 3)))
    assert [(stage.scale, stage.shift) for stage in found.stages] == [(0.25, 0), (1, 3), (1, 6), (-1, 1)]
    assert [stage.told for stage in found.stages] == ["× 0.25", "+ 3", "+ 6", "× −1 + 1"]
    inverse = apart(Run(lambda self, x: 2 / x), Unit("rdiv", 0, (0, 0))).stages[0]
    assert np.isnan(inverse.scale)
    np.testing.assert_allclose(inverse.after, 2 / inverse.before)


def test_adaptive_max_pools_and_minima() -> None:
    found = apart(Run(lambda self, x: F.adaptive_max_pool2d(x, (2, 3))), Unit("adaptive_max_pool2d", 1, (1, 1)))
    window = PHOTO[0, 1, 4:9, 3:8]  # of 9 rows the last 5, of 11 columns those from 11/3 to 22/3, rounded outwards
    np.testing.assert_array_equal(found.patch[0], window)
    assert found.value == found.contributions.sum() == float(window.max())
    silent = PHOTO.clone()
    silent[0, 1, 4:6] = -torch.inf
    found = apart(Run(lambda self, x: F.max_pool2d(x, 3)), Unit("max_pool2d", 1, (1, 1)), silent)
    assert found.contributions.sum() == found.value == float(silent[0, 1, 3, 3:6].max())
    found = apart(Run(lambda self, x: x.amin((2, 3))), Unit("amin", 2))
    assert found.value == found.contributions.sum() == float(PHOTO[0, 2].min())
    found = apart(
        Run(lambda self, x: torch.maximum(x, self.conv(x)), conv=nn.Conv2d(4, 4, 1)), Unit("maximum", 2, (3, 4))
    )
    assert sorted(found.patch.ravel())[-1] == found.value == found.contributions.sum()


def test_a_changed_unit_is_taken_apart_as_it_was_changed() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))).double()
    site = {one.name: one for one in survey(module, PHOTO)}["0"]
    changed = intervene(module, [Change(site, (1,), "scale", 0.5), Change(site, (2,), "replace", 3.0)])
    found = apart(changed, Unit("2", 0, (2, 3)))
    clean = module[0](PHOTO).detach()[0, :, 2, 3].numpy() * [1, 0.5, 0] + [0, 0, 3]
    np.testing.assert_allclose(found.patch.ravel(), clean.clip(0), rtol=1e-15)
    found = apart(changed, Unit("0", 1, (2, 3)))
    assert [(stage.scale, stage.shift) for stage in found.stages] == [(0.5, 0)]
    assert found.value == clean[1]
    assert apart(changed, Unit("0", 2, (2, 3))).parts.kind == "constant"


def test_a_replaced_channel_is_still_one_of_its_layer() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(4, 3, 1), nn.Conv2d(3, 2, 3, padding=1))).double()
    site = {one.name: one for one in survey(module, PHOTO)}["0"]
    found = apart(intervene(module, [Change(site, (2,), "replace", 3.0)]), Unit("1", 0, (0, 3)))
    assert [(one.site, one.channel) for one in found.below] == [("0", 0), ("0", 1), ("0", 2)]
    assert found.patch[2].tolist() == [[0, 0, 0], [3, 3, 3], [3, 3, 3]]
    assert found.padded.tolist() == [[True] * 3, [False] * 3, [False] * 3]


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_padding_by_an_operation_of_its_own_is_padding(mode: str) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (2, 0, 1, 0), mode=mode).contiguous())

    module = seeded(Run(run, conv=nn.Conv2d(4, 2, 3, stride=2))).double()
    found = apart(module, Unit("conv", 1, (0, 1)))
    assert found.padded.tolist() == [[True] * 3, [False] * 3, [False] * 3]
    np.testing.assert_array_equal(found.patch[:, 1:], PHOTO[0, :, :2, :3])
    np.testing.assert_array_equal(found.patch[:, 0], PHOTO[0, :, 1, :3] if mode == "reflect" else np.zeros((4, 3)))
    assert found.cells[1:, :, 0].tolist() == [[0] * 3, [1] * 3]
    assert found.cells[1:, :, 1].tolist() == [[0, 1, 2]] * 2


def test_what_a_move_fills_up_with_is_a_constant() -> None:
    for cell, kind in (((0, 1), "constant"), ((0, 0), "photo")):
        found = apart(Run(lambda self, x: x.tril()), Unit("tril", 0, cell))
        assert found.parts.kind == kind
        assert found.value == (0 if kind == "constant" else float(PHOTO[0, 0, 0, 0]))


def test_where_all_products_are_zero_the_way_on_is_a_real_cell() -> None:
    found = apart(seeded(nn.Sequential(nn.Conv2d(4, 2, 3, padding=1))), Unit("0", 0, (0, 0)), torch.zeros(1, 4, 5, 5))
    assert {one.cell for one in found.below} == {(0, 0)}


def test_one_and_three_dimensions_and_layers_of_one_cell() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        rows = self.line(x.flatten(2))  # [1 3 97]
        solid = self.solid(x[:, :, None])  # [1 3 1 7 9]
        return self.last(torch.cat([rows.mean(2), solid.flatten(2).amax(2)], 1)[..., None, None])

    module = Run(run, line=nn.Conv1d(4, 3, 3), solid=nn.Conv3d(4, 3, (1, 3, 3)), last=nn.Conv2d(6, 2, 1))
    module = seeded(module).double()
    found = apart(module, Unit("amax", 1))
    solid = module.solid(PHOTO[:, :, None]).detach()[0, 1, 0]
    assert found.value == float(solid.max())
    found = apart(module, Unit("last", 1, (0, 0)))
    assert found.products.shape == (6, 1, 1)
    assert found.error < 1e-14
    found = apart(module, Unit("line", 50, (0, 2)))  # the engine takes `[1 3 97]` for three tokens
    assert found.products.shape == (4, 1, 3)
    np.testing.assert_array_equal(found.patch[:, 0], PHOTO[0].flatten(1)[:, 50:53])
    assert found.cells[0].tolist() == [[4, 6], [4, 7], [4, 8]]
    two = seeded(nn.Sequential(nn.Conv2d(4, 2, (9, 11)), nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1))).double()
    for name in "0", "1", "2", "3":
        found = apart(two, Unit(name, 1, (0, 0) if name == "0" else None))
        assert found.error < 1e-14
        assert found.value == float(two[: int(name) + 1](PHOTO).detach().flatten()[1])


def test_a_dropout_that_is_on_is_a_stage() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return F.dropout(self.conv(x), 0.5, training=True)

    found = apart(seeded(Run(run, conv=nn.Conv2d(4, 2, 1))), Unit("dropout", 1, (2, 3)))
    assert found.value in (0, 2 * found.total)
    assert [(one.words, one.before, one.after) for one in found.stages] == [("dropout", found.total, found.value)]


def test_what_is_no_sum_is_named() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return (self.conv(x).flatten(2) @ x.flatten(2).transpose(1, 2)).softmax(-1)

    with pytest.raises(VizError, match=r"'matmul' in 'matmul', which is no sum"):
        apart(Run(run, conv=nn.Conv2d(4, 4, 1)), Unit("matmul", 0, (0, 0)))


@pytest.mark.parametrize("chosen", [
    lambda x: torch.where(x > 0.3, x, x * 0.5), lambda x: x.masked_fill(x < 0, -1.0), lambda x: torch.where(x > 0, x, 0.0),
])  # fmt: skip
def test_numbers_chosen_by_a_mask_are_followed_through_the_sum_behind_it(chosen: Any) -> None:
    torch.manual_seed(0)
    module = Run(lambda self, x: F.max_pool2d(chosen(self.first(x)), 2), first=nn.Conv2d(4, 3, 3))
    found = apart(module, Unit("max_pool2d", 1, (1, 2)))
    expected = chosen(module.first(PHOTO))[0, 1, 2:4, 4:6]
    assert found.value == float(expected.max().detach())
    np.testing.assert_array_equal(
        found.patch[found.patch != 0], expected.detach().numpy()[expected.detach().numpy() != 0]
    )


def test_complex_numbers_are_refused_and_infinite_ones_answered() -> None:
    module = Run(lambda self, x: torch.fft.fft2(x).abs())
    with pytest.raises(VizError, match="fft2"):
        apart(module, Unit("abs", 1, (1, 2)))
    torch.manual_seed(0)
    module = Run(lambda self, x: self.last(torch.log(x).flatten(1)), last=nn.Linear(4 * 9 * 11, 2))
    found = apart(module, Unit("last", 0))
    assert np.isnan(found.value)
    assert np.isnan(found.patch).sum() == int((PHOTO < 0).sum())
