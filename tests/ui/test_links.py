"""Links and reloads bring back uploads, photos of folders and checkpoints, or say plainly that they cannot."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import noise, saved
from tests.ui.app import ROOT, Open, chosen, drawn, offered, sentences, shown, turn_to, went_well, words
from vizapp.settings import settings
from vizapp.ui.inputs import networks, stored_uploads
from vizapp.ui.session import progress

NETWORK = "vizapp/lenet5-digits"
EXPIRED = "is not on this machine any more. Upload it again."


def reopened(open_app: Open, app: AppTest, page: str = "predict") -> AppTest:
    """The address of the app, opened in another session after the server was started anew."""
    address = {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}
    st.cache_resource.clear()
    return open_app(page, **address)


def uploaded(open_app: Open, seed: int = 0) -> AppTest:
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("upload").run()
    photo = saved(noise(40, 50, seed=seed))
    app.file_uploader(key="sidebar.upload").upload(f"*noise* {seed}.png", photo, "image/png").run()
    return app


def weights() -> bytes:
    states = vizapp.load(NETWORK, weights="none").module.state_dict()
    return save({name: tensor.contiguous() for name, tensor in states.items()})


def tells_only(app: AppTest, told: str) -> None:
    """The page says this and shows nothing."""
    assert went_well(app)
    assert told in sentences(app)
    assert len(app.warning) <= 2  # of the page and of the sidebar
    assert not offered(app)


@pytest.mark.parametrize("mode", ["local", "server"])
def test_an_upload_survives_a_reload(open_app: Open, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("VIZAPP_MODE", mode)
    before = uploaded(open_app)
    after = reopened(open_app, before)
    assert went_well(after)
    assert not after.warning
    assert (drawn(after, "predict.seen") == drawn(before, "predict.seen")).all()
    assert after.segmented_control(key="sidebar.source").value == "upload"
    assert "Using the upload *noise* 0.png." in words(after)
    assert dict(after.query_params) == dict(before.query_params)


def test_a_photo_of_a_folder_survives_a_reload_and_another_can_be_chosen(open_app: Open, tmp_path: Path) -> None:
    for name, seed in (("one.png", 1), ("two.png", 2)):
        (tmp_path / name).write_bytes(saved(noise(40, 40, seed=seed)))
    before = open_app()
    before.segmented_control(key="sidebar.source").set_value("folder").run()
    before.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    before.selectbox(key="sidebar.folder_picture").set_value("two.png").run()
    app = reopened(open_app, before)
    assert went_well(app)
    assert not app.warning
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "two.png")
    assert app.selectbox(key="sidebar.folder_picture").value == "two.png"
    assert (drawn(app, "predict.seen") == drawn(before, "predict.seen")).all()
    app.selectbox(key="sidebar.folder_picture").set_value("one.png").run()
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "one.png")
    assert not (drawn(app, "predict.seen") == drawn(before, "predict.seen")).all()
    turn_to(app, "feature_maps")
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "one.png")


def test_a_photo_that_a_page_opens_is_not_replaced_by_the_first_of_its_folder(open_app: Open, tmp_path: Path) -> None:
    """Several photos of the Occlusion page may be those of the folder in the sidebar."""
    for seed in (1, 2):
        (tmp_path / f"{seed}.png").write_bytes(saved(noise(40, 40, seed=seed)))
    app = open_app()
    app.segmented_control(key="sidebar.source").set_value("folder").run()
    app.text_input(key="sidebar.folder").set_value(str(tmp_path)).run()
    app.session_state["picture.origin"] = ("folder", str(tmp_path), "2.png")
    app.run().run()
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "2.png")
    assert app.selectbox(key="sidebar.folder_picture").value == "2.png"


def test_an_upload_of_another_machine_or_of_yesterday_is_missed_and_no_other_photo_shown(open_app: Open) -> None:
    tells_only(open_app(picture=f"upload/{'0' * 64}"), f"The uploaded photo {EXPIRED}")
    app = uploaded(open_app)
    (file,) = (settings().cache / "uploads").iterdir()
    yesterday = time.time() - 86_401
    os.utime(file, (yesterday, yesterday))
    after = reopened(open_app, app)
    tells_only(after, f"The uploaded photo {EXPIRED}")
    turn_to(after, "feature_maps")
    tells_only(after, f"The uploaded photo {EXPIRED}")


def test_a_photo_or_folder_that_is_gone_is_missed_and_no_other_photo_shown(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(saved(noise(40, 40)))
    app = open_app(folder=str(tmp_path), picture="two.png")
    tells_only(app, "There is no photo 'two.png'")
    tells_only(app.run(), "There is no photo 'two.png'")
    app.selectbox(key="sidebar.folder_picture").set_value("one.png").run()
    assert not app.warning
    assert offered(app)
    tells_only(open_app(folder=str(tmp_path / "nothing"), picture="one.png"), "nothing")


@pytest.mark.parametrize(
    "picture", ["upload/123", f"upload/{'0' * 63}/", f"upload/{'A' * 64}", "upload/../../etc/passwd"]
)
def test_an_upload_that_is_misspelt_is_told(open_app: Open, picture: str) -> None:
    app = open_app(picture=picture)
    assert went_well(app)
    assert "The link's choice of picture was ignored. There is no picture" in sentences(app)


def test_in_server_mode_links_name_files_of_the_root_alone(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("root", "secret"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "one.png").write_bytes(saved(noise(40, 40)))
        (tmp_path / place / "net.safetensors").write_bytes(weights())
    monkeypatch.setenv("VIZAPP_MODE", "server")
    tells_only(
        open_app(folder=str(tmp_path / "root"), picture="one.png"), "Folders of this machine cannot be opened here"
    )
    tells_only(open_app(weights="file", checkpoint=str(tmp_path / "root" / "net.safetensors")), "cannot be opened here")
    monkeypatch.setenv("VIZAPP_ROOT", str(tmp_path / "root"))
    for folder in ("../secret", str(tmp_path / "secret"), "/etc"):
        tells_only(open_app(folder=folder, picture="one.png"), "is outside of the folder")
        tells_only(open_app(weights="file", checkpoint=f"{folder}/net.safetensors"), "is outside of the folder")
    app = open_app(folder=".", picture="one.png", weights="file", checkpoint="net.safetensors")
    assert went_well(app)
    assert not app.warning
    assert app.session_state["picture.origin"] == ("folder", ".", "one.png")
    assert len(offered(app)) == 3


def test_a_checkpoint_survives_a_reload(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(weights())
    by_path = open_app(weights="file")
    by_path.text_input(key="sidebar.checkpoint_path").set_value(str(tmp_path / "mine.safetensors")).run()
    by_upload = open_app(weights="file")
    by_upload.file_uploader(key="sidebar.checkpoint").upload("mine.safetensors", weights(), "x/x").run()
    for before in (by_path, by_upload):
        after = reopened(open_app, before)
        assert went_well(after)
        assert not after.warning
        assert len(offered(after)) == 3
        assert "mine.safetensors" in words(after)
        (opened,) = [network for key, network in networks.open_networks().items() if "mine.safetensors" in str(key)]
        assert opened.weights == "mine.safetensors"
    published = after.segmented_control(key="sidebar.weights").set_value("published").run()
    assert "checkpoint" not in published.query_params


def test_the_checkpoint_of_the_network_to_compare_with_survives_a_reload(open_app: Open, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(weights())
    file = str(tmp_path / "mine.safetensors")
    app = open_app("compare", other=NETWORK, other_weights="file", other_checkpoint=file)
    assert went_well(app)
    assert not app.warning
    assert app.text_input(key="compare.checkpoint_path").value == file
    assert app.query_params["other_checkpoint"] in (file, [file])


def test_a_checkpoint_that_is_gone_is_missed_and_no_other_network_shown(open_app: Open, tmp_path: Path) -> None:
    tells_only(open_app(weights="file", checkpoint=f"upload/{'0' * 64}"), f"The uploaded checkpoint {EXPIRED}")
    tells_only(open_app(weights="file", checkpoint=str(tmp_path / "none.pth")), "none.pth")
    tells_only(open_app(weights="file", checkpoint=""), "")


def test_stored_uploads_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [np.random.default_rng(seed).bytes(1000) for seed in range(4)]
    digests = [stored_uploads.digest_of(content, "a\nb") for content in contents]
    monkeypatch.setattr(stored_uploads, "CAPACITY", 2500)
    for age, (digest, content) in enumerate(zip(digests[:3], contents[:3], strict=True)):
        stored_uploads.store(digest, content, "a\nb")
        os.utime(stored_uploads._place(digest), (time.time() - 100 + age,) * 2)
    assert stored_uploads.restore(digests[1], "photo") == (contents[1], "a b"), "now it is the newest"
    stored_uploads.store(digests[3], contents[3], "a\nb")
    kept = {file.name[:64] for file in (settings().cache / "uploads").iterdir()}
    assert kept == {digests[1], digests[3]}


def test_a_damaged_upload_is_missed(open_app: Open) -> None:
    app = uploaded(open_app)
    (file,) = (settings().cache / "uploads").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    tells_only(reopened(open_app, app), f"The uploaded photo {EXPIRED}")


def test_an_upload_whose_decoding_is_cancelled_after_a_reload_is_told(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the sidebar and the page ask for it."""
    app = uploaded(open_app)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "is_cancelled", lambda key: key[0] == "given")
        after = reopened(open_app, app)
        tells_only(after, "Decoding *noise* 0.png was cancelled.")
        assert [button.label for button in after.button].count("Run again") == 1
    after.run()
    assert went_well(after)
    assert offered(after)


