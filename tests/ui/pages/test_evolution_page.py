"""The page During training: what it shows is what `ask` answers, and a folder that grows is looked at again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import saved
from tests.ui.app import Open, chosen, click, offered, pixels, sentences, shown, went_well, words
from vizapp.media.drawing import contrasted
from vizapp.media.samples import open_sample
from vizapp.ui.session import progress
from vizapp.zoo.classic.lenet import LeNet5

PLAYER = "evolution.player"


@pytest.fixture(autouse=True)
def wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)  # the page waits for its answers, on a busy machine too


@pytest.fixture
def address(tmp_path: Path) -> dict[str, str]:
    """Three digits in folders that are classes, and two checkpoints of a LeNet-5."""
    for digit in (3, 5, 8):
        folder = tmp_path / "digits" / str(digit)
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(saved(open_sample(f"digit {digit}").pixels))
    (tmp_path / "run").mkdir()
    for epoch in (4, 20):
        save(tmp_path / "run", epoch)
    return {"evolution.checkpoints": str(tmp_path / "run"), "data": str(tmp_path / "digits")}


def save(folder: Path, epoch: int) -> None:
    torch.manual_seed(epoch)
    torch.save(LeNet5(10).state_dict(), folder / f"epoch-{epoch}.pt")


def test_the_page_shows_what_ask_answers(open_app: Open, address: dict[str, str]) -> None:
    app = open_app("evolution", **address, **{"evolution.units": "3", "evolution.seed": "4"})
    assert went_well(app)
    assert not app.warning
    net = vizapp.load("vizapp/lenet5-digits")
    folder = address["evolution.checkpoints"]
    found = vizapp.ask("evolution", net, folder=address["data"], checkpoints=folder, units=3, seed=4)
    data = shown(app, PLAYER)
    assert data["ticks"] == ["4", "20"]
    assert data["at"] == 1
    assert data["accuracy"] == found.arrays["accuracy"].tolist()
    assert [row["title"] for row in data["rows"]] == [f"unit {n}" for n in found.arrays["channels"]]
    assert [row["jumps"] for row in data["rows"]] == found.arrays["jump"].tolist()
    assert [row["notes"] for row in data["rows"]] == [[f"{v:.3g}" for v in row] for row in found.arrays["activation"]]
    sheet, (height, width) = pixels(data["projections"]), found.arrays["projection"].shape[2:4]
    assert sheet.shape == (3 * height, 2 * width, 3)
    for unit, epoch in ((0, 0), (2, 1)):
        cell = sheet[unit * height : (unit + 1) * height, epoch * width : (epoch + 1) * width]
        assert np.array_equal(cell, contrasted(found.arrays["projection"][unit, epoch]))
    assert len(data["kernels"]) == 2
    assert len(app.get("plotly_chart")) == 2
    assert offered(app)[-4:] == ["Arrays NPZ", "Table CSV", "Film GIF", "Film WebM"]
    assert "epoch 4, 20" in words(app)


def test_the_chosen_epoch_and_unit_are_in_the_link(open_app: Open, address: dict[str, str]) -> None:
    app = open_app("evolution", **address, epoch="4", layer="features.3")
    assert shown(app, PLAYER)["at"] == 0
    click(app, PLAYER, "epoch", 1)
    assert chosen(app, "epoch") == "20"
    assert shown(app, PLAYER)["at"] == 1
    assert app.selectbox(key="evolution.layer").value == "features.3"
    before = shown(app, PLAYER)["rows"]
    app.button(key="evolution.shuffle").click().run()
    assert chosen(app, "evolution.seed") == "1"
    assert shown(app, PLAYER)["rows"] != before


def test_a_folder_that_grows_is_looked_at_again_on_request(open_app: Open, address: dict[str, str]) -> None:
    app = open_app("evolution", **address)
    folder = Path(address["evolution.checkpoints"])
    save(folder, 100)
    (folder / "epoch-120.pt").write_bytes(b"PK\x03\x04 half a file")
    app.button(key="evolution.look_again").click().run()
    assert went_well(app)
    assert shown(app, PLAYER)["ticks"] == ["4", "20", "100"]
    assert "1 other entry in the folder: epoch-120.pt" in words(app)


def test_a_checkpoint_of_another_network_hides_none_of_the_others(open_app: Open, address: dict[str, str]) -> None:
    torch.save(torch.nn.Linear(3, 2).state_dict(), Path(address["evolution.checkpoints"]) / "epoch-30.pt")
    app = open_app("evolution", **address)
    assert went_well(app)
    assert shown(app, PLAYER)["ticks"] == ["4", "20"]
    assert "'epoch-30.pt' belongs to another network than vizapp/lenet5-digits: it lacks features.0.weight" in words(
        app
    )
    assert not app.warning
    assert "evolution.go_on" not in {button.key for button in app.button}


@pytest.mark.slow
def test_another_network_shows_the_example_and_takes_it_by_one_click(open_app: Open, address: dict[str, str]) -> None:
    app = open_app("evolution", network="vizapp/zfnet-mini", weights="random")
    assert went_well(app)
    assert "An example: a training of vizapp/lenet5-digits" in words(app)
    assert shown(app, PLAYER)["ticks"][-1] == "150"
    app.button(key="evolution.example").click().run()
    assert shown(app, "sidebar.network")["chosen"] == "vizapp/lenet5-digits"
    assert "An example" not in words(app)


@pytest.mark.parametrize("fault", ["gone", "empty", "foreign"])
def test_what_is_wrong_with_the_folder_is_a_sentence(open_app: Open, address: dict[str, str], fault: str) -> None:
    folder = Path(address["evolution.checkpoints"])
    for path in list(folder.iterdir()):
        path.unlink()
    if fault == "foreign":
        torch.save(torch.nn.Linear(3, 2).state_dict(), folder / "epoch-30.pt")
    if fault == "gone":
        folder.rmdir()
    app = open_app("evolution", **address)
    assert went_well(app)
    told = {
        "gone": "does not exist",
        "empty": "it is empty",
        "foreign": "'epoch-30.pt' belongs to another network than vizapp/lenet5-digits: it lacks features.0.weight",
    }
    assert told[fault] in sentences(app)
    app.button(key="evolution.forget").click().run()
    assert "evolution.checkpoints" not in app.query_params


def test_on_a_server_only_folders_of_the_root_are_opened(
    open_app: Open, address: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", "server")
    monkeypatch.setenv("VIZAPP_ROOT", str(tmp_path / "digits"))
    app = open_app("evolution", **(address | {"data": "digits"}))
    assert went_well(app)
    assert "outside of the folder that users of this server may open" in sentences(app)
    assert not shown_keys(app)


def shown_keys(app: AppTest) -> list[str]:
    return [element.proto.id for element in app.get("bidi_component") if PLAYER in element.proto.id]


def test_the_film_has_a_frame_for_each_checkpoint(address: dict[str, str]) -> None:
    from PIL import Image

    from vizapp.media.film import to_gif
    from vizapp.methods.evolution_film import Film

    net = vizapp.load("vizapp/lenet5-digits")
    found = vizapp.ask("evolution", net, folder=address["data"], checkpoints=address["evolution.checkpoints"], units=2)
    film = Film(found, "a layer")
    assert [frame.shape for frame in film] == [(720, 1280, 3)] * 2
    assert (film[0] != film[1]).any()
    assert Image.open(io.BytesIO(to_gif(film, 2))).n_frames == 2
