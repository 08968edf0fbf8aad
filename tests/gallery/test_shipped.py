"""The galleries in `assets` are those of today's networks and samples, are used as if built here, and never for others."""

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
from vizapp.gallery.store import is_intact, read_manifest
from vizapp.media import bundled
from vizapp.media.sources import open_folder
from vizapp.methods.base import Question
from vizapp.methods.gallery import chosen_sites, place_for, revealing_site
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