def test_uploads_go_at_the_first_visit_after_a_day(open_app: Open) -> None:
    uploaded(open_app)
    (file,) = (settings().cache / "uploads").iterdir()
    os.utime(file, (time.time() - 86_401,) * 2)
    open_app()
    assert not file.exists()


def test_the_digest_of_an_upload_tells_nobody_who_has_the_same_file() -> None:
    assert stored_uploads.digest_of(b"photo", "mine.png") != stored_uploads.digest_of(b"photo", "yours.png")


# Links of the last release left out its default network, zfnet-mini: `benchmarks/people/addresses.py` of that release.
EARLIER = [
    "?picture=motorcycle", "?picture=coffee&crops=ten", "?top=3", "?weights=random", "?folder=/photos&picture=a.png",
    "feature_maps?layer=features.relu5&channel=7&cell=3,4", "projection?layer=features.relu5&mode=nine",
    "occlusion?picture=rocket&window=40&stride=20", "occlusion?class=5", "dense?picture=motorcycle&dense.stride=16",
    "filters?layer=features.relu3&channel=5&view=numbers", "compare?picture=chelsea",
    "architecture?aspect=drawing", "gallery?data=samples&layer=features.relu5&channel=7",
]  # fmt: skip
MINI, LITE = "vizapp/zfnet-mini", "vizapp/efficientnet-lite0"


