"""The page Gallery: building, partial results, unit cards, the sheet of a unit, links, and names as plain text."""

from __future__ import annotations

import io
import re
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import vizapp
from tests.ui.app import Open, chosen, click, offered, pixels, sentences, shown, went_well, words
from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError
from vizapp.gallery import Gallery, Progress, build, open_gallery
from vizapp.gallery.build import open_partial_gallery
from vizapp.gallery.search import TopClasses, require_places, search, top_classes
from vizapp.media.bundled import open_digits
from vizapp.media.sources import open_folder
from vizapp.methods.base import Job, Question, Result
from vizapp.methods.gallery import GalleryParams, chosen_sites, place_for, plan_of
from vizapp.methods.projection import ProjectionParams
from vizapp.methods.top_projections import top_projections
from vizapp.service.jobs import Report
from vizapp.settings import settings
from vizapp.ui.inputs import datasets
from vizapp.ui.pages.gallery import gallery_runs, unit_cards, unit_order
from vizapp.ui.pages.gallery.unit_sheet import zipped
from vizapp.ui.session import messages, progress
from vizapp.ui.session.glossary import GLOSSARY
from vizapp.ui.widgets import top_activations
from vizapp.ui.widgets.layout import facts_table
from vizapp.zoo.network import Network

LAYER = "features.4"  # rectified, 16 × 8 × 8, seen through padding; features.1 is seen through none
ODD = "<b>_one_*[a](b)"  # a name that HTML and Markdown would read as something else


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty digits in two folders, and a file that is no picture."""
    root, digits = tmp_path_factory.mktemp("pictures"), open_digits()
    for number in range(40):
        place = root / (ODD if number % 4 == 0 else "two") / f"{number:02d} *x*.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(digits.open(number).pixels).save(place)
    (root / "two" / "broken_<i>.png").write_bytes(b"none")
    return root


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.load("vizapp/lenet5-digits")


def built(network: Network, data: str, layers: tuple[str, ...] = (), watch: Any = None) -> Gallery:
    """The gallery that the page would build, at the place where it would look for it."""
    source, sites = open_folder(data), chosen_sites(network, layers)
    place = place_for(network, Question(network, folder=source), sites, plan_of(network, GalleryParams()))
    build(network, source, sites, place, plan_of(network, GalleryParams()), watch)
    return open_gallery(place)


def cards(app: AppTest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shown(app, "gallery.units")["cards"]
    return found


def reported(app: AppTest) -> Result:
    """The only answer that the page offers for a report."""
    ((_, one),) = app.session_state["report.offered"][2].items()
    result = one.result()
    assert result is not None
    return result


def test_without_a_gallery_one_sentence_and_one_click_build_it(open_app: Open, pictures: Path) -> None:
    app = open_app("gallery", data=str(pictures))
    assert went_well(app)
    assert not app.warning
    assert "There is no gallery of these photos yet" in words(app)
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    assert not [button for button in app.button if button.key in ("gallery.build", "gallery.cancel")]
    assert len(cards(app)) == 12
    assert all(card["patches"]["count"] == card["down"]["count"] == 9 for card in cards(app) if card["note"] != "dead")
    assert "1 photo could not be read" in app.expander[-1].label
    assert app.dataframe[-1].value["path"].tolist() == ["two/broken_<i>.png"]


def test_of_a_changed_network_it_says_that_it_is_changed_and_what_restoring_brings_back(
    open_app: Open, pictures: Path, network: Network
) -> None:
    back = '"Restore the network" above brings back'
    app = open_app("gallery", data=str(pictures), set=f"{LAYER}:2=0")
    assert went_well(app)
    assert "The network is changed" in words(app)
    assert back not in words(app), "there is none"
    built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), set=f"{LAYER}:2=0")
    assert back in words(app)
    app.button(key="changes.restore").click().run()
    assert "changed" not in words(app)
    assert len(cards(app)) == 12


def test_digits_are_there_for_networks_of_grey_pictures_and_crops_for_others(open_app: Open) -> None:
    app = open_app("gallery")
    assert "digits · 1,797 photos · 3 layers" in words(app)
    app = open_app("gallery", network="vizapp/zfnet-mini", weights="random")
    assert "sample crops · " in words(app)
    assert app.button(key="gallery.build")


@pytest.mark.slow
def test_the_first_visit_shows_the_most_selective_units_of_the_shipped_gallery(open_app: Open) -> None:
    app = open_app("gallery", network="vizapp/zfnet-mini")
    assert went_well(app)
    assert not app.warning
    assert not [button for button in app.button if button.key == "gallery.build"]
    assert app.segmented_control(key="gallery.sort").value == "selectivity"
    units = pd.read_feather(next(settings().cache.glob("galleries/*/_units.arrow")))
    units = units[units["site"] == "features.relu5"].sort_values(["dead", "selectivity"], ascending=[True, False])
    assert [card["item"] for card in cards(app)] == units["channel"][:12].tolist()
    assert all(card["patches"]["count"] == card["down"]["count"] == 9 for card in cards(app))


def test_a_link_opens_the_sheet_of_a_unit_in_a_fresh_session(open_app: Open, pictures: Path, network: Network) -> None:
    found = built(network, str(pictures))
    channel = int(found.units_of(LAYER)["selectivity"].argmax())
    address = {"data": str(pictures), "layer": LAYER, "channel": str(channel)}
    app = open_app("gallery", **address)
    assert went_well(app)
    assert not app.warning
    assert {name: chosen(app, name) for name in address} == address
    row = found.rows(LAYER, channel).iloc[0]
    patches = shown(app, "gallery.nine.Patches")
    assert (patches["still"], patches["card"]) == (True, True), "a click opens the card and chooses nothing"
    assert patches["details"][0] == f"activation {row.activation:.4g} · {row.path}"
    seen = network.seen(open_folder(pictures).open(int(row.picture)))
    padded = np.pad(seen, ((28, 28), (28, 28), (0, 0)), constant_values=128)
    patch = padded[28 + row.top : 28 + row.bottom, 28 + row.left : 28 + row.right]
    assert (pixels(patches["sprite"])[: patch.shape[0], : patch.shape[1]] == patch).all()
    whole = pixels(shown(app, "gallery.nine.Photos")["sprite"])
    assert (whole[:28, :28] != seen).any(axis=2).sum() > 20  # the frame
    assert len(offered(app)) == 3
    assert sum(bar["share"] for bar in shown(app, "gallery.classes")["rows"]) == pytest.approx(1)
    report = reported(app)
    assert [panel.title for panel in report.panels] == ["Patches", "Projections", "Photos", "Histogram"]
    assert [entry["Photo"] for entry in report.table] == found.rows(LAYER, channel)["path"].tolist()
    counts = [bar["more"].split()[0] for bar in shown(app, "gallery.classes")["rows"]]
    assert re.findall(r"(\d+)(?:,|$)", report.facts["classes of the top photos"])[: len(counts)] == counts
    assert "caution" in report.facts


def test_a_link_to_a_gallery_that_is_not_there_offers_to_build_it(open_app: Open, pictures: Path) -> None:
    app = open_app("gallery", data=str(pictures), layer=LAYER, channel="3")
    assert f"you will see unit 3 of {LAYER}" in words(app)
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    assert shown(app, "gallery.nine.Patches")["items"] == list(range(9))
    assert app.number_input(key="gallery.channel").value == 3


def test_a_click_on_a_card_is_a_link_and_the_way_back_is_a_click(
    open_app: Open, pictures: Path, network: Network
) -> None:
    found = built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), sort="strength", layer=LAYER, channel="2")
    order = unit_order.ranked(found, LAYER, "strength").tolist()
    place = order.index(2)
    app.button(key="gallery.next_unit").click().run()
    assert chosen(app, "channel") == str(order[place + 1])
    app.button(key="gallery.back").click().run()
    assert "channel" not in app.query_params
    assert [card["item"] for card in cards(app)] == order[:12]


@pytest.mark.parametrize("layer", ["features.1", "classifier.0"])
@pytest.mark.slow
def test_other_layers_and_class_scores_are_shown_too(
    open_app: Open, pictures: Path, network: Network, layer: str
) -> None:
    built(network, str(pictures), ("features.1", "classifier.0"))
    app = open_app("gallery", data=str(pictures), layers="features.1,classifier.0", layer=layer)
    assert went_well(app)
    assert not app.warning
    assert ("no position in the photo" in words(app)) == (layer == "classifier.0")
    app = open_app("gallery", data=str(pictures), layers="features.1,classifier.0", layer=layer, channel="1")
    assert went_well(app)
    assert shown(app, "gallery.nine.Projections")["items"] == list(range(9))


def test_a_layer_that_the_gallery_lacks_gives_way_to_the_next(open_app: Open, pictures: Path, network: Network) -> None:
    built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), layer="features.0", channel="1")
    assert went_well(app)
    assert "does not cover features.0" in words(app)
    assert app.selectbox(key="gallery.layer").value == "features.1"
    assert cards(app)  # channel 1 is of the other layer


def test_what_is_known_so_far_is_shown_and_gone_on_with(open_app: Open, network: Network) -> None:
    class Enough(BaseException):
        pass

    def watch(progress: Progress) -> None:
        if progress.pictures >= 160:
            raise Enough

    with pytest.raises(Enough):
        built(network, "digits", watch=watch)
    app = open_app("gallery", layer=LAYER)
    assert went_well(app)
    assert "The gallery after 160 of 1,797 photos" in words(app)
    assert {card["down"] for card in cards(app)} == {None}
    assert app.button(key="gallery.build").label == "Continue"
    app = open_app("gallery", layer=LAYER, channel="5")
    assert "Projections follow after the last photo" in words(app)
    source, sites = open_digits(), chosen_sites(network, ())
    place = place_for(network, Question(network, folder=source), sites, plan_of(network, GalleryParams()))
    seen = open_partial_gallery(network, source, sites, place)
    assert seen.rows(LAYER)["picture"].max() < 160


@pytest.mark.slow
def test_a_gallery_that_was_left_is_finished_to_the_same(
    open_app: Open, pictures: Path, network: Network, tmp_path: Path
) -> None:
    class Enough(BaseException):
        pass

    def watch(progress: Progress) -> None:
        if progress.pictures:
            raise Enough

    with pytest.raises(Enough):
        built(network, str(pictures), watch=watch)
    app = open_app("gallery", data=str(pictures))
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    again = built(network, str(pictures))
    build(
        network, open_folder(pictures), chosen_sites(network, ()), tmp_path / "other", plan_of(network, GalleryParams())
    )
    pd.testing.assert_frame_equal(again.rows(LAYER), open_gallery(tmp_path / "other").rows(LAYER))


@pytest.mark.slow
def test_a_pass_that_somebody_else_watches_can_be_joined(open_app: Open, pictures: Path, network: Network) -> None:
    source, sites, plan = open_folder(pictures), chosen_sites(network, ()), plan_of(network, GalleryParams())
    place, go_on = place_for(network, Question(network, folder=source), sites, plan), threading.Event()

    def run(report: Report) -> str:
        report(16 / 41, Progress(16, 41, 8.0, 3.1))
        assert go_on.wait(60)
        return build(network, source, sites, place, plan)

    key = ("gallery.build", str(place))
    with progress.job_runner().waiting(key, run, None, "somebody") as job:
        while job.partial is None:
            time.sleep(0.01)
        app = open_app("gallery", data=str(pictures))
        assert app.button(key="gallery.build").label == "Watch"
        assert "16 of 41 photos · 8 per second · 3 s left" in words(app)
        job.leave("somebody")
        app.run()
        assert app.button(key="gallery.build").label == "Build"  # its last watcher has just left
        job.join("somebody")
        threading.Timer(0.5, go_on.set).start()
        app.button(key="gallery.build").click().run()
    assert went_well(app)
    assert cards(app)


def test_the_first_units_are_known_after_the_first_batch(network: Network) -> None:
    """A page that watches the pass shows them then: the checkpoint after the first batch is what it looks at."""
    known = list[int]()
    source, sites, plan = open_digits(), chosen_sites(network, ()), plan_of(network, GalleryParams())
    place = place_for(network, Question(network, folder=source), sites, plan)

    class Enough(BaseException):
        pass

    def watch(now: Progress) -> None:
        found = open_partial_gallery(network, source, sites, place)
        known.append(found.seen if found is not None else 0)
        if now.pictures >= 2 * plan.batch:
            raise Enough

    with pytest.raises(Enough):
        built(network, "digits", watch=watch)
    assert known[0] == 0
    assert plan.batch in known


def test_dead_units_are_said_to_be_dead(open_app: Open, tmp_path: Path, network: Network) -> None:
    for number in range(3):
        Image.fromarray(np.zeros((28, 28, 3), np.uint8) + number).save(tmp_path / f"{number}.png")
    found = built(network, str(tmp_path))
    dead = np.flatnonzero(found.units_of(LAYER)["dead"])
    assert len(dead), "a black picture leaves some units silent"
    app = open_app("gallery", data=str(tmp_path), layer=LAYER, sort="dead")
    assert went_well(app)
    assert f"{len(dead)} dead" in words(app)
    first = cards(app)[0]
    assert (first["item"] in dead, first["note"], first["patches"]) == (True, "dead", None)
    report = reported(app)
    told = [f"Unit {card['item']}" for card in cards(app) if card["patches"] is None]
    assert [row["unit"] for row in report.table] == told
    assert {"Dead: zero for every photo"} == {row["why it has no photo"] for row in report.table}
    assert [panel.title for panel in report.panels] == [
        f"Unit {c['item']}" for c in cards(app) if c["patches"] is not None
    ]
    app = open_app("gallery", data=str(tmp_path), layer=LAYER, channel=str(dead[0]))
    assert went_well(app)
    assert "This unit is dead" in words(app)


def test_names_of_classes_and_files_stay_text(open_app: Open, pictures: Path, network: Network) -> None:
    found = built(network, str(pictures))
    rows = found.rows(LAYER)
    channel = int(rows[rows["label"] == ODD]["channel"].mode()[0])
    app = open_app("gallery", data=str(pictures), layer=LAYER, group=ODD)
    assert went_well(app)
    shown_hints = [caption.value for caption in app.caption]
    assert any(r"\<b\>\_one\_\*\[a\](b)" in value for value in shown_hints)
    assert not any("<b>" in value.replace(r"\<b\>", "") for value in shown_hints)
    app = open_app("gallery", data=str(pictures), layer=LAYER, channel=str(channel))
    assert ODD in [row["name"] for row in shown(app, "gallery.classes")["rows"]]  # a component writes text nodes
    assert not any(ODD in markdown.value for markdown in app.markdown)
    assert not any("*x*" in caption.value or "<" in caption.value for caption in app.caption)
    assert not any(ODD in element.proto.body for element in app.get("html"))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"sort": "best"}, "not one of random"),
        ({"sheet": "0"}, "not a whole number"),
        ({"channel": "99", "layer": LAYER}, "units 0 to 15"),
        ({"layer": "features.77"}, "has no layer"),
        ({"group": "three"}, "None of the 2 classes"),
        ({"search": "giraffe"}, "None of the 2 classes"),
        ({"within": "none"}, "not one of hidden"),
        ({"layers": "nothing"}, "has no layer"),
    ],
)
@pytest.mark.slow
def test_what_a_link_asks_and_is_not_there_is_told(
    open_app: Open, pictures: Path, network: Network, address: dict[str, str], told: str
) -> None:
    built(network, str(pictures))
    read_early = {"sort", "sheet"} & address.keys()  # before the page is drawn
    app = open_app("predict" if read_early else "gallery", data=str(pictures), **address)
    assert told in sentences(app)
    assert went_well(app)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("/nowhere/at/all", "There is no folder"),
        (f"upload/{'0' * 32}", "no longer kept"),
        ("torchvision/Nothing", "There is no data set"),
    ],
)
def test_data_that_is_not_there_is_told(open_app: Open, data: str, told: str) -> None:
    app = open_app("gallery", data=data)
    assert told in sentences(app)
    assert went_well(app)


def test_a_link_to_a_data_set_that_is_not_here_asks_before_it_is_downloaded(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    asked = list[str]()

    def refuse(data: CIFAR10) -> None:
        asked.append(str(data.root))
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", refuse)
    app = open_app("gallery", data="torchvision/CIFAR10")
    assert went_well(app)
    assert not asked
    assert "not on this machine yet" in words(app)
    app.button(key="gallery.download").click().run()
    assert len(asked) == 1
    assert "could not be downloaded" in sentences(app)


def test_scores_below_zero_have_top_pictures_too(open_app: Open, pictures: Path, network: Network) -> None:
    found = built(network, str(pictures), ("classifier.4",))
    units = found.units
    units.loc[units["channel"] == 3, ["dead", "maximum"]] = (True, -1.0)
    assert len(top_activations.rows_of(found, "classifier.4", 3)) == 9
    units.loc[units["channel"] == 3, ["zero_pictures", "maximum"]] = (1.0, 0.0)
    assert len(top_activations.rows_of(found, "classifier.4", 3)) == 0


@pytest.mark.slow
def test_an_uploaded_zip_file_has_a_link(open_app: Open, pictures: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(pictures.rglob("*.png")):
            archive.write(path, path.relative_to(pictures))
    kept = open_folder(buffer.getvalue())
    app = open_app("gallery", data=f"upload/{kept.root.stem}")
    assert went_well(app)
    assert "the uploaded zip file · 41 photos" in words(app)
    app.button(key="gallery.build").click().run()
    assert went_well(app)
    assert cards(app)


def test_an_upload_that_is_no_zip_file_is_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    with pytest.raises(VizError, match="The uploaded file cannot be read as a zip file") as told:
        open_folder(b"no zip file")
    assert str(tmp_path) not in str(told.value)
    assert not list((tmp_path / "uploads").iterdir())


def test_galleries_of_other_weights_are_another_one_and_told(open_app: Open, pictures: Path, network: Network) -> None:
    built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), weights="random")
    assert went_well(app)
    assert "made with other weights" in words(app)
    assert app.button(key="gallery.build")


@pytest.mark.slow
def test_a_damaged_gallery_is_told_and_built_anew(open_app: Open, pictures: Path, network: Network) -> None:
    found = built(network, str(pictures))
    file = next(found.folder.glob("*features.4*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    app = open_app("gallery", data=str(pictures), layer=LAYER)
    assert "cannot be read" in sentences(app)
    app.button(key="gallery.anew").click().run()
    assert went_well(app)
    assert len(cards(app)) == 12
    assert file.read_bytes() == whole


def found_units(app: AppTest) -> list[str]:
    return [card["item"] for card in shown(app, "gallery.found")["cards"]]


@pytest.mark.slow
def test_a_search_ranks_the_units_of_all_layers_and_a_click_opens_one(
    open_app: Open, pictures: Path, network: Network
) -> None:
    found = built(network, str(pictures))
    known = top_classes(found, open_folder(str(pictures)).labels)
    table = search(known, require_places(known.meant(["two"]), known.labels))
    table = table[table["site"] != "classifier.4"]
    expected = [f"{row.site}:{row.channel}" for row in table.itertuples()]
    app = open_app("gallery", data=str(pictures))
    app.multiselect(key="gallery.search").set_value(["two"]).run()
    assert went_well(app)
    assert not app.warning
    assert found_units(app) == expected[:12]
    assert chosen(app, "search") == "two"
    cards = shown(app, "gallery.found")["cards"]
    assert [card["note"] for card in cards] == [
        f"{r.hits} of {r.of} · score {r.score:.2f}" for r in table[:12].itertuples()
    ]
    assert all(card["patches"]["count"] == card["down"]["count"] == 9 for card in cards)
    report = reported(app)
    assert [panel.title for panel in report.panels] == [
        f"Unit {r.channel} of {r.site}" for r in table[:12].itertuples()
    ]
    assert all(panel.caption.startswith(card["note"]) for panel, card in zip(report.panels, cards, strict=True))
    assert all(panel.pixels.shape[1] == 2 * (3 * 72 + 2 * 2) + 8 for panel in report.panels), "patches and projections"
    assert "two: 1 class. 31 of the 41 photos show them (76 %)" in sentences(app) + words(app)
    app.segmented_control(key="gallery.within").set_value("classes").run()
    assert {unit.partition(":")[0] for unit in found_units(app)} == {"classifier.4"}
    app.segmented_control(key="gallery.within").set_value("all").run()
    click(app, "gallery.found", "chosen", found_units(app)[0])
    assert went_well(app)
    site, _, channel = found_units_first(known).rpartition(":")
    assert (chosen(app, "layer"), chosen(app, "channel")) == (site, channel)
    everywhere = search(known, require_places(known.meant(["two"]), known.labels))
    units = list(zip(everywhere["site"], everywhere["channel"], strict=True))
    assert app.button(key="gallery.previous_unit").disabled
    change = next(place for place in range(len(units)) if units[place][0] != units[place + 1][0])
    for place in (*range(1, change + 2), change):  # to a unit of another layer, and back
        step = "next" if place > units.index((chosen(app, "layer"), int(chosen(app, "channel")))) else "previous"
        app.button(key=f"gallery.{step}_unit").click().run()
        assert (chosen(app, "layer"), int(chosen(app, "channel"))) == units[place], "the order of the search"
    assert f"{change + 1} of {len(units)} found" in words(app)
    app.button(key="gallery.back").click().run()
    assert found_units(app)[0] == found_units_first(known), "back to the search"
    term = f'[average precision](about#terms "{GLOSSARY["average precision"]}")'
    assert term in " ".join(caption.value for caption in app.caption)


def found_units_first(known: TopClasses) -> str:
    row = search(known, require_places(known.meant(["two"]), known.labels)).iloc[0]
    return f"{row.site}:{row.channel}"


def test_a_link_of_the_last_release_searches_for_its_class(open_app: Open, pictures: Path, network: Network) -> None:
    built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), layer=LAYER, group=ODD)
    assert went_well(app)
    known = top_classes(built(network, str(pictures)), open_folder(str(pictures)).labels)
    table = search(known, require_places(known.meant([ODD]), known.labels))
    best = table[table["site"] != "classifier.4"].iloc[0]
    assert found_units(app)[0] == f"{best.site}:{best.channel}"


@pytest.mark.slow
def test_dogs_are_found_at_the_first_visit_and_breeds_can_be_taken_out(
    open_app: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_cards, "_PER_PAGE", 1)  # each card projects nine photos
    app = open_app("gallery", network="vizapp/efficientnet-lite0", search="dog")
    assert went_well(app)
    assert not app.warning
    cards = shown(app, "gallery.found")["cards"]
    hits = int(cards[0]["note"].partition(" of 32")[0])
    assert hits >= 30
    (headline,) = [text.value for text in app.markdown if text.value.startswith(f"**{hits} of the 32 strongest photos")]
    assert "show: dog.**" in headline
    assert "may not show" in headline
    assert "dog: 118 classes. 83 of 750 ImageNet photos show them (11 %)" in words(app)
    breeds = app.multiselect(key="gallery.meant")
    assert len(breeds.value) == 83
    assert "beagle" in breeds.value
    breeds.set_value([name for name in breeds.value if name != "beagle"]).run()
    assert went_well(app)
    assert chosen(app, "search") == "dog,-beagle"
    assert "82 of 750" in words(app)
    assert app.multiselect(key="gallery.search").value == ["dog"]
    app.multiselect(key="gallery.meant").set_value(
        [*app.multiselect(key="gallery.meant").value, "beagle", "goldfish"]
    ).run()
    assert chosen(app, "search") == "dog,goldfish"
    assert "84 of 750" in words(app)


def test_photos_without_classes_say_how_to_get_some(
    open_app: Open, pictures: Path, network: Network, tmp_path: Path
) -> None:
    for number in range(3):
        Image.fromarray(open_digits().open(number).pixels).save(tmp_path / f"{number}.png")
    built(network, str(tmp_path))
    app = open_app("gallery", data=str(tmp_path))
    assert went_well(app)
    assert "a CSV file with the columns path and label" in words(app)
    assert not [box for box in app.multiselect if box.key == "gallery.search"]


def test_units_are_ranked_as_their_numbers_say(pictures: Path, network: Network) -> None:
    found = built(network, str(pictures))
    units = found.units_of(LAYER).to_dict("records")
    channels = range(len(units))
    by = {
        "number": lambda c: c,
        "strength": lambda c: (-units[c]["maximum"], c),
        "selectivity": lambda c: (units[c]["dead"], -units[c]["selectivity"], -units[c]["maximum"], c),
        "dead": lambda c: (not units[c]["dead"], units[c]["maximum"], c),
    }
    for sort, key in by.items():
        assert unit_order.ranked(found, LAYER, sort).tolist() == sorted(channels, key=key), sort
    first, second = (unit_order.ranked(found, LAYER, "random", seed).tolist() for seed in (1, 2))
    assert sorted(first) == sorted(second) == list(channels)
    assert first != second
    assert first == unit_order.ranked(found, LAYER, "random", 1).tolist()


@pytest.mark.slow
def test_shuffling_and_paging_are_in_the_address(open_app: Open, pictures: Path, network: Network) -> None:
    found = built(network, str(pictures))
    app = open_app("gallery", data=str(pictures), layer=LAYER, sort="random", sheet="2")
    assert [card["item"] for card in cards(app)] == unit_order.ranked(found, LAYER, "random", 1)[12:].tolist()
    app.button(key="gallery.shuffle").click().run()
    assert chosen(app, "seed") == "2"
    assert "sheet" not in app.query_params
    assert [card["item"] for card in cards(app)] == unit_order.ranked(found, LAYER, "random", 2)[:12].tolist()


@pytest.mark.parametrize("layer", ["features.0", LAYER, "classifier.0"])
def test_projections_of_many_units_are_what_each_is_alone(pictures: Path, network: Network, layer: str) -> None:
    found, source = built(network, str(pictures), (layer,)), open_folder(pictures)
    rows = pd.concat([found.rows(layer, channel)[:4] for channel in (1, 4, 5)], ignore_index=True)
    down = top_projections(network, source, rows, ProjectionParams(), Job()).arrays
    for place, row in enumerate(rows.itertuples()):
        cell = (row.row, row.column) if network.site(layer).is_map else None
        unit, picture = Unit(layer, row.channel, cell), source.open(row.picture)
        alone = vizapp.ask("projection", network, picture=picture, unit=unit).arrays
        np.testing.assert_allclose(down["projection"][place], alone["projection"], rtol=1e-4, atol=1e-6)
        assert down["activation"][place] == pytest.approx(float(alone["activation"]), rel=1e-5)
        assert (down["field"][place] == alone["field"]).all()


def test_a_picture_that_several_units_share_passes_once(
    pictures: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizapp.methods import top_projections

    found, passed = built(network, str(pictures), ("classifier.0",)), list[int]()
    project = top_projections.project
    monkeypatch.setattr(top_projections, "project", lambda *args: passed.append(len(args[2])) or project(*args))
    rows = found.rows("classifier.0")
    top_projections.top_projections(network, open_folder(pictures), rows, ProjectionParams(), Job())
    assert len(passed) == rows["picture"].nunique()
    assert sum(passed) == len(rows)


def test_a_gallery_that_somebody_else_has_built_is_told(open_app: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizapp.gallery.folder_pass import Progress

    monkeypatch.setattr(gallery_runs, "progress_of_others", lambda asked: Progress(300, 1797, 0))
    app = open_app("gallery")
    assert app.button(key="gallery.build").label == "Watch"
    assert "Another user is building this gallery: 300 of 1,797 photos." in words(app)


def test_projections_share_a_scale_and_cards_show_means() -> None:
    strong, weak = np.full((8, 8, 3), 2.0, np.float32), np.full((8, 8, 3), -1.0, np.float32)
    drawn = top_activations.UnitProjections((strong, weak), {}).pictures()
    assert {int(drawn[0].max()), int(drawn[1].min())} == {255, 64}
    small = top_activations.made_small(np.arange(192, dtype=np.float32).reshape(8, 8, 3), 4)
    assert small.shape == (4, 4, 3)
    assert small[0, 0, 0] == np.mean([0, 3, 24, 27])
    assert (
        top_activations.UnitProjections((np.zeros((4, 4, 3), np.float32),), {}).pictures()[0].tolist()
        == np.full((4, 4, 3), 128).tolist()
    )


def test_the_whole_gallery_can_be_taken_along(pictures: Path, network: Network, tmp_path: Path) -> None:
    found = built(network, str(pictures))
    (tmp_path / "g.zip").write_bytes(zipped(found))
    zipfile.ZipFile(tmp_path / "g.zip").extractall(tmp_path / "g")
    pd.testing.assert_frame_equal(open_gallery(tmp_path / "g").rows(LAYER), found.rows(LAYER))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("samples", "samples"), ("digits", "digits"), ("/a/b", "folder"), ("upload/x", "folder"),
        (f"upload/{'a' * 32}", "upload"), ("torchvision/MNIST:train", "dataset"),
    ],
)  # fmt: skip
def test_addresses_name_kinds_of_data(text: str, kind: str) -> None:
    assert datasets.kind(text) == kind


def test_progress_is_told_in_words() -> None:
    assert gallery_runs.words(None) == "starting"
    told = gallery_runs.words(Progress(1200, 5000, 212.4, 17.9, 2))
    assert told == "1,200 of 5,000 photos · 212 per second · 18 s left · 2 could not be read"
    assert [messages.duration(seconds) for seconds in (8, 200, 8000)] == ["8 s", "3 min", "2 h 13 min"]
    assert facts_table({"A": "1"}) == '<table class="vz-facts"><tr><td>A</td><td>1</td></tr></table>'
