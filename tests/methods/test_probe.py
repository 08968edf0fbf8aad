"""Linear probes: the numbers of scikit-learn on features of single passes, splits that share no photo, clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import vizapp
from tests.media.files import saved
from tests.zoo.shared import shared
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.methods.linear_probe import STRENGTHS, distinct, fit_probe, recalls, split
from vizapp.methods.probe import chosen_sites
from vizapp.methods.probe_chart import LINES, chart
from vizapp.zoo.network import Network
from vizapp.zoo.untrained import untrained

SIDE, CLASSES, PHOTOS = 28, ("bars", "dots", "ramp"), 9


def picture(kind: str, number: int) -> np.ndarray:
    """A pattern of its class, hard to see in noise."""
    random = np.random.default_rng((CLASSES.index(kind), number))
    rows, columns = np.indices((SIDE, SIDE))
    pattern = {"bars": rows // 3 % 2, "dots": (rows // 4 + columns // 4) % 2, "ramp": columns / SIDE}[kind]
    grey = 90 + 60 * pattern + random.normal(0, 45, (SIDE, SIDE))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    for kind in CLASSES:
        (folder / kind).mkdir()
        for number in range(PHOTOS + CLASSES.index(kind)):
            (folder / kind / f"{number:02}.png").write_bytes(saved(picture(kind, number)))
    return folder


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(),
        nn.Linear(8 * 9, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip
    return vizapp.wrap(module, (3, SIDE, SIDE), name="small")


def features_one_by_one(network: Network, folder: Path, site: str) -> tuple[np.ndarray, np.ndarray]:
    """Features pooled to 2 × 2 by averages of slices, and the classes; one pass per photo."""
    rows, labels = list[np.ndarray](), list[int]()
    for label, kind in enumerate(CLASSES):
        for path in sorted((folder / kind).glob("*.png")):
            found = observe(network.module, network.prepare(path), [network.site(site)])[site][0].double().numpy()
            if found.ndim == 3:
                found = np.stack([
                    found[:, rows_, columns].mean((1, 2))
                    for rows_ in halves(found.shape[1]) for columns in halves(found.shape[2])
                ], 1).reshape(-1)  # fmt: skip
            rows.append(found)
            labels.append(label)
    return np.stack(rows), np.array(labels)


def halves(length: int) -> tuple[slice, slice]:
    return slice(0, -(-length // 2)), slice(length // 2, length)


def scikit_learn(points: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> GridSearchCV:
    search = GridSearchCV(
        LogisticRegression(max_iter=5000, tol=1e-6), {"C": STRENGTHS}, scoring="neg_log_loss", cv=PredefinedSplit(fold)
    )
    return search.fit(points, labels)


@pytest.mark.slow
def test_accuracies_are_those_of_scikit_learn_on_features_of_single_passes(network: Network, photos: Path) -> None:
    sites, count = ("1", "8"), 6
    result = vizapp.ask(
        "probe", network, folder=photos, sites=sites, photos=count, splits=2, seed=3, curve=(3, 6, 8, 50)
    )
    other, _ = untrained(network, 3)
    for name, one, places in (("accuracy", network, (0, 1)), ("accuracy_random", other, (1,))):
        for place, site in zip(places, [sites[place] for place in places], strict=True):
            features, labels = features_one_by_one(one, photos, site)
            for number in range(2):
                part = split([np.flatnonzero(labels == c) for c in range(3)], [count] * 3, 50, 3, number)
                scale = StandardScaler().fit(features[part.train])
                fold = np.tile(np.arange(count) % 3, 3)
                fit = scikit_learn(scale.transform(features[part.train]), part.train_labels, fold)
                answers = fit.predict(scale.transform(features[part.test]))
                expected = balanced_accuracy_score(part.test_labels, answers)
                assert result.arrays[name][place, number] == pytest.approx(expected, abs=1e-9)
    assert result.arrays["curve_photos"].tolist() == [3, 6, 8]  # every class has more than 8, and none more than 50
    assert result.facts["curve"].startswith("The curve stops before 50 photos of each class: the smallest class has 9,")
    assert (result.arrays["curve"][1] == result.arrays["accuracy"][1]).all()
    assert (result.arrays["curve_pixels"][1] == result.arrays["accuracy_pixels"]).all()
    assert result.arrays["recall"].mean(1) == pytest.approx(result.arrays["accuracy"].mean(1))


def test_pixels_are_averages_of_the_photo_over_eight_by_eight_cells(network: Network, photos: Path) -> None:
    result = vizapp.ask("probe", network, folder=photos, sites="8", photos=6, splits=1)
    rows, labels = list[np.ndarray](), list[int]()
    for label, kind in enumerate(CLASSES):
        for path in sorted((photos / kind).glob("*.png")):
            seen = network.seen(path).astype(float)
            edges = [(n * SIDE // 8, -(-(n + 1) * SIDE // 8)) for n in range(8)]
            rows.append(np.array([[seen[a:b, c:d].mean((0, 1)) for c, d in edges] for a, b in edges]).reshape(-1))
            labels.append(label)
    features = np.stack(rows)
    part = split([np.flatnonzero(np.array(labels) == c) for c in range(3)], [6] * 3, 50, 0, 0)
    scale = StandardScaler().fit(features[part.train])
    fit = scikit_learn(scale.transform(features[part.train]), part.train_labels, np.tile(np.arange(6) % 3, 3))
    answers = fit.predict(scale.transform(features[part.test]))
    assert result.arrays["accuracy_pixels"][0] == pytest.approx(
        balanced_accuracy_score(part.test_labels, answers), abs=1e-9
    )


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("width", [5, 300])
def test_scores_are_the_decision_function_of_scikit_learn(classes: int, width: int) -> None:
    """Also with more features than photos, where the fit is in the coordinates of their span, and with constant ones."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 12)
    features = 3 + random.normal(size=(len(labels), width)) + 0.7 * random.normal(size=(classes, width))[labels]
    features[:, 1] = 0.1  # its standard deviation in float64 is not 0
    found = fit_probe(features.astype(np.float32), labels)
    scale = StandardScaler().fit(features.astype(np.float32).astype(np.float64))
    points = scale.transform(features.astype(np.float32).astype(np.float64))
    fit = scikit_learn(points, labels, np.tile(np.arange(12) % 3, classes))
    assert found.c == fit.best_params_["C"]
    expected = fit.decision_function(points)
    scores = found.scores(features.astype(np.float32))
    if classes == 2:
        expected = np.stack([-expected, expected], 1) / 2
    assert np.abs(scores - expected).max() < 1e-3 * np.abs(expected).max()  # both stop when the slope is small


