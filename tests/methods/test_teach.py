"""Teach: the new network's scores are those of the probe, every method takes it, and it is the same when opened again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import vizapp
from tests.media.files import noise, saved
from tests.methods.test_probe import CLASSES, picture
from vizapp.__main__ import main
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.methods.linear_probe import split
from vizapp.methods.teach import METHOD
from vizapp.settings import settings
from vizapp.zoo import describe, describe_all
from vizapp.zoo.network import Network
from vizapp.zoo.new_head import find_last_layer

BASE = "vizapp/lenet5-digits"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    for kind in CLASSES:
        (folder / kind).mkdir()
        for number in range(8):
            (folder / kind / f"{number:02}.png").write_bytes(saved(picture(kind, number)))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VIZAPP_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def base() -> Network:
    return vizapp.load(BASE, device="cpu")


def test_scores_are_those_of_the_probe_and_the_same_when_opened_again(base: Network, photos: Path) -> None:
    """The oracle standardises, fits and scores features of single passes; the new layer has the standardisation inside."""
    digest = base.digest
    new = vizapp.teach(base, photos, name="patterns", seed=2)
    assert (new.name, new.categories, base.digest) == ("own/patterns", CLASSES, digest)
    paths = [path for kind in CLASSES for path in sorted((photos / kind).glob("*.png"))]
    site = base.last_hidden_layer()
    assert site is not None
    batches = [base.prepare(path) for path in paths]
    features = np.concatenate([observe(base.module, batch, [site])[site.name].double().numpy() for batch in batches])
    part = split([np.arange(8) + 8 * c for c in range(3)], [6] * 3, 8, 2)
    told = json.loads((settings().cache / "own" / "patterns.json").read_text())
    scale = StandardScaler().fit(features[part.train])
    fit = LogisticRegression(C=told["c"], max_iter=5000, tol=1e-8)
    fit.fit(scale.transform(features[part.train]), part.train_labels)
    expected = fit.decision_function(scale.transform(features))
    scores = np.concatenate([new.scores(batch).numpy() for batch in batches])
    assert np.abs(scores - expected).max() < 1e-3 * np.abs(expected).max()
    right = (expected[part.test].argmax(1) == part.test_labels).mean()
    assert told["accuracy"] == pytest.approx(right)
    assert (told["network"], told["weights"], told["classes"]) == (BASE, "default", list(CLASSES))
    answer = vizapp.ask("teach", base, folder=photos, seed=2)
    linear = features @ answer.arrays["weight"].T.astype(float) + answer.arrays["bias"]
    assert np.abs(scores - linear).max() < 1e-5 * max(1, np.abs(linear).max())
    again = vizapp.load("own/patterns", device="cpu")
    assert again.digest == new.digest
    assert all(torch.equal(again.scores(batch), new.scores(batch)) for batch in batches[:3])


def test_it_is_listed_described_and_used_by_the_command_line(
    base: Network, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["teach", "--network", BASE, "--device", "cpu", "--folder", str(photos), "--name", "mine-1"]) == 0
    assert "own/mine-1" in capsys.readouterr().out
    assert vizapp.list_networks()[0] == "own/mine-1"
    assert list(describe_all()) == vizapp.list_networks()
    card = describe("own/mine-1")
    new = vizapp.load("own/mine-1", device="cpu")
    assert (card.published, card.parameters, card.task) == (True, new.parameters, "classification")
    assert main(["networks", "own/"]) == 0
    assert capsys.readouterr().out == "own/mine-1\n"
    photo = str(photos / "bars" / "00.png")
    assert main(["predict", "--network", "own/mine-1", "--device", "cpu", "--picture", photo, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"][0]["name"] in CLASSES
    told = vizapp.ask("evaluate", new, folder=photos).facts
    assert told["learned from"].startswith("own/mine-1 learned from ")
    assert "learned from" not in vizapp.ask("evaluate", vizapp.teach(base, photos), folder=photos).facts
    other = vizapp.load("own/mine-1", weights="none", device="cpu")
    assert other.categories == CLASSES
    assert other.digest == vizapp.load("own/mine-1", weights="none", device="cpu").digest != new.digest


def test_methods_take_it(base: Network, photos: Path) -> None:
    new = vizapp.teach(base, photos)
    photo, unit = photos / "dots" / "01.png", vizapp.class_unit(new, "dots")
    batch = new.prepare(photo)
    shares = torch.softmax(new.scores(batch), 1)[0].numpy()
    assert vizapp.ask("predict", new, picture=photo).arrays["probabilities"] == pytest.approx(shares, abs=1e-6)
    assert vizapp.ask("projection", new, picture=photo, unit=unit).arrays["projection"].any()
    swept = vizapp.ask("occlusion", new, picture=photo, unit=unit, window=14, stride=14).arrays["logit"]
    assert swept.shape == (2, 2)
    assert vizapp.ask("dense", new, picture=noise(60, 60)).arrays["scores"].shape[0] == 3
    assert vizapp.ask("attribution", new, picture=photo, unit=unit, kind="gradcam").arrays["attribution"].any()
    assert vizapp.ask("knockout", new, picture=photo).arrays["logit_change"].any()
    probed = vizapp.ask("probe", new, folder=photos, sites="features.1", photos=3, splits=1)
    assert probed.arrays["accuracy"].shape == (1, 1)


# Which networks can be taught


def _lenet_like() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 60 * 60, 6), nn.ReLU(), nn.Linear(6, 5)
    )


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: torchvision.models.squeezenet1_1(), "classifier.1"),
        (lambda: torchvision.models.resnet18(), "fc"),
        (lambda: torchvision.models.mobilenet_v3_small(), "classifier.3"),
        (_lenet_like, "5"),
    ],
)
def test_the_last_layer_is_replaced_wherever_it_is_linear(build, path: str) -> None:  # type: ignore[no-untyped-def]
    """`find_last_layer` compares the scores of a random new layer with its weights times the features."""
    torch.manual_seed(0)
    network = vizapp.wrap(build().eval(), (3, 64, 64))
    assert find_last_layer(network).path == path


class Ends(nn.Module):
    """Scores that are not those of one linear layer behind features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.convolution = kind, nn.Conv2d(3, 4, 3)
        self.first, self.second, self.wide = nn.Linear(4, 5), nn.Linear(4, 5), nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.convolution(x).relu().mean((2, 3))
        if self.kind == "sum of two":
            return self.first(features) + self.second(features)
        if self.kind == "distance":
            return -(features[:, None] - self.first.weight).square().sum(2)
        if self.kind == "rectified":
            return self.first(features).relu()
        if self.kind == "wide kernel":
            return self.wide(x).mean((2, 3))
        return self.first(features).view(len(x), 5) * torch.ones(5)  # expects as many classes as it had


