"""Choosing a photo: uploads kept as a strip, thumbnails of folders, the photo before and after; the limits of uploads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from tests.media.files import noise, saved
from tests.ui.app import Open, chosen, click, pixels, sentences, shown, turn_to, went_well
from vizapp.media.picture import open_picture, open_thumbnail
from vizapp.ui.inputs import images, uploads
from vizapp.ui.session import access

Files = list[tuple[str, bytes, str]]


def photo(seed: int, name: str = "") -> tuple[str, bytes, str]:
    return (name or f"{seed}.png", saved(noise(40, 50, seed=seed)), "image/png")


def upload(app: AppTest, *files: tuple[str, bytes, str], page: str = "sidebar") -> AppTest:
    """The app after these files were dropped at once."""
    (uploader,) = (one for one in app.file_uploader if one.key.startswith(f"{page}.upload"))
    return uploader.set_value(list(files)).run()


def strip(app: AppTest, page: str = "sidebar") -> list[str]:
    """The names in the strip of uploads; the chosen one has a star."""
    data = shown(app, f"{page}.strip")
    return [
        f"{title}{'*' * (item == data['chosen'])}" for item, title in zip(data["items"], data["titles"], strict=True)
    ]


def opened(open_app: Open, source: str) -> AppTest:
    return open_app().segmented_control(key="sidebar.source").set_value(source).run()


def test_uploads_are_kept_as_a_strip_on_all_pages(open_app: Open) -> None:
    app = upload(opened(open_app, "upload"), photo(1), photo(2))
    assert strip(app) == ["1.png*", "2.png"]
    upload(app, photo(3))
    assert strip(app) == ["1.png", "2.png", "3.png*"]
    turn_to(app, "feature_maps")
    assert strip(app) == ["1.png", "2.png", "3.png*"]
    turn_to(app, "start")
    assert strip(app, "start") == ["1.png", "2.png", "3.png*"]
    click(app, "start.strip", "chosen", shown(app, "start.strip")["items"][0])
    turn_to(app, "predict")
    assert strip(app) == ["1.png*", "2.png", "3.png"]
    assert app.session_state["picture.origin"][2] == "1.png"
    sheet = pixels(shown(app, "sidebar.strip")["sprite"])
    assert sheet.shape == (images.THUMB, 3 * images.THUMB, 3)
    expected = images.thumb(open_picture(noise(40, 50, seed=3)))
    assert (sheet[:, 2 * images.THUMB :] == expected).all()
    assert went_well(app)


def test_the_same_photo_is_one_entry_and_can_be_removed(open_app: Open) -> None:
    app = upload(opened(open_app, "upload"), photo(1), photo(2), photo(1, "again.png"), photo(2))
    assert sorted(name.strip("*") for name in strip(app)) == ["1.png", "2.png"]
    click(app, "sidebar.strip", "chosen", shown(app, "sidebar.strip")["items"][0])
    digest = app.session_state["picture.origin"][1]
    app.button(key="sidebar.remove").click().run()
    assert strip(app) == ["2.png*"]
    assert not uploads.upload_registry().has(app.session_state["person"], ("picture", digest))
    assert ("given", digest) not in dict(images.decoded_pictures().items())
    app.button(key="sidebar.remove").click().run()
    assert went_well(app)
    assert "picture" not in app.query_params
    assert not [one for one in app.get("bidi_component") if "sidebar.strip" in one.proto.id]


def test_a_file_that_is_no_photo_among_others_is_told_and_the_photos_are_kept(open_app: Open) -> None:
    app = upload(opened(open_app, "upload"), ("letter.txt", b"Dear network", "text/plain"), photo(1))
    assert "letter.txt" in sentences(app)
    assert strip(app) == ["1.png*"]
    assert went_well(app)


def test_an_upload_of_a_link_is_in_the_strip_and_a_missing_one_is_not(open_app: Open) -> None:
    app = upload(opened(open_app, "upload"), photo(1))
    address = chosen(app, "picture")
    other = open_app(picture=address)
    assert strip(other) == ["1.png*"]
    other.segmented_control(key="sidebar.source").set_value("samples").run()
    click(other, "sidebar.samples", "chosen", "digit 3")
    other.segmented_control(key="sidebar.source").set_value("upload").run()
    assert strip(other) == ["1.png"]
    missing = open_app(picture=f"upload/{'0' * 64}")
    assert "not on this machine any more" in sentences(missing)
    assert not [one for one in missing.get("bidi_component") if "sidebar.strip" in one.proto.id]


def test_a_reload_brings_back_all_uploads_on_ones_own_machine(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = upload(opened(open_app, "upload"), photo(4))
    assert "uploads" not in alone.query_params, "the link says which"
    app = upload(opened(open_app, "upload"), photo(1), photo(2), photo(3))
    click(app, "sidebar.strip", "chosen", shown(app, "sidebar.strip")["items"][1])
    address = {name: chosen(app, name) for name in ("picture", "uploads")}
    again = open_app(**address)
    assert went_well(again)
    assert strip(again) == ["1.png", "2.png*", "3.png"]
    assert {name: chosen(again, name) for name in address} == address
    again.button(key="sidebar.remove").click().run()
    assert strip(again) == ["1.png", "3.png*"]
    assert strip(again.run()) == ["1.png", "3.png*"], "not brought back by the address before"
    on_start = open_app("start", picture="digit 3", uploads=address["uploads"])
    assert strip(on_start, "start") == ["1.png", "2.png", "3.png"], "a sample is shown"
    (gone,) = (tmp_path / "cache" / "uploads").glob(f"{address['uploads'].split(',')[0]}*")
    gone.unlink()
    left = open_app(picture=address["picture"], uploads=address["uploads"] + ",../../secret,*")
    assert strip(left) == ["2.png*", "3.png"]
    assert "not on this machine any more" in sentences(left)
    monkeypatch.setenv("VIZAPP_MODE", "server")
    server = open_app(**address)
    assert strip(server) == ["2.png*"], "a link that was passed on shows one photo"
    upload(server, photo(5))
    assert "uploads" not in server.query_params


def test_a_folder_shows_thumbnails_of_a_page_and_decodes_no_others(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, each = 300, 16
    for number in range(count):
        (tmp_path / f"{number:04}.png").write_bytes(b"no photo" if number == 1 else b"")
    for number in (0, 2, 20, 21):
        (tmp_path / f"{number:04}.png").write_bytes(saved(noise(20, 30, seed=number)))
    decoded: list[str] = []
    original = images.open_thumbnail
    monkeypatch.setattr(
        images, "open_thumbnail", lambda path, *more: (decoded.append(Path(path).name), original(path, *more))[1]
    )
    app = open_app(folder=str(tmp_path), picture="0020.png")
    assert went_well(app)
    data = shown(app, "sidebar.folder_sheet")
    assert data["items"] == [f"{number:04}.png" for number in range(16, 32)]
    assert data["chosen"] == "0020.png"
    assert decoded == data["items"]
    app.button(key="sidebar.thumbs_before").click().run()
    assert shown(app, "sidebar.folder_sheet")["items"][0] == "0000.png"
    assert len(decoded) == 2 * each
    sheet = pixels(shown(app, "sidebar.folder_sheet")["sprite"])
    tiles = [sheet[: images.THUMB, images.THUMB * n : images.THUMB * (n + 1)] for n in range(3)]
    assert (tiles[0] == images.thumb(open_picture(noise(20, 30, seed=0)))).all()
    assert (tiles[1] == 128).all()
    app.run()
    assert len(decoded) == 2 * each, "kept"
    click(app, "sidebar.folder_sheet", "chosen", "0002.png")
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "0002.png")
    app.button(key="sidebar.previous").click().run()
    assert chosen(app, "picture") == "0001.png"
    assert "0001.png" in sentences(app)
    click(app, "sidebar.folder_sheet", "chosen", "../0002.png")
    assert went_well(app)


def test_previous_and_next_step_through_samples_and_uploads(open_app: Open) -> None:
    app = open_app()
    names = images.samples.sample_names()
    digits = [name for name in names if name.startswith("digit")]
    assert app.button(key="sidebar.previous").disabled
    app.button(key="sidebar.next").click().run()
    assert chosen(app, "picture") == digits[1]
    app.button(key="sidebar.previous").click().run()
    assert app.session_state["picture.origin"] == ("sample", digits[0])
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    upload(app, photo(1), photo(2))
    app.button(key="sidebar.next").click().run()
    assert strip(app) == ["1.png", "2.png*"]
    assert app.button(key="sidebar.next").disabled
    assert app.button(key="sidebar.next").proto.shortcut == "n"


def test_a_thumbnail_of_a_jpeg_is_small_and_looks_like_the_photo(tmp_path: Path) -> None:
    across, down = np.meshgrid(np.linspace(0, 255, 1200), np.linspace(0, 255, 800))
    smooth = np.stack([across, down, 255 - across], 2).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(saved(smooth, "JPEG"))
    small = open_thumbnail(tmp_path / "a.jpg", 96)
    assert 96 <= min(small.shape[:2]) < 200
    assert open_thumbnail(tmp_path / "a.jpg", 300).shape == (400, 600, 3), "not smaller than asked"
    full = open_picture(tmp_path / "a.jpg").pixels
    assert np.abs(small.mean((0, 1)) - full.mean((0, 1))).max() < 2
    (tmp_path / "a.png").write_bytes(saved(smooth))
    assert open_thumbnail(tmp_path / "a.png", 96).shape == (800, 1200, 3)


@pytest.mark.parametrize(("mode", "own", "most"), [("local", "", 512), ("server", "", 25), ("server", "100", 100)])
def test_the_limit_of_checkpoints_is_told_and_kept(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, mode: str, own: str, most: int
) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    monkeypatch.setenv("VIZAPP_CHECKPOINT_MB", own)
    app = open_app(weights="file")
    uploader = app.file_uploader(key="sidebar.checkpoint")
    assert uploader.label == f"Checkpoint, at most {most} MB"
    assert uploader.proto.max_upload_size_mb == most
    assert ("VIZAPP_CHECKPOINT_MB" in uploader.proto.help) == (mode == "server")
    monkeypatch.setattr(access, "checkpoint_mb", lambda: 1)
    app.run()
    app.file_uploader(key="sidebar.checkpoint").upload("big.pth", bytes(2**20 + 2**19), "x/x").run()
    assert "big.pth has 2 MB; checkpoints that are uploaded here have at most 1 MB." in sentences(app)
    assert went_well(app)


def test_photos_keep_a_limit_of_their_own(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_UPLOAD_MB", "1")
    app = upload(opened(open_app, "upload"), ("big.png", bytes(2**20 + 1), "image/png"))
    assert "big.png has 1 MB; photos that are uploaded here have at most 1 MB." in sentences(app)
