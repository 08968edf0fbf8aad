"""The kinds of attribution: what all have, and the two that know nothing of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.methods.test_memory import Convolutions
from tests.networks import seeded
from vizapp.engine.memory.chunks import DoesNotFit
from vizapp.errors import VizError
from vizapp.methods.attribution import KINDS, AttributionParams
from vizapp.methods.params import knobs
from vizapp.references import CITATION, LINKS, key

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)


def small() -> vizapp.Network:
    layers = [nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return vizapp.wrap(seeded(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4))), input_size=(3, 24, 40))


class Attending(nn.Module):
    """Patches, a block of attention, their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 8, 8), nn.LayerNorm(8), nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x)[0]).mean(1))


def network_for(kind: str) -> vizapp.Network:
    return vizapp.wrap(seeded(Attending()), input_size=(3, 24, 40)) if kind in {"rollout", "legrad"} else small()


def test_the_parameter_takes_exactly_the_kinds_in_their_order() -> None:
    assert tuple(knobs(AttributionParams)["kind"].choices) == tuple(KINDS)
    assert all(name == kind.key for name, kind in KINDS.items())


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_names_its_paper_and_a_caution_with_a_paper(name: str) -> None:
    kind = KINDS[name]
    for text in (kind.source, kind.caution):
        assert any(key(found) in LINKS for found in CITATION.finditer(text)), text
    assert kind.caution.endswith(".")


@pytest.mark.parametrize("name", KINDS)
def test_a_map_has_the_size_of_the_input_the_signs_that_it_declares_and_is_repeated_bit_for_bit(name: str) -> None:
    network = network_for(name)
    found = [
        vizapp.ask(
            "attribution", network, PICTURE, unit=vizapp.class_unit(network, class_), kind=name, steps=4, masks=8
        )
        for class_ in (0, 1, 2, 3, 0)
    ]
    maps = [each.arrays["attribution"] for each in found]
    assert all((values.shape, values.dtype) == ((24, 40), np.float32) for values in maps)
    assert all(np.isfinite(values).all() for values in maps)
    assert any(values.any() for values in maps)
    assert min(values.min() for values in maps) < 0 if KINDS[name].signed else all((v >= 0).all() for v in maps)
    np.testing.assert_array_equal(maps[0], maps[4])
    assert found[0].facts["limits"] == KINDS[name].caution


def test_random_numbers_are_uniform_and_follow_the_seed_alone() -> None:
    network = small()
    units = [vizapp.class_unit(network, 0), vizapp.Unit("1", 2)]
    maps = [
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind="random", seed=seed).arrays["attribution"]
        for seed in (0, 1) for unit in units
    ]  # fmt: skip
    np.testing.assert_array_equal(maps[0], maps[1])
    assert abs(float(np.corrcoef(maps[0].ravel(), maps[2].ravel())[0, 1])) < 0.1
    for values in maps:
        assert 0 <= values.min() < 0.02
        assert 0.98 < values.max() < 1
        counts = np.histogram(values, 10, (0, 1))[0]
        assert ((counts - 96) ** 2 / 96).sum() < 27.9, "chi-square with 9 degrees of freedom, 0.1 %"


def test_edges_are_the_sobel_gradient_of_the_photo_that_the_network_sees() -> None:
    network = small()
    seen = network.seen(PICTURE).astype(float) / 255
    grey = np.pad(seen @ np.array([0.299, 0.587, 0.114]), 1, mode="edge")
    expected = np.zeros((24, 40))
    for row in range(24):
        for column in range(40):
            cell = grey[row : row + 3, column : column + 3]
            across = (cell[:, 2] - cell[:, 0]) @ [1, 2, 1]
            down = (cell[2] - cell[0]) @ [1, 2, 1]
            expected[row, column] = np.hypot(across, down)
    result = vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), kind="edges")
    np.testing.assert_allclose(result.arrays["attribution"], expected, atol=0.02)  # levels are rounded on the way
    flat = vizapp.ask(
        "attribution", network, np.full((50, 50, 3), 90, np.uint8), unit=vizapp.Unit("1", 0), kind="edges"
    )
    assert not flat.arrays["attribution"].any()


# ---------------------------------------------------------------------------------- one function, written in several ways


