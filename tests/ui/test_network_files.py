"""Networks from files in the app: chosen by path, kept in links, refused where files are not to be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.ui.app import Open, chosen, click, sentences, shown, went_well, words
from vizapp.zoo.classic.lenet import LeNet5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 32, 32),)), where / "tiny.pt2")
    (where / "broken.pt2").write_bytes(b"garbage")
    state = {f"other.{number}": value for number, value in enumerate(LeNet5(10).state_dict().values())}
    torch.save(state, where / "foreign.pth")
    return where


def from_file(app: Any, path: Path | str) -> Any:
    return app.text_input(key="sidebar.checkpoint_path").set_value(str(path)).run()


def test_a_network_of_a_file_is_chosen_by_its_path_and_kept_in_the_link(open_app: Open, folder: Path) -> None:
    app = from_file(open_app("predict", weights="file"), folder / "tiny.pt2")
    assert went_well(app), sentences(app)
    assert chosen(app, "network") == str(folder / "tiny.pt2")
    assert shown(app, "sidebar.network")["chosen"] == str(folder / "tiny.pt2")
    assert "32 px" in words(app)
    again = open_app("predict", network=chosen(app, "network"))
    assert went_well(again)
    assert not sentences(again)
    assert "32 px" in words(again)
    click(again, "sidebar.network", "chosen", "vizapp/lenet5-digits")
    assert went_well(again)
    assert "tiny.pt2" not in str(again.query_params)


def test_damaged_and_missing_files_are_answered_in_a_sentence(open_app: Open, folder: Path) -> None:
    app = open_app("predict", network=str(folder / "broken.pt2"))
    assert went_well(app)
    assert "broken.pt2" in sentences(app)
    app = open_app("predict", network=str(folder / "missing"))
    assert went_well(app)
    assert "link's choice of network was ignored" in sentences(app)


def test_files_are_opened_inside_of_the_root_alone(
    open_app: Open, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    app = open_app("predict", network=str(folder / "tiny.pt2"))
    assert "was ignored" in sentences(app)
    monkeypatch.setenv("VIZAPP_ROOT", str(tmp_path))
    app = open_app("predict", network=str(folder / "tiny.pt2"))
    assert "was ignored" in sentences(app)
    monkeypatch.setenv("VIZAPP_ROOT", str(folder))
    app = from_file(open_app("predict", weights="file"), "tiny.pt2")
    assert went_well(app)
    assert chosen(app, "network") == "tiny.pt2"
    assert "32 px" in words(app)


def test_foreign_names_are_shown_and_matched_after_a_click(open_app: Open, folder: Path) -> None:
    app = open_app("predict", network="vizapp/lenet5-digits", weights="file", checkpoint=str(folder / "foreign.pth"))
    assert "match in order" in sentences(app)
    (table,) = app.dataframe
    assert table.value.iloc[0, 0] == "other.0"
    app.button(key="weights.rename").click().run()
    assert went_well(app)
    assert "match in order" not in sentences(app)
    assert not [button for button in app.button if button.key == "weights.rename"]