def read(link: str) -> AppTest:
    """A session that a link opens, of which only the address is read and written."""

    def run(page: str) -> None:
        import streamlit as st

        from vizapp.ui.app import pages
        from vizapp.ui.session import state, url

        specs = pages.pages()
        url.read_address({}, [choice for spec in specs.values() for choice in spec.carried], specs[page].carried)
        url.write_address(specs[page].carried)
        for choice in (state.NETWORK, state.OTHER, state.CONTRAST):
            st.session_state[choice.name] = state.get(choice)

    page, _, query = link.partition("?")
    app = AppTest.from_function(run, args=(page or "predict",))
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        app.query_params[name] = value
    return app.run()


@pytest.mark.parametrize("link", EARLIER)
def test_links_of_the_last_release_show_its_default_network(link: str) -> None:
    app = read(link)
    assert not app.exception
    assert app.session_state["network"] == app.session_state["other"] == MINI
    assert chosen(app, "network") == MINI
    assert {part.partition("=")[0] for part in link.partition("?")[2].split("&")} <= set(app.query_params)
    assert app.session_state["contrast"] == ("shared" if link.startswith("projection") else "own")


@pytest.mark.parametrize(
    "link", ["", "filters", "gallery", "compare", "?embed=true", "?present=on", "?network=vizapp/lenet5-digits&top=3"]
)
def test_other_links_show_their_network_or_the_default_and_new_ones_always_name_it(link: str) -> None:
    expected = "vizapp/lenet5-digits" if "lenet5" in link else LITE
    app = read(link)
    assert app.session_state["network"] == app.session_state["other"] == expected
    assert chosen(app, "network") == expected
    again = read(f"{link.partition('?')[0]}?" + "&".join(f"{name}={chosen(app, name)}" for name in app.query_params))
    assert dict(again.query_params) == dict(app.query_params)


def test_a_link_may_name_a_network_as_python_does(open_app: Open) -> None:
    app = open_app(network="lenet5-digits")
    assert chosen(app, "network") == "vizapp/lenet5-digits"
    assert not app.warning


def test_a_link_of_the_last_release_shows_what_it_showed(open_app: Open) -> None:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=60)
    app.query_params["picture"], app.query_params["top"] = "coffee", "3"
    app.run()
    assert went_well(app)
    assert len(app.warning) == 1
    assert "names no network" in sentences(app)
    named = open_app(network=MINI, picture="coffee", top="3")
    assert not named.warning
    assert shown(app, "predict.bars") == shown(named, "predict.bars")
    assert dict(app.query_params) == dict(named.query_params)


def test_the_network_to_compare_with_follows_the_network_until_another_is_chosen() -> None:
    def run() -> None:
        import streamlit as st

        from vizapp.ui.session import state

        found = [state.get(state.OTHER)]
        for choice, name in (
            (state.NETWORK, "a"),
            (state.OTHER, "a"),
            (state.NETWORK, "b"),
            (state.OTHER, "c"),
            (state.NETWORK, "d"),
        ):
            state.put(state.SECOND_MATCH, "layer")
            state.put(choice, name)
            found += [state.get(state.OTHER), state.get(state.SECOND_MATCH)]
        st.session_state["found"] = found

    app = AppTest.from_function(run).run()
    assert app.session_state["found"] == [LITE, "a", None, "a", "layer", "b", None, "c", None, "c", "layer"]


def test_a_link_to_a_folder_that_names_no_photo_shows_the_first(open_app: Open, tmp_path: Path) -> None:
    for name, seed in (("two.png", 2), ("10.png", 10), ("1.png", 1)):
        (tmp_path / name).write_bytes(saved(noise(40, 40, seed=seed)))
    app = open_app("predict", folder=str(tmp_path))
    assert went_well(app)
    assert not app.warning
    assert app.session_state["picture.origin"] == ("folder", str(tmp_path), "1.png")
    assert chosen(app, "picture") == "1.png"
    tells_only(open_app("predict", folder=str(tmp_path / "gone")), "There is no folder")
