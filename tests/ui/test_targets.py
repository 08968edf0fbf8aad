"""Targets in the app: the bar that says what is explained, links, the picker, and Predict of a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.ui.app import ASKING, Open, chosen, click, sentences, shown, turn_to, went_well, words
from vizapp.media.drawing import to_png
from vizapp.media.samples import open_sample
from vizapp.ui.inputs import networks
from vizapp.ui.pages.occlusion import sweep_runs
from vizapp.zoo.network import Network
from vizapp.zoo.target import Target, class_map_logits

SIDE, PHOTO = 24, "flower"
FITS = {"network": "vizapp/resnet20-cifar", "weights": "random", "picture": PHOTO}
EXPLAIN = ("**What you see", "**How to read", "**Beware")  # general sentences of a page
NAMES = ("background", "red", "blue")


class Colours(nn.Module):
    """A class map at half the size: the background is what is dark, the rest is red or blue."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.mean.weight.data = torch.eye(4, 3)[:, :, None, None].expand(4, 3, 3, 3) / 9
        self.act = nn.ReLU()
        self.mix = nn.Conv2d(4, 3, 1)
        self.mix.weight.data = torch.tensor([[0, 0, 0, 0], [8, -4, -2, 0], [-4, -2, 8, 0]]).float()[:, :, None, None]
        self.mix.bias = nn.Parameter(torch.tensor([0.3, 0.0, 0.0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.mix(self.act(self.mean(x)))}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """The network that the app opens under the name of the links below."""
    made = vizapp.wrap(
        Colours(), (3, SIDE, SIDE), mean=0.0, std=1.0, categories=NAMES, name="tests/colours", device="cpu"
    )
    monkeypatch.setattr(networks, "load", lambda name, **options: made)
    return made


def bar(app: Any) -> str:
    return " ".join(html.proto.body for html in app.get("html") if "<b>Explained</b>" in html.proto.body)


def label(network: Network) -> np.ndarray:
    return class_map_logits(network, network.prepare(open_sample(PHOTO)))[0].argmax(0).numpy()


def test_pages_explain_the_largest_predicted_class_unless_something_is_chosen(open_app: Open, network: Network) -> None:
    app = open_app("knockout", **FITS)
    assert went_well(app)
    counts = np.bincount(label(network).ravel(), minlength=3)
    first = 1 + int(counts[1:].argmax())  # not the background
    assert f"region predicted as {NAMES[first]}, {counts[first]} cells" in bar(app)
    assert "target" not in app.query_params
    told = vizapp.ask("predict", network, open_sample(PHOTO), target=Target(region="predicted"))
    share = 100 * float(told.arrays["probabilities"][first])
    assert f"**{NAMES[first]}**, {share:.1f} %." in " ".join(one.value for one in app.markdown)


def test_a_link_names_a_target_that_pages_share_until_it_is_taken_back(open_app: Open, network: Network) -> None:
    app = open_app("knockout", **FITS, target="class=blue cell=3,5")
    assert went_well(app)
    assert "blue, cell 3,5" in bar(app)
    told = vizapp.ask("predict", network, open_sample(PHOTO), target=Target("blue", cell=(3, 5)))
    share = 100 * float(told.arrays["probabilities"][2])
    assert f"**blue**, {share:.1f} %." in " ".join(one.value for one in app.markdown)
    app = turn_to(app, "occlusion")
    assert went_well(app)
    assert chosen(app, "target") == "class=blue cell=3,5"
    assert f"{share:.1f} % unhidden" in words(app)
    app.button(key="target.restore").click().run()
    assert "target" not in app.query_params
    assert "region predicted as" in bar(app)
    assert went_well(app)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("cell=99,0", "The target cell=99,0 was dropped. The class map has cells 0,0 to 11,11"),
        ("class=green region=whole", "no class 'green'"),
        ("box=0", "returns no boxes"),
        ("nonsense", "is not a target"),
    ],
)
def test_what_does_not_fit_is_dropped_with_a_sentence(open_app: Open, network: Network, target: str, told: str) -> None:
    app = open_app("knockout", **FITS, target=target)
    assert went_well(app)
    assert told in sentences(app)
    assert "target" not in app.query_params
    app.run()
    assert told in sentences(app) or target == "nonsense", "it stays until something else is chosen"


