"""Galleries and features in `assets` are of today's networks and samples, are used as if built here, and for no others."""

from __future__ import annotations

import filecmp
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import vizapp
from vizapp.engine.trace.sites import Site
from vizapp.gallery import GalleryOptions, build, open_gallery, shipped
from vizapp.gallery.build import identity
from vizapp.gallery.collectors import Features
from vizapp.gallery.folder_pass import FolderPass
from vizapp.gallery.store import is_intact, read_manifest
from vizapp.media import bundled
from vizapp.media.sources import open_folder
from vizapp.methods import shipped_probe
from vizapp.methods.base import Job, Question
from vizapp.methods.collected import table_name
from vizapp.methods.gallery import chosen_sites, place_for, revealing_site
from vizapp.methods.linear_probe import fit_probe, recalls, split
from vizapp.methods.photo_features import FolderFeatures, default_site, folder_features
from vizapp.methods.probe import chosen_sites as probe_sites
from vizapp.methods.probe import labelled
from vizapp.zoo.network import Network

MINI, LITE = "vizapp/zfnet-mini", "vizapp/efficientnet-lite0"
PLAN = GalleryOptions(batch=16)  # of the page, on a CPU


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))


@cache
def load(name: str, weights: str = "default") -> Network:
    return vizapp.load(name, weights=weights, device="cpu")


def place(network: Network, sites: tuple[Site, ...]) -> Path:
    return place_for(network, Question(network, folder=open_folder("samples")), sites, PLAN)


@pytest.mark.parametrize("name", [MINI, LITE])
def test_they_are_of_todays_network_samples_and_layers(name: str) -> None:
    network, source = load(name), open_folder("samples")
    sites = chosen_sites(network, ())
    found = place(network, sites)
    manifest = read_manifest(found)
    assert manifest is not None, "outdated: run python training/galleries.py"
    assert manifest["identity"] == identity(network, source, sites, PLAN)
    assert is_intact(found, manifest)
    names = sorted(path.name for path in (shipped.FOLDER / found.name).iterdir())
    same, other, missing = filecmp.cmpfiles(found, shipped.FOLDER / found.name, names, shallow=False)
    assert (same, other, missing) == (names, [], [])
    assert found.parent.parent.name == "cache"
    assert build(network, source, sites, found, PLAN) == "The gallery was there already."


@pytest.mark.parametrize(("name", "layer"), [(MINI, "features.relu5"), (LITE, "blocks.5.bn1"), (LITE, "fc")])
@pytest.mark.slow
def test_their_activations_are_those_of_the_network_on_these_photos(name: str, layer: str) -> None:
    network, source = load(name), open_folder("samples")
    gallery = open_gallery(place(network, chosen_sites(network, ())))
    for channel in (0, 7):
        for row in gallery.rows(layer, channel).itertuples():
            unit = vizapp.Unit(layer, channel)
            maps = vizapp.ask("activations", network, source.open(row.picture), unit=unit).arrays["activations"]
            assert row.activation == pytest.approx(float(maps[channel].max()), rel=1e-4, abs=1e-5)
            if maps.ndim == 3:
                assert maps[channel, row.row, row.column] == pytest.approx(row.activation, rel=1e-4, abs=1e-5)


def test_nothing_is_shipped_for_other_weights_photos_or_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(MINI)
    sites = chosen_sites(network, ())
    assert not place(network, sites[1:]).exists()
    assert not place(load(MINI, "none"), sites).exists()
    monkeypatch.setattr(bundled, "sample_digest", lambda name: "another file")
    assert not place(network, sites).exists()


def features_of_samples() -> FolderFeatures:
    """Of the default network, as the page Neighbours asks first."""
    network = load(LITE)
    found = folder_features(network, open_folder("samples"), default_site(network), 1, Job())
    assert found is not None
    return found


