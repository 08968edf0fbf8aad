"""Choosing a network: what is here, what must be downloaded, and what is never said about other weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from torchvision import models

from tests.ui.app import PAGES, Open, chosen, click, sentences, shown, went_well
from vizapp.zoo import bundled, registry

LITE = "vizapp/efficientnet-lite0"
BADGE = '<span class="vz-badge">{}</span>'


def rows(app: AppTest, key: str = "sidebar.network") -> dict[str, tuple[str, str, str, str]]:
    """Group, task, parameters and download of each network in a chooser."""
    data = shown(app, key)
    return {name: (data["groups"][group], *rest) for name, group, *rest in data["rows"]}


def said(app: AppTest) -> str:
    """All text of a page but the names in its choosers."""
    texts = [one.value for kind in (app.caption, app.markdown, app.metric, app.table) for one in kind]
    texts += [one.proto.body for one in app.get("html")] + [one.value.to_csv() for one in app.dataframe]
    return " ".join(map(str, texts))


def test_networks_are_grouped_by_where_their_weights_are(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"")  # is not read
    monkeypatch.setenv("VIZAPP_WEIGHTS", str(tmp_path))
    found = rows(open_app())
    assert found[LITE][0] == found["torchvision/resnet18"][0] == "On this machine"
    assert found["torchvision/resnet34"][0] == found["timm/resnet18"][0] == "Needs download"
    assert found["vizapp/alexnet-2012"][0] == "No published weights"
    assert next(iter(found)) == LITE
    groups = [group for group, *_ in found.values()]
    assert groups == sorted(groups, key=registry.GROUPS.index)


def test_the_size_of_a_download_is_that_of_the_library(open_app: Open) -> None:
    found = rows(open_app())
    mebibytes = models.get_model_weights("resnet34").DEFAULT.meta["_file_size"]
    assert found["torchvision/resnet34"][1:] == ("Classification", "21.8 M", f"{mebibytes * 2**20 / 1e6:.0f} MB")
    assert found[LITE][3] == found["timm/resnet34"][3] == ""
    tasks = {name: task for name, (_, task, *_) in found.items()}
    assert tasks["torchvision/ssd300_vgg16"] == "Detection"
    assert tasks["torchvision/fcn_resnet50"] == "Segmentation"
    assert tasks["timm/aimv2_1b_patch14_224"] == "Features"
    assert shown(open_app(), "sidebar.network")["tasks"] == ["Classification", "Segmentation", "Detection", "Features"]


def test_a_second_network_of_occlusion_is_chosen_from_the_same_groups(open_app: Open) -> None:
    app, key = open_app("occlusion", window="14", stride="14"), "occlusion.second.network"
    found = shown(app, key)
    assert (found["chosen"], found["none"]) == ("", "The same network")
    assert rows(app, key) == {"": ("On this machine", "", "", "")} | rows(app)
    click(app, key, "chosen", "vizapp/zfnet-mini")
    assert shown(app, key)["chosen"] == chosen(app, "network2") == "vizapp/zfnet-mini"
    click(app, "sidebar.network", "chosen", "")
    assert shown(app, "sidebar.network")["chosen"] == "vizapp/lenet5-digits", "there must be one"
    click(app, key, "chosen", "")
    assert went_well(app)
    assert "network2" not in app.query_params


def test_a_name_that_is_not_offered_chooses_nothing(open_app: Open) -> None:
    app = open_app()
    for name in ("vizapp/none", "/etc/passwd", ["a"], None):
        click(app, "sidebar.network", "chosen", name)
        assert went_well(app)
        assert shown(app, "sidebar.network")["chosen"] == "vizapp/lenet5-digits"
    assert not sentences(app)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_that_weights_are_random_and_no_accuracy_of_others(
    open_app: Open, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "_accuracy", lambda file: 37.625)
    app = open_app(page, weights="random", other="vizapp/zfnet-mini")  # else Compare shows the trained default
    assert went_well(app)
    assert BADGE.format("random weights") in said(app)
    assert not re.search(r"37\.6", said(app))


@pytest.mark.parametrize(
    ("weights", "badge"), [("published", ""), ("random", "random weights"), ("file", "own weights")]
)
def test_the_comparison_marks_the_network_with_its_published_weights_alone(
    open_app: Open, weights: str, badge: str
) -> None:
    app = open_app("architecture", aspect="comparison", network="torchvision/resnet18", weights=weights)
    assert went_well(app)
    assert BADGE.format(badge) in said(app)
    assert (f"None of these accuracies is that of your network: it has {badge}." in said(app)) == bool(badge)
    figure = app.get("plotly_chart")[0].proto.spec
    first = json.loads(figure)["data"][0]["customdata"]
    assert [name for name, _ in first] == ([] if badge else ["torchvision/resnet18"])
