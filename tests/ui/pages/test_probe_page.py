"""What each layer knows: the page runs the probe on a click, teaches a network, and shows nobody another person's network."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import vizapp
from tests.media.files import saved
from tests.methods.test_probe import CLASSES, picture
from tests.ui.app import Open, click, offered, press, sentences, shown, went_well, words
from vizapp.methods.probe import chosen_sites
from vizapp.ui.inputs import networks
from vizapp.ui.session import progress

BASE = "vizapp/lenet5-digits"
ASKED = {"probe.splits": "1", "probe.photos": "3", "probe.curve": "3", "probe.sites": "features.1,classifier.3"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    for kind in CLASSES:
        (folder / kind).mkdir()
        for number in range(6):
            (folder / kind / f"{number}.png").write_bytes(saved(picture(kind, number)))
    return folder


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET", 60.0)


def headline(app: AppTest) -> str:
    return next((one.proto.body for one in app.get("html") if 'class="vz-headline"' in one.proto.body), "")


@pytest.mark.slow
def test_a_click_probes_a_folder_and_a_bundled_collection_needs_none(
    open_app: Open, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_app("probe", data=str(photos), **ASKED)
    assert not headline(app)
    press(app, "probe.run")
    assert went_well(app)
    result = vizapp.ask(
        "probe", vizapp.load(BASE, device="cpu"), folder=photos, splits=1, photos=3, curve=(3,),
        sites=("features.1", "classifier.3"),
    )  # fmt: skip
    best = result.arrays["accuracy"].mean(1)
    assert f"{100 * best.max():.1f} % right" in headline(app)
    assert "\\" not in headline(app)  # HTML, not Markdown
    charts = [one.proto.id for one in app.get("plotly_chart")]
    assert len(charts) == 2
    assert {"Accuracy PNG", "Arrays NPZ", "Table CSV"} <= set(offered(app))
    monkeypatch.setattr("vizapp.ui.pages.probe.probe_runs.STARTS", (str(photos),))
    assert headline(open_app("probe", data=str(photos), **ASKED | {"probe.seed": "1"}))


def test_photos_without_classes_are_refused_with_a_sentence(open_app: Open, photos: Path) -> None:
    app = open_app("probe", data=str(photos / CLASSES[0]), **ASKED)
    assert "have no classes" in sentences(app)
    assert not {"probe.run", "probe.teach"} & {button.key for button in app.button}


def test_a_layer_that_the_network_lacks_gives_way_to_the_usual_ones(open_app: Open, photos: Path) -> None:
    app = open_app("probe", data=str(photos), **ASKED | {"probe.sites": "features.1,blocks.3"})
    assert "no layer" in sentences(app)
    assert "Showing the usual layers" in sentences(app)
    press(app, "probe.run")
    assert went_well(app)
    layers = [site.name for site in chosen_sites(vizapp.load(BASE, device="cpu"), ())]
    assert all(name in words(app) for name in layers)


def test_a_taught_network_is_in_the_list_and_opens_on_every_page(open_app: Open, photos: Path) -> None:
    app = open_app("probe", data=str(photos), **ASKED)
    app.text_input(key="probe.name").set_value("no/way").run()
    assert "cannot be called" in sentences(app)
    assert app.button(key="probe.teach").disabled
    app.text_input(key="probe.name").set_value("patterns").run()
    press(app, "probe.teach")
    assert went_well(app)
    assert "own/patterns" in networks.labels()
    assert "own/patterns: vizapp/lenet5-digits with 3 classes" in words(app)
    (link,) = [one.proto.url for one in app.get("link_button")]
    assert link == "predict?network=own%2Fpatterns"
    assert app.button(key="probe.teach").label == "Replace"
    assert shown(app, "sidebar.network")["rows"][0][0] == "own/patterns"
    other = open_app("predict", network="own/patterns", picture="digit 3")
    assert went_well(other)
    assert not sentences(other)
    click(other, "sidebar.network", "chosen", BASE)
    assert other.query_params["network"] in (BASE, [BASE])


@pytest.mark.slow
def test_on_a_shared_server_none_is_made_and_none_is_shown(
    open_app: Open, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vizapp.teach(vizapp.load(BASE, device="cpu"), photos, name="private")
    monkeypatch.setenv("VIZAPP_MODE", "server")
    monkeypatch.setenv("VIZAPP_ROOT", str(photos.parent))
    app = open_app("probe", data=str(photos), **ASKED)
    assert "none is made on a shared server" in words(app) + " ".join(one.value for one in app.markdown)
    assert "probe.teach" not in [button.key for button in app.button]
    assert "private" not in str(shown(app, "sidebar.network"))
    assert not [name for name in networks.labels() if name.startswith("own/")]
    linked = open_app("predict", network="own/private", picture="digit 3")
    assert "There is no network 'own/private'" in sentences(linked)
    assert "private" not in str(linked.query_params["network"])
    for choice in ("other", "network2"):
        page = "compare" if choice == "other" else "transform"
        assert f"There is no {choice} 'own/private'" in sentences(open_app(page, **{choice: "own/private"}))
