"""Activation maximization on networks whose optimal inputs are known by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.errors import refuses
from tests.networks import Branching, Detectors, seeded
from vizapp.engine.optimize import activation_maximization
from vizapp.engine.optimize.activation_maximization import (
    MaximizedImages,
    OptimizationConfig,
    Target,
    _gram_similarity,
    _variation,
    maximize,
)
from vizapp.engine.optimize.image_parametrization import ImageParam, seed_of
from vizapp.engine.trace.sites import Unit, survey


def painted(
    module: nn.Module, units: Sequence[Unit | Target], canvas: ImageParam, ascent: OptimizationConfig | None = None,
    dtype: torch.dtype = torch.float32, tick=None,  # type: ignore[no-untyped-def]
) -> MaximizedImages:  # fmt: skip
    sites = survey(module, torch.zeros(1, canvas.channels, canvas.height, canvas.width, dtype=dtype))
    targets = [unit if isinstance(unit, Target) else Target(unit) for unit in units]
    return maximize(module, lambda p: (p - 0.5) / 0.25, targets, sites, canvas, ascent, dtype=dtype, tick=tick)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    ("canvas", "ascent"),
    [
        (ImageParam(3, 15, 15, "pixels", False), OptimizationConfig(steps=96)),
        (ImageParam(3, 15, 15, "pixels", False, contrast=1.0), OptimizationConfig(l2=3.0, steps=96)),
        (ImageParam(3, 15, 15, "fourier", False), OptimizationConfig(l2=3.0, steps=96)),
        (ImageParam(3, 15, 15), OptimizationConfig(l2=3.0)),
    ],
)
def test_a_gabor_filters_and_a_colour_blobs_ideal_input_is_that_pattern(
    canvas: ImageParam, ascent: OptimizationConfig
) -> None:
    module = Detectors()
    found = painted(module, [Unit("relu", 0), Unit("relu", 1)], canvas, ascent)
    for picture, kernel in zip(found.pictures, module.see.weight, strict=True):
        assert correlation(picture, kernel) >= 0.95
    assert (found.activations > 50 * found.initial_activations.abs()).all()


def test_in_a_larger_picture_the_pattern_is_where_the_cell_looks() -> None:
    module = Detectors()
    canvas = ImageParam(3, 40, 40)
    found = painted(module, [Unit("see", 0, (3, 20)), Unit("see", 1, (3, 20))], canvas, OptimizationConfig(steps=96))
    for picture, kernel in zip(found.pictures, module.see.weight, strict=True):
        assert correlation(picture[:, 3:18, 20:35], kernel) >= 0.95
    middle = painted(module, [Unit("see", 0)], canvas, OptimizationConfig(extent="cell", steps=96)).pictures[0]
    assert correlation(middle[:, 13:28, 13:28], module.see.weight[0]) >= 0.95


def test_a_direction_is_climbed_as_the_weighted_sum_of_its_channels() -> None:
    module = Detectors()
    direction = Target(Unit("see", 0), ((0, 0.5), (1, -1.0)))
    found = painted(
        module,
        [direction, Unit("see", 1)],
        ImageParam(3, 15, 15, "pixels", False),
        OptimizationConfig(l2=3.0, steps=96),
    )
    mixed = 0.5 * module.see.weight[0] - module.see.weight[1]
    assert correlation(found.pictures[0], mixed) >= 0.95
    assert correlation(found.pictures[1], module.see.weight[1]) >= 0.95


def test_the_objective_increases_for_maps_cells_and_classes_of_a_real_shape() -> None:
    module = seeded(Branching())
    canvas = ImageParam(3, 48, 40, jitter=2, zoom=0.05, turn=5)
    for site in ("stem", "cat", "relu_3", "head"):
        found = painted(module, [Unit(site, channel) for channel in range(4)], canvas, OptimizationConfig(steps=40))
        assert (found.activations > found.initial_activations).all(), site
        assert (found.curve[-5:].mean(0) > found.curve[:5].mean(0)).all(), site
    assert found.curve.shape == (40, 4)
    assert found.snapshots.shape == (5, 4, 3, 48, 40)
    assert list(found.snapshot_steps) == sorted(found.snapshot_steps)


def test_the_curve_is_the_activation_that_the_network_computes() -> None:
    module = Detectors()
    found = painted(module, [Unit("see", 0)], ImageParam(3, 15, 15), OptimizationConfig(steps=5))
    assert found.curve[0, 0] == found.initial_activations[0]
    with torch.no_grad():
        assert module.see((found.pictures - 0.5) / 0.25)[0, 0, 0, 0] == pytest.approx(
            float(found.activations[0]), rel=1e-5
        )


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    canvas, unit = ImageParam(3, 32, 32, jitter=2, turn=5), [Unit("stem", 1)]
    first, again, other = (
        painted(seeded(Branching()), unit, canvas, OptimizationConfig(steps=12, seed=s)) for s in (3, 3, 4)
    )
    assert torch.equal(first.pictures, again.pictures)
    assert torch.equal(first.curve, again.curve)
    assert (first.pictures - other.pictures).abs().mean() > 0.005


@pytest.mark.parametrize("site", ["cat", "head"])
def test_a_units_picture_does_not_depend_on_the_others_in_the_batch(site: str) -> None:
    """In double precision to rounding, which the steps amplify; in single precision by little that can be seen."""
    canvas = ImageParam(3, 32, 32, jitter=2, zoom=0.05, turn=5)
    ascent = OptimizationConfig(steps=12, restarts=2, diversity=0.5)
    units = [Unit(site, channel) for channel in range(5)]
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 0.02)):
        module = seeded(Branching()).to(dtype)
        together = painted(module, units, canvas, ascent, dtype)
        for number in (0, 3):
            alone = painted(module, [units[number]], canvas, ascent, dtype)
            difference = (alone.pictures - together.pictures[2 * number : 2 * number + 2]).abs()
            assert difference.mean() < tolerance
        backwards = painted(module, units[::-1], canvas, ascent, dtype)
        assert (backwards.pictures[-2:] - together.pictures[:2]).abs().mean() < tolerance


def test_a_unit_that_is_silent_at_first_is_woken() -> None:
    class Shy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Detectors().see, Detectors().see
            with torch.no_grad():
                self.one.bias.fill_(-6.0)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return torch.cat([torch.relu(self.one(x)), self.two(x)], 1)

    sizes: list[int] = []
    module = Shy().eval().requires_grad_(False)
    canvas = ImageParam(3, 24, 24)
    # What goes into the rectifier is climbed; behind the concatenation, noise is tried.
    for site, other in (("relu", 1), ("cat", 2)):
        found = painted(module, [Unit(site, 0), Unit(site, other)], canvas, OptimizationConfig(steps=48))
        assert (found.activations > 1).all(), site
    assert sizes.count(1) > 4, "noise is tried for the silent unit alone; four passes find layers and norms"


def test_diversity_pushes_restarts_apart() -> None:
    module = seeded(Branching())
    canvas, units = ImageParam(3, 48, 48), [Unit("cat", 1), Unit("cat", 5)]
    likeness = {}
    for weight in (0.0, 2.0):
        found = painted(module, units, canvas, OptimizationConfig(steps=40, restarts=3, diversity=weight))
        assert len(found.pictures) == 6
        with torch.no_grad():
            maps = module.pool(module.relu(module.stem((found.pictures - 0.5) / 0.25)))
            maps = torch.cat([torch.relu(module.left(maps)), torch.relu(module.right(maps))], 1).flatten(2)
            gram = nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        likeness[weight] = float(_gram_similarity(gram, 3).mean())
        pairs = [float(gram[i] @ gram[j]) for i in range(3) for j in range(3) if i != j]
        assert float(_gram_similarity(gram, 3)[:3].mean()) == pytest.approx(sum(pairs) / 6, rel=1e-5)
    assert likeness[2.0] < likeness[0.0] - 0.02


def test_total_variation_and_l2_do_what_they_are_for() -> None:
    def steps(pictures: Tensor) -> float:
        return float(pictures.diff(dim=2).abs().mean() + pictures.diff(dim=3).abs().mean())

    module, canvas, unit = seeded(Branching()), ImageParam(3, 32, 32, contrast=1.0), [Unit("head", 2)]
    plain = painted(module, unit, canvas, OptimizationConfig(steps=60)).pictures
    smooth = painted(module, unit, canvas, OptimizationConfig(steps=60, variation=1.0)).pictures
    pale = painted(module, unit, canvas, OptimizationConfig(steps=60, l2=3.0)).pictures
    assert steps(smooth) < 0.7 * steps(plain)
    assert (pale - 0.5).square().mean() < 0.5 * (plain - 0.5).square().mean()


@pytest.mark.parametrize("side", [15, 40])
@pytest.mark.slow
def test_l2_alone_decides_a_linear_units_contrast_however_little_of_the_picture_it_sees(side: int) -> None:
    """The mean of l2 d² - d·u, with u of root mean square 1, is least at d = u / (2 l2)."""
    canvas = ImageParam(3, side, side, "pixels", False, contrast=1.0)
    found = painted(Detectors(), [Unit("see", 0, (0, 0))], canvas, OptimizationConfig(l2=3.0))
    inside = (found.pictures[0, :, :15, :15] - 0.5).square().mean().sqrt()
    assert float(inside) == pytest.approx(1 / 6, rel=0.03)


def test_total_variation_is_the_mean_difference_of_neighbours_down_and_across() -> None:
    pictures = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    for picture, found in zip(pictures, _variation(pictures), strict=True):
        steps = [
            abs(float(picture[c, y, x] - picture[c, y - 1, x])) for c in range(3) for y in range(1, 5) for x in range(7)
        ]
        steps += [
            abs(float(picture[c, y, x] - picture[c, y, x - 1])) for c in range(3) for y in range(5) for x in range(1, 7)
        ]
        assert float(found) == pytest.approx(sum(steps) / picture.numel(), rel=1e-3)


def test_contrast_is_limited_over_what_the_unit_sees() -> None:
    found = painted(
        Detectors(), [Unit("see", 0, (0, 0))], ImageParam(3, 30, 30, contrast=0.1), OptimizationConfig(steps=64)
    )
    inside = (found.pictures[0, :, :15, :15] - 0.5).square().mean().sqrt()
    assert 0.08 < inside <= 0.1
    assert (found.pictures[0, :, 15:, 15:] - 0.5).square().mean().sqrt() < 0.03


def test_targets_of_no_layer_or_of_several_are_answered_with_a_sentence() -> None:
    module = seeded(Branching())
    sites, canvas = survey(module, torch.zeros(1, 3, 32, 32)), ImageParam(3, 32, 32)
    for names, code in ((["boddy"], "no-such-layer"), (["stem", "body"], "several-layers")):
        with refuses(code, *names):
            maximize(
                module,
                lambda p: p,
                [Target(Unit(name, 0)) for name in names],
                sites,
                canvas,
                OptimizationConfig(steps=1),
            )


def test_the_pass_ends_at_the_layer_and_the_network_is_left_as_it_was() -> None:
    module = seeded(Branching())
    module.body.forward = lambda x: [x + 0, pytest.fail("ran on")]  # type: ignore[method-assign]
    canvas = ImageParam(3, 16, 16)
    sites = survey(seeded(Branching()), torch.zeros(1, 3, 16, 16))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    maximize(module, lambda p: p, [Target(Unit("cat", 0))], sites, canvas, OptimizationConfig(steps=2))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())
    assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())


def test_unfinished_pictures_are_those_after_as_many_steps_as_told() -> None:
    module = Detectors()
    found = painted(module, [Unit("see", 0)], ImageParam(3, 15, 15), OptimizationConfig(steps=20, snapshots=5))
    assert found.snapshot_steps == (4, 8, 12, 16)
    with torch.no_grad():
        reached = [float(module.see((stage - 0.5) / 0.25)[0, 0, 0, 0]) for stage in found.snapshots]
    assert reached == pytest.approx([float(found.curve[steps, 0]) for steps in found.snapshot_steps], rel=1e-4)


def test_units_are_painted_together_and_in_parts_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(Detectors):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x)

    sizes: list[int] = []
    shares: list[float] = []
    module = Counting()
    units = [Unit("see", 0), Unit("see", 1)]
    together = painted(module, units, ImageParam(3, 15, 15), OptimizationConfig(steps=7))
    assert set(sizes[2:]) == {2}, "the first passes find the layers and the norms"
    sizes.clear()
    monkeypatch.setitem(activation_maximization._BEST_CHUNK, "cpu", 1)
    apart = painted(module, units, ImageParam(3, 15, 15), OptimizationConfig(steps=7), tick=shares.append)
    assert set(sizes) == {1}
    assert shares == pytest.approx([(i + 1) / 14 for i in range(14)])
    torch.testing.assert_close(apart.pictures, together.pictures, atol=1e-3, rtol=0)
    sizes.clear()
    monkeypatch.setattr(activation_maximization, "chunk_size", lambda *_: 3)
    four = [Target(Unit("see", 0), ((0, 1.0), (1, share))) for share in (0.0, 0.1, 0.2, 0.3)]
    painted(module, four, ImageParam(3, 15, 15), OptimizationConfig(steps=1))
    assert set(sizes[2:]) == {2}, "four fit as twice two, not as three and one"


def test_a_network_may_write_into_its_input() -> None:
    class Writing(Detectors):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    found = []
    for module in (Writing(), Detectors()):
        sites = survey(module, torch.zeros(1, 3, 15, 15))
        target = [Target(Unit("see", 0))]
        found.append(
            maximize(module, lambda p: p, target, sites, ImageParam(3, 15, 15), OptimizationConfig(steps=5)).activations
        )
    assert float(found[0]) > float(found[1]) > 0


def test_progress_is_told_and_leaving_passes_through() -> None:
    shares: list[float] = []
    painted(Detectors(), [Unit("see", 0)], ImageParam(3, 15, 15), OptimizationConfig(steps=7), tick=shares.append)
    assert shares == pytest.approx([(i + 1) / 7 for i in range(7)])

    class Leave(BaseException):
        pass

    def leave(share: float) -> None:
        raise Leave

    with pytest.raises(Leave):
        painted(Detectors(), [Unit("see", 0)], ImageParam(3, 15, 15), OptimizationConfig(steps=7), tick=leave)


def test_a_cell_outside_of_the_map_is_told() -> None:
    with refuses("no-such-cell", "5,5", "6,0"):
        painted(Detectors(), [Unit("see", 0, (6, 0))], ImageParam(3, 20, 20))


# ------------------------------------------------------------------------------------------------------------ canvas


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 12), (7, 5)])
def test_the_spectrum_of_noise_falls_with_the_frequency(height: int, width: int) -> None:
    canvas = ImageParam(1, height, width, decorrelated=False)
    parameters = canvas.start(range(3), torch.device("cpu"), torch.float64)
    pictures = torch.logit(canvas.render(parameters, torch.zeros(3, dtype=torch.float64)))
    assert pictures.shape == (3, 1, height, width)
    found = torch.fft.rfft2(pictures, norm="ortho")[:, 0] * 4
    raw = torch.view_as_complex(parameters)[:, 0]
    row, column = 1, 2  # an inner frequency, of which no mirror image is in the half spectrum
    radius = ((row / height) ** 2 + (column / width) ** 2) ** 0.5
    torch.testing.assert_close(found[:, row, column], raw[:, row, column] / radius)
    torch.testing.assert_close(found[:, 0, 0].real, raw[:, 0, 0].real * max(height, width))


def test_movements_are_those_of_plain_geometry() -> None:
    canvas = ImageParam(1, 20, 30, jitter=3, turn=90)
    pictures = torch.rand(4, 1, 20, 30, dtype=torch.float64)
    draws = torch.tensor([[0, 0, 1.0, 0], [0, 0, 0, -1.0], [0, 0, 0, 0], [0, 0, 2 / 3, 1 / 3]], dtype=torch.float64)
    moved = canvas.transform(pictures, draws)
    torch.testing.assert_close(moved[0, :, :-3], pictures[0, :, 3:])
    torch.testing.assert_close(moved[0, :, -3:], pictures[0, :, -3:].flip(1))  # mirrored at the edge
    between = canvas.transform(
        pictures[:1], torch.tensor([[0, 0, 0.4, -0.8]], dtype=torch.float64)
    )  # 1.2 and -2.4 pixels
    torch.testing.assert_close(between[0, :, :-1, 2:], pictures[0, :, 1:, :-2])
    torch.testing.assert_close(moved[1, :, :, 3:], pictures[1, :, :, :-3])
    torch.testing.assert_close(moved[2], pictures[2])
    torch.testing.assert_close(moved[3, :, :-2, :-1], pictures[3, :, 2:, 1:])
    square = ImageParam(1, 9, 9, turn=90)
    turned = square.transform(pictures[:1, :, :9, :9], torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64))
    either = [torch.rot90(pictures[0, 0, :9, :9], k) for k in (1, -1)]
    assert min(float((turned[0, 0] - one).abs().max()) for one in either) < 1e-9
    wide = ImageParam(1, 20, 30, turn=90).transform(pictures[:1], torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64))
    middle = pictures[0, 0, :, 5:25]  # what of a wide picture is in the middle square turns without being squeezed
    assert min(float((wide[0, 0, :, 5:25] - torch.rot90(middle, k)).abs().max()) for k in (1, -1)) < 1e-9


def test_shakes_are_even_from_minus_one_to_one_and_each_pictures_own() -> None:
    canvas = ImageParam(1, 8, 8)
    draws = canvas.sample_transforms([5, 9], 400)
    assert draws.shape == (400, 2, 4)
    assert -1 <= draws.min() < -0.98
    assert 0.98 < draws.max() <= 1
    assert draws.mean((0, 1)).abs().max() < 0.1
    torch.testing.assert_close(canvas.sample_transforms([9], 400)[:, 0], draws[:, 1])
    assert not torch.equal(draws[:, 0], draws[:, 1])


def test_zoom_is_about_the_middle() -> None:
    ramp = torch.linspace(-1, 1, 21, dtype=torch.float64).expand(1, 1, 21, 21)
    larger = ImageParam(1, 21, 21, zoom=0.5).transform(ramp, torch.tensor([[0, -1.0, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(larger[0, 0, 10], 0.5 * ramp[0, 0, 10])


def test_seeds_are_the_same_in_every_run() -> None:
    assert seed_of(0, Target(Unit("a", 1)), 0) == seed_of(0, Target(Unit("a", 1)), 0)
    assert len({seed_of(s, Target(Unit("a", c)), r) for s in range(3) for c in range(3) for r in range(3)}) == 27
    assert seed_of("a") == 30839235370314820  # the first 7 bytes of sha256 of "('a',)"