def test_shuffled_labels_give_chance() -> None:
    random, classes, each = np.random.default_rng(1), 5, 60
    labels = np.repeat(np.arange(classes), each)
    features = random.normal(size=(len(labels), 20)) + 4 * random.normal(size=(classes, 20))[labels]
    test = np.repeat(np.arange(classes), 80)
    others = random.normal(size=(len(test), 20)) + 4 * random.normal(size=(classes, 20))[test]
    assert recalls(fit_probe(features, labels).scores(features).argmax(1), labels).mean() > 0.95
    shuffled = fit_probe(features, random.permutation(labels))
    reached = recalls(shuffled.scores(others).argmax(1), test).mean()
    assert abs(reached - 1 / classes) < 3 * np.sqrt(0.2 * 0.8 / len(test))


def test_no_photo_is_in_both_parts_under_another_name(network: Network, photos: Path, tmp_path: Path) -> None:
    for kind in CLASSES:
        (tmp_path / kind).mkdir()
        for number in range(8):
            content = saved(picture(kind, number))
            for copy in range(3):
                (tmp_path / kind / f"{number}-{copy}.png").write_bytes(content)
    (tmp_path / "bars" / "ramp.png").write_bytes(saved(picture("ramp", 0)))  # now in two classes
    (tmp_path / "dots" / "damaged.png").write_bytes(b"nothing")
    (tmp_path / "alone.png").write_bytes(saved(picture("bars", 100)))
    source = vizapp.open_folder(tmp_path)
    pixels = [source.open(n).digest if "damaged" not in source.path(n) else f"{n}" for n in range(len(source))]
    found = distinct(source.labels, pixels, source.classes, 5)
    for number in range(4):
        part = split(found.members, [5] * 3, 50, 0, number)
        train, test = ({pixels[row] for row in rows} for rows in (part.train, part.test))
        assert not train & test
        assert len(train) == 15
        assert {source.labels[row] for row in part.train} == set(CLASSES)
        assert all(source.labels[row] == CLASSES[c] for row, c in zip(part.test, part.test_labels, strict=True))
    result = vizapp.ask("probe", network, folder=tmp_path, sites="8", photos=5, splits=1)
    assert result.facts["copies"].startswith(f"{16 + 16 + 14} photos")
    assert result.facts["ambiguous"].startswith("4 photos")
    assert result.facts["unlabelled"].startswith("1 photo without")
    assert result.facts["unreadable"].startswith("1 photo was skipped")