@pytest.mark.parametrize("how", ["region={}", "region=whole {}", "embedding={}"])
def test_links_open_no_files_of_the_machine(open_app: Open, network: Network, how: str, tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(to_png(np.full((SIDE, SIDE, 3), 255, np.uint8)))
    app = open_app("knockout", **FITS, target=how.format(tmp_path / "mask.png"))
    assert went_well(app)
    assert "target" not in app.query_params
    assert "is not a target" in sentences(app) or "no sample photo" in sentences(app)


def test_another_network_has_no_target(open_app: Open, network: Network) -> None:
    app = open_app("knockout", **FITS, target="cell=3,5")
    app = click(app, "sidebar.network", "chosen", "vizapp/lenet5-digits")
    assert "target" not in app.query_params


def test_the_picker_chooses_class_and_place(open_app: Open, network: Network) -> None:
    app = open_app("knockout", **FITS | {"picture": "chelsea"})
    assert app.selectbox(key="target.chosen_class").value == -1, "the strongest there"
    app.selectbox(key="target.chosen_class").select("blue").run()
    assert chosen(app, "target") == "class=2 region=whole", "it is predicted nowhere"
    app = open_app("knockout", **FITS)
    app.selectbox(key="target.chosen_class").select("blue").run()
    assert chosen(app, "target") == "class=2 region=predicted"
    app.button_group(key="target.where").set_value("cell").run()
    assert chosen(app, "target") == "class=2 cell=6,6"
    app = click(app, "target.cell", "cell", [1, 2])
    assert chosen(app, "target") == "class=2 cell=1,2"
    assert "blue, cell 1,2" in bar(app)
    app.button_group(key="target.where").set_value("box").run()
    assert chosen(app, "target") == "class=2 region=6,6,18,18"
    app = click(app, "target.box", "box", [0, 0, 4, 8])
    assert chosen(app, "target") == "class=2 region=0,0,4,8"
    assert went_well(app)


def test_predict_draws_the_label_map_whose_cells_and_classes_are_explained_by_a_click(
    open_app: Open, network: Network
) -> None:
    app = open_app("predict", **FITS)
    assert went_well(app)
    right = label(network)
    data = shown(app, "predict.labels")
    assert data["cells"] == [12, 12]
    assert data["grey"], "the photo has no colours of its own below those of the classes"
    panel = vizapp.ask("predict", network, open_sample(PHOTO)).panels[1].pixels
    zoom = panel.shape[1] // 12
    assert (panel[: 12 * zoom : zoom, ::zoom][right == 0] == 128).all(), "the background has no colour, here and there"
    areas = {row["item"]: row["share"] for row in shown(app, "predict.areas")["rows"]}
    assert areas == pytest.approx({int(one): float((right == one).mean()) for one in np.unique(right)})
    app = click(app, "predict.labels", "cell", [2, 7])
    assert chosen(app, "target") == "cell=2,7"
    assert shown(app, "predict.labels")["cell"] == [2, 7]
    assert all("cell%3D2%2C7" in link.proto.query_string for link in app.get("page_link") if link.proto.page != "")
    app = click(app, "predict.areas", "item", 0)
    assert chosen(app, "target") == "class=0 region=predicted"
    assert went_well(app)


class Embedding(nn.Module):
    """A vector of unit length: the colours of the photo's quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = Colours().mean

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.mean(x), 2)
        return nn.functional.normalize(pooled.flatten(1), dim=1)


@pytest.mark.parametrize("page", ["predict", "occlusion", "knockout", "transform", "compare", "sanity", "attribution"])
def test_likeness_to_another_photo_is_told_as_a_cosine(
    open_app: Open, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vizapp.wrap(Embedding(), (3, SIDE, SIDE), mean=0.0, std=1.0, name="tests/embedding", device="cpu")
    monkeypatch.setattr(networks, "load", lambda name, **options: made)
    app = open_app(page, **FITS, target="embedding=coffee")
    assert went_well(app)
    assert chosen(app, "target") == "embedding=coffee"
    assert "cosine with coffee" in bar(app)
    other = vizapp.ask("predict", made, open_sample(PHOTO), target=Target(embedding=open_sample("coffee")))
    drawn = [html.proto.body for html in app.get("html") if html.proto.body.startswith('<div class="vz-head')]
    said = " ".join([*drawn, words(app), *(one.value for one in app.markdown if not one.value.startswith(EXPLAIN))])
    assert "robabilit" not in said
    if page != "predict":
        cosine = f"{float(other.arrays['logits'][0]):.3f}"
        bars = {"compare": "compare.bars.0", "sanity": "sanity.bars"}.get(page)
        assert shown(app, bars)["rows"][0]["told"] == cosine if bars else cosine in said
        if page == "attribution":
            assert not shown(app, "attribution.curves")["share"], "a cosine is no percentage"
        assert app.selectbox(key="target.photo").value == "coffee"


@pytest.mark.slow
@pytest.mark.parametrize("page", ASKING)
def test_every_page_opens_with_a_segmenter(open_app: Open, network: Network, page: str) -> None:
    app = open_app(page, **FITS)
    assert went_well(app)
    assert page in ("dense", "evaluate") or "returns no class scores" not in sentences(app), (
        "these two need a classifier"
    )


@pytest.mark.parametrize("page", ["occlusion", "attribution", "transform"])
def test_several_photos_are_not_asked_about_the_region_of_one(open_app: Open, network: Network, page: str) -> None:
    several = {"way": "several"} if page == "occlusion" else {"several": "on"}
    app = open_app(page, **FITS, **several, target="class=blue region=predicted")
    assert went_well(app)
    assert "was found on one photo" in words(app)
    app = open_app(page, **FITS, **several, target="class=blue region=whole")
    assert went_well(app)
    assert "was found on one photo" not in words(app)


@pytest.mark.parametrize("page", ["attribution", "transform", "compare", "start"])
def test_the_class_of_the_target_is_explained_though_another_one_is_stronger(
    open_app: Open, network: Network, page: str
) -> None:
    shares = vizapp.ask("predict", network, open_sample(PHOTO), target=Target("red", cell=(3, 5))).arrays[
        "probabilities"
    ]
    weakest = int(shares.argmin())
    assert weakest != shares.argmax()
    app = open_app(page, **FITS, target=f"class={NAMES[weakest]} cell=3,5")
    assert went_well(app)
    drawn = " ".join([*(html.proto.body for html in app.get("html")), words(app), *(one.value for one in app.markdown)])
    name, percent = NAMES[weakest], f"{100 * shares[weakest]:.1f} %"
    expected = {
        "attribution": f"Explains **{name}**, {percent}", "transform": f"{name}: {percent} →",
        "compare": f"{name}: {percent} unhidden", "start": f"Bright: speaks for {name}",
    }  # fmt: skip
    assert expected[page] in drawn
    if page == "start":
        assert f"hiding it lowers {name}" in drawn
        assert f"{name}: {percent} →" in drawn
        assert shown(app, "start.answers")["rows"][0]["name"] == name


def test_projection_explains_the_default_and_predict_links_to_it(open_app: Open, network: Network) -> None:
    app = open_app("projection", **FITS)
    assert went_well(app)
    counts = np.bincount(label(network).ravel(), minlength=3)
    first = 1 + int(counts[1:].argmax())
    assert f"region predicted as {NAMES[first]}" in bar(app)
    assert app.selectbox(key="projection.layer").value == "target"
    assert app.selectbox(key="projection.class").value == first
    app = open_app("predict", **FITS)
    queries = [link.proto.query_string for link in app.get("page_link") if "projection" in link.proto.page]
    assert any("target=region%3Dpredicted" in one and "layer=target" in one for one in queries), queries


def test_a_stride_that_nobody_chose_goes_with_the_target(
    open_app: Open, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_runs, "FIRST", 0.0)
    app = open_app("occlusion", **FITS, target="cell=3,5")
    assert "stride" in app.query_params
    monkeypatch.setattr(sweep_runs, "FIRST", 1000.0)
    app.button(key="target.restore").click().run()
    assert went_well(app)
    assert "stride" not in app.query_params
    app.number_input(key="occlusion.stride").set_value(5).run()
    app.selectbox(key="target.chosen_class").select("blue").run()
    assert chosen(app, "stride") == "5"
