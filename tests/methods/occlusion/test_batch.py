"""Occlusion of several photos, and panel (c) of other photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.engine.trace.observe import observe
from vizapp.errors import VizError
from vizapp.gallery import GalleryOptions, build
from vizapp.media.drawing import to_png
from vizapp.media.source import Source, spread
from vizapp.methods.base import Question
from vizapp.methods.gallery import GalleryParams, place_for, plan_of
from vizapp.methods.occlusion.batch import TOGETHER
from vizapp.methods.occlusion.other_images import LOOKED, NINE, rows_of_gallery
from vizapp.zoo.network import Network

SIZE = {"window": 17, "stride": 19}


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, 72, 65), categories=list("abcde"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Fourteen photos of noise of different strength, in three folders of which two are classes; one file is damaged."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(14):
        place = root / "bcx"[number % 3] / f"{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(to_png(rng.integers(0, 60 + 14 * number, (80, 70, 3), dtype=np.uint8)))
    (root / "c" / "04.png").write_bytes(b"no picture")
    return vizapp.open_folder(root)


def test_each_picture_of_a_folder_is_swept_as_it_is_alone(network, folder) -> None:
    shares: list[float] = []
    result = vizapp.ask("occlusion", network, folder=folder, most=0, tick=shares.append, **SIZE)
    arrays, readable = result.arrays, [n for n in range(14) if not folder.path(n).endswith("04.png")]
    assert len(readable) == 13 > 3 * TOGETHER
    assert arrays["picture"].tolist() == readable
    assert result.facts["pictures"] == f"13 of the 14 of {folder.name}"
    assert result.facts["unreadable"].startswith("1 photo was skipped: ")
    assert shares == sorted(shares)
    for place, number in enumerate(readable):
        alone = vizapp.ask("occlusion", network, folder.open(number), **SIZE)
        for name in ("probability", "logit", "label", "clean_probability", "clean_label", "class", "true_label"):
            np.testing.assert_allclose(arrays[name][place], alone.arrays[name], atol=1e-5, err_msg=name)
        for name in ("activation", "clean_activation"):
            np.testing.assert_allclose(arrays[name][place], alone.arrays[name], rtol=1e-4)
        np.testing.assert_allclose(arrays["projection"][place], alone.arrays["projection"], atol=1e-5)
        np.testing.assert_array_equal(arrays["positions"], alone.arrays["positions"])
        row, values = result.table[place], alone.arrays["probability"]
        assert row["picture"] == folder.path(number)
        assert row["true"] == {"b": "b", "c": "c", "x": ""}[folder.path(number)[0]]
        assert row["answer"] == "abcde"[int(alone.arrays["clean_label"])]
        assert row["class"] == (row["true"] or row["answer"])
        assert (
            row["lowest"] == pytest.approx(values.min(), abs=1e-6) == pytest.approx(values[row["row"], row["column"]])
        )
        assert row["drop"] == pytest.approx(row["clean"] - values.mean(), abs=1e-6)
        assert row["same"] == pytest.approx((alone.arrays["label"] == alone.arrays["clean_label"]).mean())
    change = np.mean([arrays["probability"][n] - arrays["clean_probability"][n] for n in range(13)], 0)
    np.testing.assert_allclose(arrays["mean_change"], change, atol=1e-6)
    assert [panel.title for panel in result.panels][:2] == ["mean-change", f"000-{folder.path(0)}"]
    assert len(result.panels) == 14


def test_an_inverse_sweep_over_a_folder_starts_each_from_its_own_fill(network, folder) -> None:
    asked = {"inverse": True, "fill": "mean"} | SIZE
    result = vizapp.ask("occlusion", network, folder=folder, most=5, **asked)
    for place, number in enumerate(result.arrays["picture"]):
        alone = vizapp.ask("occlusion", network, folder.open(int(number)), **asked)
        np.testing.assert_allclose(result.arrays["probability"][place], alone.arrays["probability"], atol=1e-5)
        np.testing.assert_allclose(
            result.arrays["clean_probability"][place], alone.arrays["clean_probability"], atol=1e-6
        )
        np.testing.assert_allclose(
            result.arrays["clean_activation"][place], alone.arrays["clean_activation"], rtol=1e-4
        )


def test_a_folder_is_thinned_out_evenly(network, folder) -> None:
    result = vizapp.ask("occlusion", network, folder=folder, most=4, **SIZE)
    assert result.arrays["picture"].tolist() == [0, 3, 7, 10]
    assert [spread(5, 0), spread(5, 9), spread(0, 3), spread(1000, 3)] == [[*range(5)], [*range(5)], [], [0, 333, 666]]


def test_neither_picture_nor_folder_and_a_folder_of_damaged_files_are_told(network, tmp_path: Path) -> None:
    with refuses("missing-input", "picture"):
        vizapp.ask("occlusion", network)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with refuses("no-readable-pictures"):
        vizapp.ask("occlusion", network, folder=vizapp.open_folder(tmp_path), **SIZE)


# Panel (c) of other photos


def strengths(network: Network, folder: Source, site: str, channel: int) -> dict[int, float]:
    """The largest activation of the map on each picture that can be read, by hand."""
    found = {}
    for number in range(len(folder)):
        try:
            batch = network.prepare(folder.open(number))
        except VizError:
            continue
        found[number] = float(observe(network.module, batch, [network.site(site)])[site][0, channel].max())
    return found


def check_others(
    network: Network, folder: Source, own: int, arrays: dict[str, np.ndarray], site: str, channel: int
) -> None:
    values = {n: v for n, v in strengths(network, folder, site, channel).items() if n != own and v > 0}
    expected = sorted(values, key=lambda n: -values[n])[:NINE]
    assert arrays["others_picture"].tolist() == expected
    np.testing.assert_allclose(arrays["others_activation"], [values[n] for n in expected], rtol=1e-5)
    for place, number in enumerate(expected):
        picture = folder.open(number)
        np.testing.assert_array_equal(arrays["others"][place], network.seen(picture))
        down = vizapp.ask("projection", network, picture, unit=vizapp.Unit(site, channel), extent="map")
        np.testing.assert_allclose(arrays["others_projection"][place], down.arrays["projection"], rtol=1e-4, atol=1e-6)


def test_a_folder_beside_the_picture_gives_the_other_pictures_of_c(network, folder) -> None:
    unit = vizapp.Unit("cat", 3)
    result = vizapp.ask("occlusion", network, folder.open(1), folder=folder, unit=unit, others="gallery", **SIZE)
    check_others(network, folder, 1, result.arrays, "cat", 3)
    assert result.facts["others"].startswith(
        f"From a pass over 14 of the 14 photos of {folder.name}. Strongest first: "
    )
    titles = [panel.title for panel in result.panels]
    assert titles[titles.index("c-projection") + 1] == "c-others"
    alone = vizapp.ask("occlusion", network, folder.open(1), unit=unit, **SIZE)
    np.testing.assert_array_equal(result.arrays["probability"], alone.arrays["probability"])
    assert "others" not in alone.arrays
    assert "others" not in alone.facts
    unasked = vizapp.ask("occlusion", network, folder.open(1), folder=folder, unit=unit, **SIZE)
    assert "others" not in unasked.arrays
    assert unasked.facts["others"].startswith("The folder is not used")


def test_a_gallery_of_the_same_pictures_gives_them_without_a_pass(network, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    site, channel = network.site("cat"), 3
    asked = Question(network, folder=folder)
    place = place_for(network, asked, [site], plan_of(network, GalleryParams(top=12)))
    build(network, folder, [site], place, GalleryOptions(12, workers=0))
    unit = vizapp.Unit("cat", channel)
    monkeypatch.setattr("vizapp.methods.occlusion.other_images.rows_of_pass", None)
    result = vizapp.ask("occlusion", network, folder.open(1), folder=folder, unit=unit, others="gallery", **SIZE)
    check_others(network, folder, 1, result.arrays, "cat", channel)
    assert result.facts["others"].startswith(f"From the gallery of 14 photos of {folder.name}.")
    # A gallery of other pictures or of other layers is none.
    assert rows_of_gallery(network, vizapp.open_folder(folder.root / "b"), unit)[0] is None
    assert rows_of_gallery(network, folder, vizapp.Unit("stem", 0))[0] is None
    twin = vizapp.wrap(seeded(Branching(), 1), input_size=(3, 72, 65), categories=list("abcde"))
    assert rows_of_gallery(twin, folder, unit)[0] is None


def test_without_gallery_and_folder_a_fact_says_how_to_get_them_and_a_pass_looks_at_the_samples(
    network, folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path))
    unit = vizapp.Unit("cat", 3)
    told = vizapp.ask("occlusion", network, folder.open(1), unit=unit, others="gallery", **SIZE)
    assert "others" not in told.arrays
    assert "no gallery of cat over samples. 'python -m vizapp gallery --sites cat' with" in told.facts["others"]
    monkeypatch.setattr("vizapp.methods.occlusion.other_images.LOOKED", 20)
    passed = vizapp.ask("occlusion", network, folder.open(1), unit=unit, others="pass", **SIZE)
    assert passed.facts["others"].startswith("From a pass over 20 of the ")
    assert passed.arrays["others"].shape == (NINE, 72, 65, 3)
    assert (np.diff(passed.arrays["others_activation"]) <= 0).all()
    assert LOOKED == 200


def test_crops_of_the_very_sample_are_no_other_pictures(network, monkeypatch) -> None:
    photo = vizapp.media.samples.open_sample("coffee")
    monkeypatch.setattr("vizapp.methods.occlusion.other_images.LOOKED", 40)
    result = vizapp.ask("occlusion", network, photo, others="pass", **SIZE)
    names = result.facts["others"].split("Strongest first: ")[1]
    assert "coffee" not in names
    assert len(names.split(", ")) == NINE


def test_a_map_that_nothing_excites_has_no_other_pictures(folder, monkeypatch) -> None:
    module = seeded(Branching())
    with torch.no_grad():
        module.stem.bias.fill_(-1e6)
    dead = vizapp.wrap(module, input_size=(3, 72, 65), categories=list("abcde"))
    relu = next(site.name for site in dead.sites if site.kind == "activation" and site.is_map)
    result = vizapp.ask(
        "occlusion", dead, folder.open(1), folder=folder, unit=vizapp.Unit(relu, 0), others="pass", **SIZE
    )
    assert "others" not in result.arrays
    assert result.facts["others"].startswith(f"No other photo activates {relu}:0.")