@pytest.mark.parametrize("kind", ["sum of two", "distance", "rectified", "wide kernel", "five classes"])
def test_a_network_without_such_a_layer_is_refused_with_a_sentence(kind: str) -> None:
    network = vizapp.wrap(Ends(kind).eval(), (3, 12, 12), name="odd")
    with pytest.raises(VizError, match="odd cannot be taught new classes") as caught:
        find_last_layer(network)
    assert caught.value.code == "no-linear-head"


# Names and files


@pytest.mark.parametrize("name", ["a/b", "../up", "a b", ".hidden", "é", "x.pt2", "-x", "a" * 65, "own/"])
def test_names_have_safe_characters(base: Network, photos: Path, name: str) -> None:
    with pytest.raises(VizError) as caught:
        vizapp.ask("teach", base, folder=photos, name=name)
    assert caught.value.code == "bad-network-name"


def test_a_name_is_replaced_only_on_request(base: Network, photos: Path) -> None:
    first = vizapp.teach(base, photos, name="once")
    with pytest.raises(VizError) as caught:
        vizapp.teach(base, photos, name="once", seed=1)
    assert caught.value.code == "name-taken"
    assert vizapp.load("own/once", device="cpu").digest == first.digest
    assert vizapp.teach(base, photos, name="own/once", seed=1, replace=True).digest != first.digest


def change(key: str, value: object) -> None:
    place = settings().cache / "own" / "one.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {key: value}))


def test_what_is_missing_or_changed_is_a_sentence(base: Network, photos: Path) -> None:
    vizapp.teach(base, photos, name="one")
    place = settings().cache / "own" / "one.json"
    text, layer = place.read_text(), place.with_suffix(".safetensors").read_bytes()
    for key, value, code in (
        ("digest", "0" * 64, "base-changed"), ("network", "vizapp/gone", "no-such-network"),
        ("format", "own 9", "taught-damaged"), ("path", "nowhere", "taught-damaged"),
        ("features", "nowhere", "taught-damaged"), ("classes", 3, "taught-damaged"),
    ):  # fmt: skip
        change(key, value)
        with pytest.raises(VizError) as caught:
            vizapp.load("own/one", device="cpu")
        assert caught.value.code == code, key
        assert "own/one" in str(caught.value)
        place.write_text(text)
    place.with_suffix(".safetensors").write_bytes(layer[:-4] + b"\1\2\3\4")
    with pytest.raises(VizError) as caught:
        vizapp.load("own/one", device="cpu")
    assert caught.value.code == "taught-damaged"
    place.write_text("{")
    assert vizapp.list_networks()[0] == "own/one"  # so that its sentence can be read
    assert "own/one" not in describe_all()
    for name, code in (
        ("own/one", "taught-damaged"),
        ("own/other", "no-such-network"),
        ("own/../one", "no-such-network"),
    ):
        with pytest.raises(VizError) as caught:
            vizapp.load(name, device="cpu")
        assert caught.value.code == code
    place.write_text(text)
    place.with_suffix(".safetensors").write_bytes(layer)
    for options in ({"weights": "x.pth"}, {"classes": 3}, {"output": "0"}):
        with pytest.raises(VizError, match="own/one"):
            vizapp.load("own/one", device="cpu", **options)


def test_a_network_that_no_name_opens_again_is_taught_but_not_kept(base: Network, photos: Path, cache: Path) -> None:
    torch.manual_seed(0)
    wrapped = vizapp.wrap(nn.Sequential(nn.Conv2d(1, 4, 7, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)), (1, 28, 28))
    changed = vizapp.Intervention("features.1", 0)
    kept = vizapp.teach(base, photos, name="first")
    otherwise = vizapp.load(BASE, device="cpu", preprocessing=replace(base.preprocessing, mean=(0.5,)))
    for network, options in ((wrapped, {}), (base, {"interventions": [changed]}), (kept, {}), (otherwise, {})):
        with pytest.raises(VizError) as caught:
            vizapp.ask("teach", network, folder=photos, name="second", **options)
        assert caught.value.code == "cannot-be-kept"
    assert vizapp.teach(wrapped, photos).categories == CLASSES
    assert [path.stem for path in (cache / "own").glob("*.json")] == ["first"]


def test_the_method_tells_how_many_photos_it_learned_from(base: Network, photos: Path) -> None:
    result = vizapp.ask("teach", base, folder=photos)
    assert [(row["class"], row["learned from"], row["tested on"]) for row in result.table] == [
        (n, 6, 2) for n in CLASSES
    ]
    assert result.arrays["accuracy"] == pytest.approx(np.mean([row["right"] for row in result.table]))
    assert result.facts["taught"] == "not kept, as it has no name"
    assert METHOD.summary.startswith("A network that knows the classes of your folder")