class Written(nn.Module):
    """Three convolutions with rectifiers and a max pool, the rectifiers written as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 8, 3)
        self.relus = nn.ModuleList(nn.ReLU(inplace=how == "modules in place") for _ in range(3))
        self.head, self.how, self.count = nn.Linear(8, 4), how, 0

    def rectified(self, x: Tensor, number: int) -> Tensor:
        if self.how in {"modules", "modules in place"}:
            return self.relus[number](x)
        if self.how == "one module":
            return self.relus[0](x)
        if self.how == "in place":
            return F.relu(x, inplace=True)
        if self.how == "method in place":
            return x.relu_()
        return {"functional": F.relu, "clamp": lambda x: x.clamp(min=0)}[self.how](x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rectified(self.a(x), 0)
        x = F.max_pool2d(x + self.rectified(self.b(x), 1), 3, 2, 1)
        return self.head(self.rectified(self.c(x), 2).mean((2, 3)))


@pytest.mark.parametrize(
    "how", ["functional", "one module", "modules in place", "in place", "method in place", "clamp"]
)
def test_a_network_has_the_same_maps_however_its_rectifiers_are_written(how: str) -> None:
    networks = [vizapp.wrap(seeded(Written(each)), input_size=(3, 24, 40)) for each in ("modules", how)]
    for name in KINDS:
        found = []
        for network in networks:
            try:
                unit = vizapp.class_unit(network, 1)
                result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind=name, steps=4, masks=40)
                found.append(result.arrays["attribution"])
            except VizError as error:
                found.append(error.code)
        if isinstance(found[0], str):
            assert found[0] == found[1]
            continue
        assert not isinstance(found[1], str), f"{name}: {found[1]}"
        assert found[0].any(), name
        np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-6 * np.abs(found[0]).max(), err_msg=name)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("rollout", "legrad")])  # without attention
def test_a_kind_that_runs_out_of_memory_is_tried_with_fewer_pictures_at_once_or_told(name: str) -> None:
    network = small()

    def asked() -> np.ndarray:
        unit = vizapp.class_unit(network, 1)
        return vizapp.ask("attribution", network, PICTURE, unit=unit, kind=name, steps=9, masks=40).arrays[
            "attribution"
        ]

    whole = asked()
    with pytest.raises(DoesNotFit), Convolutions(0):
        asked()
    alone = 3 * 24 * 40  # numbers of one picture
    if name == "deeplift":  # of two pictures at once
        with pytest.raises(DoesNotFit), Convolutions(alone):
            asked()
        alone *= 2
    with Convolutions(alone):
        np.testing.assert_allclose(asked(), whole, rtol=1e-4, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize("name", [name for name in KINDS if name not in {"random", "edges"}])
def test_a_map_that_is_not_finite_is_refused(name: str) -> None:
    network = network_for(name)
    with torch.no_grad():
        next(network.module.parameters())[0, 0, 0, 0] = float("nan")
    with refuses("not-finite", name, "gives nan"):
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), kind=name, steps=4, masks=8)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "rise", "occlusion", "lrp"])
def test_a_map_of_an_infinite_unit_is_refused(name: str) -> None:
    network = small()
    with torch.no_grad():
        [*network.module.parameters()][-1][1] = float("inf")
    with refuses("not-finite", name, "gives inf"):
        vizapp.ask("attribution", network, PICTURE, unit=vizapp.class_unit(network, 1), kind=name, masks=8)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 6, 5, 2), nn.Conv2d(6, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(F.relu(self.one(2 * x - 1)))).mean((2, 3)))


class Writing(Plain):
    """The same, but it writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(F.relu(self.one(x.mul_(2).sub_(1))))).mean((2, 3)))


class OneAtATime(Plain):
    """The same, but it refuses several photos."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 1, "one at a time"
        return super().forward(x)


class Mixing(Plain):
    """The same of one photo, but of several it mixes the photos."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + (len(x) - 1) * x.mean(0, keepdim=True))


@pytest.mark.parametrize("written", [Writing, OneAtATime, Mixing])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in {"rollout", "legrad"}])
def test_writing_into_the_input_or_taking_one_photo_at_a_time_changes_no_map(name: str, written: type[Plain]) -> None:
    plain, other = (vizapp.wrap(seeded(kind()), input_size=(3, 16, 16)) for kind in (Plain, written))

    def ask(network: vizapp.Network) -> np.ndarray:
        unit = vizapp.class_unit(network, 1)
        return vizapp.ask("attribution", network, PICTURE, unit=unit, kind=name, steps=4, masks=8).arrays["attribution"]

    if name == "deeplift" and written is not Writing:
        with refuses("one-at-a-time", "choose another kind"):
            ask(other)
        return
    if name == "lrp" and written is Mixing:
        return  # it hands its shares to the mean, too
    expected = ask(plain)
    np.testing.assert_allclose(ask(other), expected, atol=1e-4 * np.abs(expected).max())


class Detached(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


@pytest.mark.parametrize(
    ("module", "unit", "code", "told"),
    [
        (None, vizapp.Unit("0", 0, (0, 0)), "no-feature-map", "choose a later unit"),
        (Detached, vizapp.Unit("head", 0), "detached-unit", "no_grad"),
    ],
)
@pytest.mark.parametrize("name", ["gradcam", "guided_gradcam"])
def test_a_unit_without_a_layer_to_explain_is_told_why(
    name: str, module: type[Plain] | None, unit: vizapp.Unit, code: str, told: str
) -> None:
    network = small() if module is None else vizapp.wrap(seeded(module()), input_size=(3, 24, 40))
    with refuses(code, told):
        vizapp.ask("attribution", network, PICTURE, unit=unit, kind=name)
