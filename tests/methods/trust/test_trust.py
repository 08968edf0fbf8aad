"""Method trust: a network whose true map is known, maps of the method attribution, folders, and what is not defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import Branching, seeded
from vizapp.__main__ import main
from vizapp.methods.base import Result
from vizapp.methods.sanity import randomised
from vizapp.methods.trust import TrustParams
from vizapp.methods.trust.deletion import area, blurred, pixel_ranks, replaced
from vizapp.methods.trust.road import combined, noise_like, removed
from vizapp.zoo.network import Network

SIDE, PATCH = 48, (10, 24, 24, 38)  # top, left, bottom, right
BOX = ",".join(map(str, PATCH))
ALL = ("deletion", "insertion", "road", "pointing", "completeness", "randomisation")


class Patch(nn.Module):
    """The first class looks at the mean of a patch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIDE * SIDE, 2)
        top, left, bottom, right = PATCH
        with torch.no_grad():
            weight = self.head.weight.zero_()[0].view(3, SIDE, SIDE)
            weight[:, top:bottom, left:right] = 20 / (3 * (bottom - top) * (right - left))
            self.head.bias.copy_(torch.tensor([-15.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def patch_network() -> Network:
    return vizapp.wrap(Patch(), (3, SIDE, SIDE), categories=("bright", "dark"), mean=0.0, std=1.0)


def bright(seed: int) -> np.ndarray:
    """A dark photo with strong texture, and a bright patch with little of it."""
    drawn = np.random.default_rng(seed)
    photo = drawn.integers(0, 130, (SIDE, SIDE, 3)).astype(np.uint8)
    top, left, bottom, right = PATCH
    photo[top:bottom, left:right] = drawn.integers(215, 256, (bottom - top, right - left, 3))
    return photo


@pytest.fixture(scope="module")
def network() -> Network:
    module = seeded(Branching())
    with torch.no_grad():
        module.head.weight *= 5
    return vizapp.wrap(module, (3, 40, 36), categories=list("abcde"))


def ask(network: Network, picture: Any = None, **more: Any) -> Result:
    return vizapp.ask("trust", network, picture, **more)


def folder_of(place: Path, photos: list[np.ndarray]) -> str:
    for number, pixels in enumerate(photos):
        (place / f"{number}.png").write_bytes(saved(pixels))
    return str(place)


@pytest.mark.parametrize("other", ["random", "edges"])
def test_the_map_that_is_true_by_construction_wins_every_measure(other: str) -> None:
    kinds = ("integrated_gradients", other)
    result = ask(patch_network(), bright(0), kinds=kinds, box=BOX)
    assert result.facts["measures"] == ",".join(ALL)
    true, poor = (dict(zip(ALL, row.tolist(), strict=True)) for row in result.arrays["scores"])
    assert true["deletion"] < poor["deletion"] - 0.2
    assert true["insertion"] > poor["insertion"] + 0.2
    assert true["road"] > poor["road"] + 0.1
    assert (true["pointing"], true["completeness"]) == (1, pytest.approx(0, abs=1e-4))
    assert np.isnan(poor["completeness"])
    assert poor["randomisation"] == 1
    assert true["randomisation"] < 0.5


def test_curves_and_scores_are_those_of_a_loop_over_the_definitions(network: Network) -> None:
    photo = noise(40, 36, seed=1)
    result = ask(network, photo, kinds="gradcam", measures="insertion,road,deletion", seed=5)
    map_ = result.arrays["maps"][0]
    ranks, seen = pixel_ranks(map_, 5), network.seen(photo)
    class_ = int(network.module(network.prepare(photo))[0].argmax())

    def chance(inputs: Tensor) -> float:
        with torch.no_grad():
            return float(network.module(inputs).double().softmax(1)[0, class_])

    for column, (start, end) in {0: (blurred(seen), seen), 2: (seen, blurred(seen))}.items():
        pictures = [replaced(ranks, share, start, end) for share in range(101)]
        expected = np.array([chance(network.batch([pixels])) for pixels in pictures])
        assert np.ptp(expected) > 0.05
        np.testing.assert_allclose(result.arrays["curves"][0, column], expected, atol=1e-5)
        assert result.arrays["scores"][0, column] == pytest.approx(area(expected), abs=1e-5)
    clean = network.prepare(photo)
    noisy = noise_like(clean, network.preprocessing.constants(torch.device("cpu"), torch.float64)[1], 5)
    shares = [round(1440 * share / 100) for share in range(10, 100, 10)]
    road = [[chance(removed(clean, ranks < n, noisy)) for n in shares]]
    road += [[chance(removed(clean, ranks >= 1440 - n, noisy)) for n in shares]]
    np.testing.assert_allclose(result.arrays["road"][0], road, atol=1e-5)
    assert result.arrays["scores"][0, 1] == pytest.approx(combined(np.array(road)), abs=1e-5)
    assert np.isnan(result.arrays["curves"][0, 1]).all()
    assert {row["kind"] for row in result.table} == {"gradcam"}


def test_the_activation_of_a_linear_unit_is_relative_to_that_of_the_photo() -> None:
    """In closed form: the activation, less the share of each deleted pixel's product."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), nn.ReLU(), nn.Linear(4, 2))
    own = vizapp.wrap(module, (3, 16, 16), mean=0.0, std=1.0)
    photo = noise(16, 16, seed=2)
    clean, fill = own.prepare(photo)[0].numpy(), own.batch([blurred(photo)])[0].numpy()
    weights, bias = (parameter.numpy() for parameter in (module[1].weight, module[1].bias))
    values = weights @ clean.reshape(-1) + bias
    channel = int(values.argmax())
    assert values[channel] > 0
    unit = vizapp.Unit("1", channel)
    result = ask(own, photo, unit=unit, kinds="integrated_gradients", measures="deletion,completeness")
    products = (weights[channel].reshape(3, 16, 16) * clean).sum(0)  # the map of a linear unit
    np.testing.assert_allclose(result.arrays["maps"][0], products, atol=1e-5)
    lost = (weights[channel].reshape(3, 16, 16) * (fill - clean)).sum(0).reshape(-1)
    taken = np.concatenate([[0], lost[np.argsort(-products, axis=None)].cumsum()])
    counts = [int(256 * share / 100 + 0.5) for share in range(101)]
    expected = (values[channel] + taken[counts]) / values[channel]
    np.testing.assert_allclose(result.arrays["curves"][0, 0], expected, atol=1e-4)
    assert result.arrays["scores"][0, 1] < 1e-4
    assert "divided" in result.facts["score"]


def test_the_gap_of_lrp_is_what_is_missing_of_the_score(network: Network) -> None:
    """Biases take a part, as they do in every network that has some."""
    photo, unit = noise(40, 36, seed=6), vizapp.class_unit(network, 3)
    score = float(network.module(network.prepare(photo))[0, 3])
    pixels = vizapp.ask("attribution", network, photo, unit=unit, kind="lrp").arrays["attribution"]
    result = ask(network, photo, unit=unit, kinds="lrp,integrated_gradients,random", measures="completeness")
    found = result.arrays["scores"][:, 0]
    expected = abs(pixels.sum(dtype=np.float64) - score) / abs(score)
    assert expected > 0.002
    assert found[0] == pytest.approx(expected, rel=1e-3)
    assert np.isnan(found[2])


@pytest.mark.parametrize("site", ["1", "2"])  # below zero, and zero
def test_a_unit_that_is_not_active_has_nothing_to_delete(site: str) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[1].bias[:] = -100
    own = vizapp.wrap(module, (3, 16, 16))
    result = ask(own, noise(16, 16), unit=vizapp.Unit(site, 1), kinds="random", measures="deletion,road,randomisation")
    assert np.isnan(result.arrays["scores"][0, :2]).all()
    assert result.arrays["scores"][0, 2] == 1
    assert "not active" in result.facts


@pytest.mark.parametrize("kind", ["gradcam", "smoothgrad", "random", "edges"])
def test_maps_are_those_of_attribution(network: Network, kind: str) -> None:
    unit, photo = vizapp.class_unit(network, "c"), noise(50, 44, seed=4)
    own = vizapp.ask("attribution", network, photo, unit=unit, kind=kind, seed=9).arrays["attribution"]
    result = ask(network, photo, unit=unit, kinds=("edges", kind), measures="completeness", seed=9)
    np.testing.assert_array_equal(result.arrays["maps"][-1], own)


def test_similarity_is_spearmans_with_the_map_of_the_shuffled_network(network: Network) -> None:
    photo, unit = noise(40, 36, seed=3), vizapp.class_unit(network, 1)
    result = ask(network, photo, unit=unit, kinds="integrated_gradients,edges", measures="randomisation", seed=2)
    names = [name for name, _ in network.module.named_parameters()]
    other = vizapp.wrap(randomised(network.module, names, 2), (3, 40, 36), categories=list("abcde"))
    maps = [
        np.abs(vizapp.ask("attribution", one, photo, unit=unit, kind="integrated_gradients").arrays["attribution"])
        for one in (network, other)
    ]
    expected = spearmanr(maps[0], maps[1], axis=None).statistic
    assert result.arrays["scores"][0, 0] == pytest.approx(expected, abs=1e-5)
    assert result.arrays["scores"][1, 0] == 1


def test_a_kind_that_is_not_defined_leaves_its_row_empty() -> None:
    own = patch_network()  # has no feature map for Grad-CAM
    result = ask(own, bright(1), kinds="gradcam,random", measures="deletion,randomisation")
    assert np.isnan(result.arrays["scores"][0]).all()
    assert np.isnan(result.arrays["maps"][0]).all()
    assert np.isfinite(result.arrays["scores"][1]).all()
    assert "feature map" in result.facts["not defined: gradcam"]
    assert result.table[0]["deletion"] is None
    with refuses("no-map", "feature map"):
        ask(own, bright(1), kinds="gradcam", measures="deletion")


def test_a_map_that_is_the_same_everywhere_is_told() -> None:
    own = patch_network()
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)  # the products of integrated gradients are zero
    result = ask(own, photo, kinds="integrated_gradients,random", measures="pointing", box=BOX)
    assert "random order" in result.facts["flat: integrated_gradients"]
    assert "flat: random" not in result.facts


def test_a_map_that_is_not_finite_has_no_scores() -> None:
    own = patch_network()
    with torch.no_grad():
        own.module.head.weight[0, 0] = float("nan")
    kinds = "integrated_gradients,random"
    result = ask(
        own, bright(0), kinds=kinds, measures="randomisation,pointing", box=BOX, unit=vizapp.class_unit(own, 0)
    )
    assert np.isnan(result.arrays["scores"][0]).all()
    assert np.isfinite(result.arrays["scores"][1]).all()
    assert not result.arrays["compared"][0].any()
    assert "not finite" in result.facts["not defined: integrated_gradients"]
    assert "not active" not in result.facts
    assert "finite score" in result.facts["not finite"]


def test_a_map_without_ranks_has_no_rank_correlation() -> None:
    own = patch_network()
    measures, unit = (
        "pointing,randomisation",
        vizapp.class_unit(own, 1),
    )  # its weights are zero, those shuffled in are not
    result = ask(own, bright(0), kinds="integrated_gradients", measures=measures, box=BOX, unit=unit)
    assert np.isnan(result.arrays["scores"][0, 1])
    assert "0 everywhere" in result.facts["not defined: integrated_gradients, randomisation"]


@pytest.mark.parametrize(("side", "near"), [(59, True), (60, False)])
def test_a_pointing_game_on_a_small_input_is_told(side: int, near: bool) -> None:
    own = vizapp.wrap(seeded(nn.Sequential(nn.Flatten(), nn.Linear(3 * side * 80, 2))), (3, side, 80))
    result = ask(own, noise(side, 80), kinds="random", measures="pointing", box=(1, 1, 9, 9))
    assert ("nearly every map hits" in result.facts["pointing"]) is near


def test_a_blur_that_hides_little_is_told() -> None:
    own = patch_network()
    options = {"unit": vizapp.class_unit(own, "bright"), "kinds": "random", "measures": "deletion"}
    assert "little" not in ask(own, bright(0), **options).facts["blurred"]
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    told = ask(own, white, **options).facts["blurred"]
    assert "is 0.993, that of the blurred photo 0.993" in told  # the sigmoid of 20 - 15
    assert "little" in told


@pytest.mark.slow
def test_a_folder_is_the_mean_of_its_photos_with_an_interval(tmp_path: Path) -> None:
    own = patch_network()
    photos = [bright(seed) for seed in range(4)]
    folder = folder_of(tmp_path, photos)
    (tmp_path / "2.png").write_bytes(b"no picture")
    kinds, measures = "integrated_gradients,random", "deletion,road"
    result = ask(own, folder=folder, kinds=kinds, measures=measures, photos=0, seed=3)
    # Each photo has a random map of its own: the seed plus its number.
    alone = [ask(own, photos[n], kinds=kinds, measures=measures, seed=3 + n).arrays for n in (0, 1, 3)]
    found = result.arrays
    np.testing.assert_array_equal(found["picture"], [0, 1, 3])
    each = np.stack([one["scores"] for one in alone])
    np.testing.assert_array_equal(found["per_photo"], each)
    np.testing.assert_allclose(found["scores"], each.mean(0), atol=1e-6)
    np.testing.assert_allclose(found["curves"][:, 0], np.mean([one["curves"][:, 0] for one in alone], 0), atol=1e-6)
    np.testing.assert_allclose(found["road"], np.mean([one["road"] for one in alone], 0), atol=1e-6)
    np.testing.assert_array_equal(found["maps"], alone[0]["maps"])
    half = 4.302653 * each.std(0, ddof=1) / np.sqrt(3)  # Student's t of 2 degrees of freedom
    np.testing.assert_allclose(found["high"] - found["scores"], half, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["scores"] - found["low"], half, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found["wins"], [[3, 3], [0, 0]])
    np.testing.assert_array_equal(found["compared"], [[3, 3], [3, 3]])
    assert "2.png" in result.facts["unreadable"]
    assert result.facts["photos"].startswith("3 of the 4")
    assert result.table[0]["deletion, beats random"] == "3 of 3"
    assert result.table[0]["deletion ±"] == pytest.approx(half[0, 0], rel=1e-3)


def test_the_class_is_the_true_one_where_it_is_known_or_the_answer_on_request(tmp_path: Path) -> None:
    own = patch_network()
    for name, seed in (("bright", 0), ("dark", 1), ("neither", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(saved(bright(seed)))
    options: dict[str, Any] = {"kinds": "random", "measures": "deletion"}
    np.testing.assert_array_equal(ask(own, folder=str(tmp_path), **options).arrays["class"], [0, 1, 0])
    answers = ask(own, folder=str(tmp_path), about="answer", **options)
    np.testing.assert_array_equal(answers.arrays["class"], [0, 0, 0])
    assert "answer" in answers.facts["explained"]
    beside = ask(own, bright(5), folder=str(tmp_path), photos=2, **options)
    np.testing.assert_array_equal(beside.arrays["picture"], [-1, 0, 1])


def test_work_can_be_cancelled_and_reports_its_progress(network: Network) -> None:
    class Cancelled(Exception):
        pass

    shares: list[float] = []

    def tick(share: float) -> None:
        shares.append(share)
        if share > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        ask(network, noise(40, 36), kinds="gradcam,random", measures="deletion,insertion,road", tick=tick)
    assert shares == sorted(shares)
    assert shares[-1] < 0.35
    shares.clear()
    ask(network, noise(40, 36), kinds="random", measures="deletion,randomisation", tick=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 10


def test_no_batch_is_larger_than_the_memory_allows(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    handle = network.module.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    monkeypatch.setattr(Network, "batch_limit", lambda self, most, gradients=False: min(most, 3))
    small = ask(network, noise(40, 36), kinds="random", measures="deletion,insertion,road")
    handle.remove()
    assert max(sizes) == 3
    monkeypatch.undo()
    large = ask(network, noise(40, 36), kinds="random", measures="deletion,insertion,road")
    np.testing.assert_allclose(small.arrays["scores"], large.arrays["scores"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"kinds": "gradcm"}, "no-such-choice", "gradcam"),
        ({"kinds": ()}, "no-such-choice", "random"),
        ({"measures": "delete"}, "no-such-choice", "deletion"),
        ({"measures": "pointing"}, "missing-input", "--box"),
        ({"box": "1,2,3"}, "bad-value", "four"),
        ({"box": (1.5, 2, 30, 30)}, "bad-value", "four"),
        ({"box": (5, 5, 5, 9)}, "bad-value", "empty"),
        ({"box": (9, 5, 4, 9)}, "bad-value", "empty"),
        ({"box": (0, 0, 41, 9)}, "part-outside", "40 pixels high and 36 wide"),
        ({"box": (-1, 0, 20, 9)}, "part-outside", "inside"),
        ({"about": "truth"}, "no-such-choice", "true"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(network: Network, options: dict[str, Any], code: str, named: str) -> None:
    with refuses(code, named):
        ask(network, noise(40, 36), **options)


def test_a_folder_needs_photos_and_takes_no_box(network: Network, tmp_path: Path) -> None:
    place = folder_of(tmp_path, [noise(40, 36)])
    with refuses("bad-value", "folder"):
        ask(network, folder=place, box=(1, 1, 9, 9))
    (tmp_path / "0.png").write_bytes(b"no picture")
    with refuses("no-readable-pictures", "0.png"):
        ask(network, folder=place, kinds="random")
    with refuses("missing-input", "photo"):
        ask(network)


def test_a_network_without_classes_needs_a_unit() -> None:
    own = vizapp.wrap(seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), (3, 20, 20))
    with refuses("no-class-scores"):
        ask(own, noise(20, 20), kinds="random", measures="deletion")
    result = ask(own, noise(20, 20), unit=vizapp.Unit("1", 2), kinds="gradcam,random", measures="deletion")
    assert np.isfinite(result.arrays["scores"]).all()


def test_the_command_line_takes_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(saved(noise(32, 32)))
    arguments = [
        "trust",
        "--network",
        "vizapp/lenet5-digits",
        "--picture",
        str(tmp_path / "photo.png"),
        "--device",
        "cpu",
    ]
    arguments += ["--kinds", "gradcam,random", "--measures", "deletion,pointing", "--box", "2,3,20,21"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "gradcam" in told
    assert "2,3,20,21" in told


def test_the_default_kinds_are_quick_ones_with_random_and_edges() -> None:
    kinds = TrustParams().kinds
    assert set(kinds) >= {"gradcam", "random", "edges"}
    assert not {"scorecam", "ablationcam", "rise", "occlusion", "smoothgrad"} & set(kinds)
