"""The method `occlusion` equals its definition and Captum, and refuses bad input with a message."""

from __future__ import annotations

import csv
from collections import OrderedDict

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import nn

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from tests.zoo.shared import shared
from vizapp.engine.trace.observe import observe
from vizapp.media.picture import Picture
from vizapp.media.samples import open_sample
from vizapp.methods.base import Question
from vizapp.methods.occlusion.mask import hide
from vizapp.methods.occlusion.occluder import coarse_to_fine, filling, from_nearest, positions
from vizapp.methods.occlusion.sweep import Occlusion, OcclusionParams, sweep_over
from vizapp.zoo.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 72, 65), categories=list("abcde"))


@pytest.fixture(scope="module")
def picture() -> Picture:
    return vizapp.open_picture(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8), "noise")


def by_hand(network: Network, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities of one picture as the network sees it."""
    with torch.no_grad():
        logits = network.module(network.batch([pixels]))[0]
    return logits.numpy(), logits.softmax(0).numpy()


@pytest.mark.parametrize("inverse", [False, True])
def test_each_cell_is_what_the_network_answers_to_the_occluded_picture(network, picture, inverse: bool) -> None:
    result = vizapp.ask("occlusion", network, picture, window=17, stride=11, width=9, fill="#10c060", inverse=inverse)
    seen, a = network.seen(picture), result.arrays
    clean_logits, clean = by_hand(network, seen)
    class_ = int(clean.argmax())
    assert a["clean_probability"] == pytest.approx(clean[class_], abs=1e-6)
    assert a["clean_logit"] == pytest.approx(clean_logits[class_], abs=1e-5)
    assert a["probability"].shape == a["logit"].shape == a["label"].shape == a["activation"].shape == (7, 6)
    assert a["label"].dtype == a["positions"].dtype == np.int64
    colour = np.array([0x10, 0xC0, 0x60], np.uint8)
    for (row, column), (top, left, bottom, right) in zip(np.ndindex(7, 6), a["positions"].reshape(-1, 4), strict=True):
        assert (bottom - top, right - left) == (17, 9)
        shown = np.full_like(seen, 0) + colour if inverse else seen.copy()
        inside = slice(max(top, 0), bottom), slice(max(left, 0), right)
        shown[inside] = seen[inside] if inverse else colour
        logits, probabilities = by_hand(network, shown)
        np.testing.assert_allclose(a["probabilities"][row, column], probabilities, atol=1e-6)
        np.testing.assert_allclose(a["logits"][row, column], logits, atol=1e-4)
        assert a["probability"][row, column] == pytest.approx(probabilities[class_], abs=1e-6)
        assert a["label"][row, column] == probabilities.argmax()
        name, channel = result.facts["map"].split(",")[0].split(":")
        maps = observe(network.module, network.batch([shown]), [network.site(name)])[name][0]
        assert a["activation"][row, column] == pytest.approx(float(maps[int(channel)].sum()), rel=1e-4)


def test_the_strongest_map_is_that_of_the_largest_sum_or_value(network, picture) -> None:
    maps = vizapp.ask("activations", network, picture, unit=vizapp.Unit("cat", 0)).arrays["activations"]
    for strongest, expected in (("sum", maps.sum((1, 2)).argmax()), ("maximum", maps.max((1, 2)).argmax())):
        result = vizapp.ask("occlusion", network, picture, stride=30, site="cat", strongest=strongest)
        assert result.facts["map"].startswith(f"cat:{expected},")
    chosen = vizapp.ask("occlusion", network, picture, stride=30, unit=vizapp.Unit("cat", 3))
    assert chosen.facts["map"].startswith("cat:3,")
    assert chosen.arrays["clean_activation"] == pytest.approx(maps[3].sum(), rel=1e-5)
    down = vizapp.ask("projection", network, picture, unit=vizapp.Unit("cat", 3), extent="map")
    np.testing.assert_array_equal(chosen.arrays["projection"], down.arrays["projection"])


class Doubled(torch.autograd.Function):
    """x, with a backward pass that doubles."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, signal):
        return 2 * signal


class Written(nn.Module):
    """Activations written out, before the late map and after it, a max pool, and a rectifier that overwrites the late map."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.first, self.second, self.late = (nn.Conv2d(c, 6, 3, padding=1) for c in (3, 6, 6))
        self.pool, self.last, self.own, self.passes = nn.MaxPool2d(3, 2), nn.Linear(6, 5), own, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        x = self.pool(self.first(x).clamp(min=0))
        x = x / (x * x).sum(1, keepdim=True).clamp(min=0.5)
        x = self.second(x)
        x = x * x.sigmoid()
        x = Doubled.apply(x) if self.own else x
        x = self.late(x).relu_()
        return self.last((x * (x > 0.1)).mean((2, 3)))


@pytest.mark.parametrize(("own", "passes"), [(False, 1), (True, 3)])
def test_the_late_map_is_projected_along_the_pass_that_the_sweep_recorded(picture, own: bool, passes: int) -> None:
    module = seeded(Written(own))
    network = vizapp.wrap(module, input_size=(3, 40, 36))
    asked = {"site": "late", "window": 16, "stride": 20}
    vizapp.ask("occlusion", network, picture, **asked)
    before = module.passes
    other = vizapp.open_picture(np.random.default_rng(1).integers(0, 256, (40, 36, 3), dtype=np.uint8))
    found = vizapp.ask("occlusion", network, other, **asked)
    assert module.passes - before == passes, "a pass for windows, and where custom functions run two more"
    channel = int(found.facts["map"].split(",")[0].split(":")[1])
    down = vizapp.ask("projection", network, other, unit=vizapp.Unit("late", channel), extent="map")
    assert down.arrays["projection"].any()
    np.testing.assert_array_equal(found.arrays["projection"], down.arrays["projection"])
    assert down.facts["certificate"] in found.facts["projection"]


def test_photos_that_share_a_sweep_are_projected_each_along_its_own_pass(network) -> None:
    crops = [np.random.default_rng(n).integers(0, 256, (72, 65, 3), dtype=np.uint8) for n in range(3)]
    params = OcclusionParams(window=30, stride=40)
    site = network.last_feature_map()
    sweep = sweep_over(network, [network.crop(vizapp.open_picture(crop)) for crop in crops], params, site)
    assert all(sweep.recordings)
    for number, crop in enumerate(crops):
        question = Question(network, vizapp.open_picture(crop))
        found = Occlusion(question, params, (sweep, number)).result()
        alone = Occlusion(question, params).result()
        np.testing.assert_array_equal(found.arrays["projection"], alone.arrays["projection"])


def test_the_class_can_be_asked_for_and_chosen_afterwards(network, picture) -> None:
    first = vizapp.ask("occlusion", network, picture, stride=16)
    for class_ in range(5):
        asked = vizapp.ask("occlusion", network, picture, stride=16, unit=vizapp.class_unit(network, class_))
        place = int(np.flatnonzero(first.arrays["classes"] == class_)[0])
        np.testing.assert_array_equal(asked.arrays["probability"], first.arrays["probabilities"][..., place])
        np.testing.assert_array_equal(asked.arrays["logit"], first.arrays["logits"][..., place])
        assert asked.arrays["clean_probability"] == first.arrays["clean_probabilities"][place]


def test_of_too_many_classes_the_strongest_and_the_one_in_question_are_kept(network, picture, monkeypatch) -> None:
    full = vizapp.ask("occlusion", network, picture, stride=16).arrays
    peaks = full["probabilities"].max((0, 1))
    weakest, places = int(peaks.argmin()), full["label"].size
    monkeypatch.setattr("vizapp.methods.occlusion.sweep._KEPT", 2 * 4 * places)
    unit = vizapp.class_unit(network, weakest)
    kept = vizapp.ask("occlusion", network, picture, stride=16, unit=unit).arrays
    classes = kept["classes"].tolist()
    assert classes == sorted([weakest, int(peaks.argmax())])
    for name in ("probabilities", "logits", "clean_probabilities", "clean_logits"):
        np.testing.assert_array_equal(kept[name], full[name][..., classes])
    np.testing.assert_array_equal(kept["label"], full["label"])


def test_maps_of_classes_are_not_the_late_feature_maps(picture) -> None:
    layers = {
        "conv": nn.Conv2d(3, 8, 5, 4), "features": nn.ReLU(), "classes": nn.Conv2d(8, 5, 1), "maps": nn.ReLU(),
        "mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(),
    }  # fmt: skip
    module = nn.Sequential(OrderedDict(layers))
    of_classes = vizapp.wrap(seeded(module), input_size=(3, 72, 65), categories=list("abcde"))
    assert vizapp.ask("occlusion", of_classes, picture, stride=30).facts["map"].startswith("features:")
    asked = vizapp.ask("occlusion", of_classes, picture, stride=30, site="maps")
    assert asked.facts["map"].startswith("maps:")


def test_captums_quantity_for_the_same_squares(network, picture) -> None:
    result = vizapp.ask(
        "occlusion", network, picture, window=14, stride=9, grid="inside", unit=vizapp.class_unit(network, 2)
    )
    grey = network.batch([np.full((72, 65, 3), 128, np.uint8)])
    expected = CaptumOcclusion(network.module).attribute(
        network.prepare(picture), (3, 14, 14), (3, 9, 9), baselines=grey, target=2
    )
    np.testing.assert_allclose(result.arrays["per_pixel"], expected[0, 0].numpy(), atol=2e-5)


def test_squares_are_centred_on_cells_that_cover_the_picture() -> None:
    where = positions((224, 224), (32, 32), 8)
    assert where.shape == (28, 28)
    assert where.boxes[0, 0].tolist() == [-12, -12, 20, 20], "its centre is that of the first 8 x 8 cell"
    assert where.boxes[27, 27].tolist() == [204, 204, 236, 236]
    for size, window, stride in ((10, 3, 8), (7, 7, 3), (65, 9, 11), (5, 1, 5)):
        boxes = positions((size, size), (window, window), stride).boxes[:, 0]
        centres = (boxes[:, 0] + boxes[:, 2]) / 2
        assert len(centres) == -(-size // stride)
        assert (np.diff(centres) == stride).all()
        assert abs(centres[0] - (size - centres[-1])) <= 1, "as far from the upper border as from the lower"
        assert 0 <= centres[0] <= stride / 2 + 0.5


def test_small_inputs_get_a_small_default_square() -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    result = vizapp.ask("occlusion", network, open_sample("digit 7"))
    assert result.arrays["probability"].shape == (28, 28)
    assert (result.arrays["positions"][0, 0, 2:] - result.arrays["positions"][0, 0, :2]).tolist() == [4, 4]
    asked = vizapp.ask("occlusion", network, open_sample("digit 7"), window=8)
    assert (asked.arrays["positions"][0, 0, 2:] - asked.arrays["positions"][0, 0, :2]).tolist() == [8, 8]
    with refuses("occluder-too-large", "32", "28"):  # what is asked for is not fitted
        vizapp.ask("occlusion", network, open_sample("digit 7"), window=32, stride=8)
    asked = vizapp.ask("occlusion", network, open_sample("digit 7"), stride="8", window=9)
    assert asked.arrays["probability"].shape == (4, 4)


@pytest.mark.slow
def test_the_default_is_32_by_8() -> None:
    network = vizapp.load("vizapp/zfnet-mini", device="cpu")
    result = vizapp.ask("occlusion", network, open_sample("motorcycle"))
    assert result.arrays["probability"].shape == (20, 20)
    assert [panel.title[0] for panel in result.panels] == ["a", "b", "c", "d", "e"]
    assert {panel.pixels.shape for panel in result.panels} == {(160, 160, 3)}
    assert result.table[0]["name"] == "Motorbikes"
    assert sum(row["share"] for row in result.table) == pytest.approx(1)
    labels = result.panels[4].pixels[::8, ::8]
    assert "#" + bytes(labels[0, 0].tolist()).hex() in {row["colour"] for row in result.table}


def test_fills() -> None:
    seen = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for fill, colour in (("grey", 128), ("black", 0), ("white", 255)):
        assert (filling(seen, fill) == colour).all()
    np.testing.assert_array_equal(filling(seen, "#ff8800")[3, 4], [255, 136, 0])
    np.testing.assert_allclose(filling(seen, "mean")[0, 0], seen.mean((0, 1)), atol=0.5)
    assert (filling(seen, "noise", 1) == filling(seen, "noise", 1)).all()
    assert (filling(seen, "noise", 1) != filling(seen, "noise", 2)).any()
    blurred = filling(seen, "blur").astype(float)
    assert blurred.std() < 0.2 * seen.std()
    np.testing.assert_allclose(blurred.mean((0, 1)), seen.mean((0, 1)), atol=6)


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 17), (2, 2), (5, 4)])
def test_coarse_to_fine_visits_every_cell_once_and_a_sixteenth_first(shape: tuple[int, int]) -> None:
    turns = coarse_to_fine(shape)
    assert sorted(n for turn in turns for n in turn) == list(range(shape[0] * shape[1]))
    assert len(turns[0]) <= max(1, -(-shape[0] // 4)) * max(1, -(-shape[1] // 4))
    known = np.zeros(shape, bool)
    known.reshape(-1)[turns[0]] = True
    nearest = from_nearest(known)
    assert known.reshape(-1)[nearest].all()
    assert (nearest.reshape(-1)[turns[0]] == turns[0]).all()
    far = np.abs(np.stack(np.divmod(nearest, shape[1]), -1) - np.stack(np.indices(shape), -1)).max()
    assert far <= 4


def test_a_sweep_that_is_left_keeps_what_it_has(network, picture) -> None:
    params = OcclusionParams(window=17, stride=4)
    whole = vizapp.ask("occlusion", network, picture, window=17, stride=4)
    work = Occlusion(Question(network, picture), params)
    before = work.maps()
    assert not before["finished"].any()
    assert np.allclose(before["probability"], whole.arrays["clean_probability"])
    for share in work.run():
        if share > 0.05:
            break
    left = work.result()
    finished = work.maps()["finished"]
    assert 0 < finished.sum() < finished.size
    np.testing.assert_allclose(left.arrays["probability"][finished], whole.arrays["probability"][finished], atol=1e-6)
    assert f"{int(finished.sum())} of {finished.size} positions" in left.facts["finished"]
    shares = list(work.run())
    assert shares[-1] == 1
    np.testing.assert_allclose(work.result().arrays["probability"], whole.arrays["probability"], atol=1e-6)
    top, left_, bottom, right = np.clip(whole.arrays["positions"][2, 3], 0, None)
    assert (work.shown(2, 3)[top:bottom, left_:right] == 128).all()


def test_a_mask_of_any_shape(network, picture) -> None:
    seen = network.seen(picture)
    mask = np.add.outer(np.arange(72), np.arange(65)) % 7 < 3
    result = hide(Question(network, picture), mask, "white")
    expected = by_hand(network, np.where(mask[..., None], 255, seen).astype(np.uint8))
    np.testing.assert_allclose(result.arrays["logits"], expected[0], atol=1e-5)
    np.testing.assert_allclose(result.arrays["probabilities"], expected[1], atol=1e-6)
    np.testing.assert_allclose(result.arrays["clean_probabilities"], by_hand(network, seen)[1], atol=1e-6)
    assert result.table[0]["class"] == expected[1].argmax()
    with refuses("bad-mask-size"):
        hide(Question(network, picture), mask[:5])


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"window": 73}, "occluder-too-large"),
        ({"window": 30, "width": 66}, "occluder-too-large"),
        ({"stride": 0}, "bad-value"),
        ({"window": 0}, "bad-value"),
        ({"fill": "gray"}, "no-such-fill"),
        ({"fill": "#12345"}, "no-such-fill"),
        ({"site": "bodi"}, "no-such-layer"),
        ({"site": "head"}, "no-feature-map"),
        ({"site": "mean"}, "no-feature-map"),
        ({"unit": vizapp.Unit("head", 5)}, "no-such-channel"),
        ({"unit": vizapp.Unit("mean", 2)}, "not-a-class"),
    ],
)
def test_bad_input_gets_one_sentence(network, picture, params: dict, code: str) -> None:
    with refuses(code):
        vizapp.ask("occlusion", network, picture, **params)
    with refuses("no-such-class"):
        vizapp.class_unit(network, "zebra")


@pytest.mark.slow
def test_hiding_the_middle_of_photos_costs_more_than_hiding_their_border() -> None:
    """Photos have no boxes here; photographers put the object into the middle, so the middle stands for it."""
    network = vizapp.load(
        "torchvision/squeezenet1_0", weights=shared("weights/squeezenet1_0-imagenet-decompressed.pth"), device="cpu"
    )
    folder = shared("data/imagenet-sample")
    with (folder / "labels.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))[::15]
    lower = counted = 0
    for row in rows:
        if counted == 20:
            break
        unit = vizapp.class_unit(network, int(row["class_index"]))
        photo = vizapp.open_picture(folder / "images" / row["file"])
        if vizapp.ask("predict", network, photo).table[0]["class"] != unit.channel:
            continue
        a = vizapp.ask("occlusion", network, photo, unit=unit, stride=32).arrays  # a map of 7 x 7
        middle, ring = np.zeros((7, 7), bool), np.ones((7, 7), bool)
        middle[2:5, 2:5] = True
        ring[1:6, 1:6] = False
        counted += 1
        lower += a["probability"][middle].mean() < a["probability"][ring].mean()
    print(f"the middle counts more in {lower} of {counted} photos")
    assert counted == 20
    assert lower / counted > 0.5, "most of them"