def test_the_first_view_of_neighbours_takes_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the shipped features are outdated: run python training/galleries.py."""
    monkeypatch.setattr(FolderPass, "run", lambda *given: pytest.fail("outdated: run python training/galleries.py"))
    network, source = load(LITE), open_folder("samples")
    found = features_of_samples()
    assert found.table.folder.parent.name == "passes"
    assert found.has_answers
    assert [path.name for path in shipped.TABLES.iterdir()] == [found.table.folder.name]
    assert len(found.table) == len(source)
    for number in (0, 387):
        seen = network.seen(source.open(number))
        own, near = found.matrix()[number], found.of_photo(seen)
        np.testing.assert_allclose(own, near, rtol=1e-3, atol=1e-4)
        answers = vizapp.ask("predict", network, source.open(number)).arrays["probabilities"]
        assert found.table.matrix("classes")[number, 0] == answers.argmax()


def test_the_first_view_of_what_each_layer_knows_takes_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the shipped probe is outdated: run python training/galleries.py."""
    monkeypatch.setattr(FolderPass, "run", lambda *given: pytest.fail("outdated: run python training/galleries.py"))
    network, source = load(LITE), open_folder("samples")
    page = {"photos": 8, "curve": (5, 15, 30)}  # as the page asks
    found = vizapp.ask("probe", network, folder=source, **page)
    layers = [site.name for site in probe_sites(network, ())]
    assert [row["layer"] for row in found.table] == ["pixels", *layers]
    np.testing.assert_allclose([row["accuracy"] for row in found.table[1:]], found.arrays["accuracy"].mean(1))
    assert found.arrays["recall"].shape == (len(layers), len(source.classes))
    assert [panel.title for panel in found.panels] == ["accuracy"]
    assert len(list(shipped_probe.FOLDER.iterdir())) == 1
    with pytest.raises(pytest.fail.Exception, match="outdated"):
        vizapp.ask("probe", network, folder=source, **page | {"seed": 1})


@pytest.mark.slow
def test_the_shipped_probe_is_that_of_the_shipped_features() -> None:
    """At the last layer, from the features that are shipped for Neighbours; without a pass."""
    source, table = open_folder("samples"), features_of_samples().table
    found = vizapp.ask("probe", load(LITE), folder=source, photos=8, curve=(5, 15, 30))
    members = labelled(table, source, 8).members
    features = features_of_samples().matrix()
    for number in range(3):
        part = split(members, [8] * len(members), 50, 0, number)
        fit = fit_probe(features[part.train], part.train_labels)
        right = recalls(fit.scores(features[part.test]).argmax(1), part.test_labels)
        assert found.arrays["accuracy"][-1, number] == pytest.approx(right.mean(), abs=0.01)


def test_other_weights_layers_or_photos_find_no_shipped_features(monkeypatch: pytest.MonkeyPatch) -> None:
    network, source = load(LITE), open_folder("samples")
    names = {path.name for path in shipped.TABLES.iterdir()}
    assert table_name(network, source, [Features([default_site(network)], 1)]) not in names, "without answers"
    assert table_name(load(LITE, "none"), source, [Features([default_site(network)], 1)]) not in names
    monkeypatch.setattr(bundled, "sample_digest", lambda name: "another file")
    monkeypatch.setattr(FolderPass, "run", lambda *given: pytest.fail("a pass"))
    with pytest.raises(pytest.fail.Exception, match="a pass"):
        features_of_samples()


def test_what_is_in_the_cache_stays() -> None:
    network = load(MINI)
    sites = chosen_sites(network, ())
    found = place(network, sites)
    (found / "_manifest.json").write_text("{}")
    assert place(network, sites) == found
    assert json.loads((found / "_manifest.json").read_text()) == {}


def test_clipped_activations_are_left_out_for_the_maps_that_relu6_reads() -> None:
    network = load(LITE)
    sites = chosen_sites(network, ())
    assert {site.kind for site in sites} == {"norm", "linear"}
    assert sum(site.operation == "hardtanh" for site in network.sites) == len(sites) - 1 == 33
    gallery = open_gallery(place(network, sites))
    maxima = gallery.units_of("bn1")["maximum"]
    assert np.unique(maxima).size == len(maxima), "no two are clipped to the same value"
    assert revealing_site(network, sites).name == "blocks.9.bn0"
    field = network.site("blocks.9.bn1").receptive_field
    assert field is not None
    assert max(field.size or (0, 0)) > 224


@pytest.mark.slow
def test_a_pass_here_writes_the_same_rows(tmp_path: Path) -> None:
    """The bits are those of one kind of processor; others may round differently."""
    network, source = load(MINI), open_folder("samples")
    sites = chosen_sites(network, ())
    build(network, source, sites, tmp_path / "anew", PLAN)
    here, there = open_gallery(tmp_path / "anew"), open_gallery(place(network, sites))
    assert here.manifest["data"] == there.manifest["data"]
    for site in sites:
        ours, theirs = here.rows(site.name), there.rows(site.name)
        np.testing.assert_allclose(ours["activation"], theirs["activation"], rtol=1e-4, atol=1e-4)
        assert (ours["picture"] == theirs["picture"]).mean() > 0.99


@pytest.mark.slow
def test_a_pass_here_gives_the_shipped_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = features_of_samples().matrix()
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(shipped, "copy_to", lambda place: None)
    np.testing.assert_allclose(features_of_samples().matrix(), there, rtol=1e-3, atol=1e-3)