def test_splits_depend_on_the_seed_and_the_test_part_is_bounded() -> None:
    members = [np.arange(100), np.arange(100, 130)]
    first = split(members, [4, 4], 50, 0, 0)
    assert (split(members, [4, 4], 50, 0, 0).train == first.train).all()
    assert not (split(members, [4, 4], 50, 0, 1).train == first.train).all()
    assert not (split(members, [4, 4], 50, 1, 0).train == first.train).all()
    assert np.bincount(first.test_labels).tolist() == [50, 26]
    more = split(members, [8, 8], 50, 0, 0)
    assert set(first.train) <= set(more.train)
    assert not set(more.train) & set(more.test)


def test_classes_with_too_few_photos_are_left_out_and_listed(network: Network, photos: Path, tmp_path: Path) -> None:
    for kind in CLASSES:
        os.symlink(photos / kind, tmp_path / kind)
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "one.png").write_bytes(saved(picture("bars", 77)))
    result = vizapp.ask("probe", network, folder=tmp_path, sites="8", photos=6, splits=1)
    assert result.facts["classes"] == "bars, dots, ramp"
    assert "1 of 4 classes" in result.facts["left out"]
    assert "few (1)" in result.facts["left out"]
    assert result.facts["chance"] == "33.3 %"


@pytest.mark.parametrize(
    ("files", "options", "code"),
    [
        (["a.png", "b.png"], {}, "no-labels"),
        (["x/a.png", "x/b.png"], {}, "one-class"),
        (["x/a.png", "y/b.png", "z/c.png"], {"photos": 3}, "too-few-photos"),
        ([f"{kind}/{n}.png" for kind in "xy" for n in range(6)], {"photos": 3}, "too-few-photos"),  # all the same
        (["x/a.png", "y/b.png"], {"sites": "nowhere"}, "no-such-layer"),
        (["x/a.png", "y/b.png"], {"curve": "2.5"}, "bad-value"),
        (["x/a.png", "y/b.png"], {"photos": 2}, "bad-value"),
    ],
)
def test_what_cannot_be_probed_is_a_sentence(
    network: Network, tmp_path: Path, files: list[str], options: dict[str, object], code: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(saved(picture("bars", 0)))
    with pytest.raises(VizError) as caught:
        vizapp.ask("probe", network, folder=tmp_path, **options)
    assert caught.value.code == code


def test_the_usual_layers_are_the_ends_of_the_stages_and_the_last_hidden_layer() -> None:
    network = vizapp.load("vizapp/lenet5-digits", device="cpu")
    names = [site.name for site in chosen_sites(network, ())]
    assert names[-1] == "classifier.3"
    assert names == [site.name for site in network.sites if site.name in names]
    assert [network.site(name).shape[1] for name in names[:-1]] == sorted(
        [network.site(name).shape[1] for name in names[:-1]], reverse=True
    )


@pytest.mark.slow
def test_the_usual_layers_are_ends_of_blocks_evenly_from_the_first_to_the_last() -> None:
    network = vizapp.load("vizapp/efficientnet-lite0", device="cpu")
    names = [site.name for site in chosen_sites(network, ())]
    assert names == ["relu0", *(f"blocks.{block}.add" for block in (4, 7, 10, 13)), "relu1", "flatten"]
    plain = vizapp.load("vgg11", weights="none", device="cpu")
    relus = [site.name for site in plain.sites if site.kind == "activation" and site.is_map]
    names = [site.name for site in chosen_sites(plain, ())]
    assert names[:-1] == [relus[place] for place in (0, 1, 3, 4, 6, 7)]
    assert names[-1] == "classifier.4"


def test_the_picture_has_a_line_for_the_network_random_weights_and_pixels_at_their_heights() -> None:
    arrays = {
        "accuracy": np.array([[0.2, 0.3], [1.0, 1.0]]),
        "accuracy_random": np.zeros((2, 2)),
        "accuracy_pixels": np.full(2, 0.5),
    }
    drawn = chart(arrays, ["first", "second"])
    for key, values in (("", (0.25, 1.0)), ("_random", (0.0, 0.0)), ("_pixels", (0.5, 0.5))):
        rows, columns = np.nonzero((drawn[30:380] == LINES[key][1]).all(2))
        for side, value in zip((columns < 84, columns > 852), values, strict=True):
            assert 44 + 320 * (1 - value) == pytest.approx(rows[side].mean() + 30, abs=6)


@pytest.mark.slow
def test_with_photos_accuracy_rises_from_layer_to_layer_and_random_weights_stay_near_the_pixels(tmp_path: Path) -> None:
    photos = shared("data/caltech101/train")
    for kind in ("butterfly", "crab", "elephant", "ketch", "lotus", "scorpion", "starfish", "sunflower"):
        (tmp_path / kind).mkdir()
        for path in sorted((photos / kind).glob("*.jpg"))[:16]:
            os.symlink(path, tmp_path / kind / path.name)
    result = vizapp.ask("probe", vizapp.load(device="cpu"), folder=tmp_path, photos=8, splits=2)
    reached, random = (result.arrays[name].mean(1) for name in ("accuracy", "accuracy_random"))
    assert reached[0] < 0.7 < 0.9 < reached[-1]
    assert np.diff(reached).min() > -0.05
    assert np.abs(random - result.arrays["accuracy_pixels"].mean()).max() < 0.25


class Scaled(nn.Module):
    """A layer with a parameter of its own, which has no way to initialise itself."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((4, 1, 1), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_random_weights_are_drawn_anew_and_what_keeps_its_values_is_told() -> None:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        Scaled(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    module = nn.Sequential(*layers)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1)
    network = vizapp.wrap(module, (3, 12, 12))
    before, state = torch.get_rng_state(), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other, kept = untrained(network, 5)
    assert kept == ("2.factor",)
    changed = {name for name, tensor in other.module.state_dict().items() if not torch.equal(tensor, state[name])}
    assert changed == set(state) - {"2.factor"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)
    assert untrained(network, 5)[0].digest == other.digest != untrained(network, 6)[0].digest
    torch.manual_seed(5)
    assert torch.equal(other.module[0].weight, nn.Conv2d(3, 4, 3).weight)


def test_an_attention_layer_draws_its_own_weights() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].mean(1)

    module = nn.Sequential(nn.Conv2d(3, 8, 4, 4), Attends(), nn.Linear(8, 2))
    assert untrained(vizapp.wrap(module, (3, 12, 12)), 0)[1] == ()
