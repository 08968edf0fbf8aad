"""The photos of a folder that are nearest to a photo, beside a loop over photos in float64."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import Branching, seeded
from vizapp.engine.trace.observe import observe
from vizapp.gallery.search_features import nearest
from vizapp.media.source import Source
from vizapp.methods.base import Job
from vizapp.methods.photo_features import default_site, folder_features
from vizapp.zoo.network import Network

SIDE, CLASSES = 32, ("cat", "dog", "owl", "fox", "hen")
TWINS, DAMAGED = (4, 17), 9  # a photo with its copy, and a file that is no photo
CALTECH = Path(os.environ.get("VIZAPP_SHARED", "/nowhere")) / "data" / "caltech101" / "train"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "VIZAPP_CACHE", str(tmp_path_factory.getbasetemp() / "neighbours")
    )  # shared: a pass serves several tests


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE), name="branching", categories=CLASSES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of three classes."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(24):
        content = saved(noise(40, 44, seed=TWINS[0] if number in TWINS else number))
        place = root / CLASSES[number // 8] / f"{number:02d}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"\x89PNG\r\n\x1a\nbroken" if number == DAMAGED else content)
    return root


class Dividing(nn.Module):
    """Not finite where the first number of the input is negative."""

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x.mean((2, 3)) / (x[:, :1, 0, 0] > 0).float()


def maps_of(network: Network, source: Source, site: str) -> dict[int, np.ndarray]:
    """The activations of each readable photo, from a pass of its own, by number, in float64."""
    at = [network.site(site)]
    return {
        number: observe(network.module, network.prepare(picture), at)[at[0].name][0].double().numpy()
        for number, picture in source.open_readable(range(len(source)))
    }


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(1 - first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def euclidean(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second))


@pytest.mark.parametrize("metric", [euclidean, cosine])
@pytest.mark.parametrize(("of", "site"), [("pooled", ""), ("pooled", "body"), ("flat", "body")])
def test_it_is_a_loop_over_the_photos(
    network: Network, photos: Path, of: str, site: str, metric: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    source, picture = vizapp.open_folder(photos), vizapp.open_picture(noise(40, 44, seed=99))
    maps = maps_of(network, source, site or "mean")
    own = (
        observe(network.module, network.prepare(picture), [network.site(site or "mean")])[site or "mean"][0]
        .double()
        .numpy()
    )
    reduced = {n: one.mean((1, 2)) if of == "pooled" and one.ndim == 3 else one.ravel() for n, one in maps.items()}
    own = own.mean((1, 2)) if of == "pooled" and own.ndim == 3 else own.ravel()
    expected = sorted((metric(own, one), number) for number, one in reduced.items())[:7]
    found = vizapp.ask("neighbours", network, picture, source, site=site, of=of, k=7, metric=metric.__name__)
    assert found.arrays["indices"].tolist() == [number for _, number in expected]
    np.testing.assert_allclose(found.arrays["distances"], [apart for apart, _ in expected], rtol=1e-4)
    assert [row["path"] for row in found.table] == [source.path(number) for _, number in expected]
    assert [row["label"] for row in found.table] == [source.labels[number] for _, number in expected]
    assert [panel.title for panel in found.panels] == ["photo", "neighbours"]


def test_a_cell_is_compared_with_every_cell_of_every_photo(network: Network, photos: Path) -> None:
    source, picture = vizapp.open_folder(photos), vizapp.open_picture(noise(40, 44, seed=99))
    site, cell = network.site("body"), (3, 5)
    own = observe(network.module, network.prepare(picture), [site])["body"][0].double().numpy()
    maps = maps_of(network, source, "body")
    every = sorted(
        (euclidean(own[:, 3, 5], one[:, row, column]), number, row, column)
        for number, one in maps.items() for row, column in np.ndindex(one.shape[1:])
    )[:9]  # fmt: skip
    found = vizapp.ask("neighbours", network, picture, source, unit=vizapp.Unit("body", 0, cell), of="cell", k=9)
    assert found.arrays["indices"].tolist() == [one[1] for one in every]
    assert found.arrays["cells"].tolist() == [list(one[2:]) for one in every]
    np.testing.assert_allclose(found.arrays["distances"], [one[0] for one in every], rtol=1e-4)
    field = site.receptive_field
    assert field is not None
    for (row, column), box in zip(found.arrays["cells"].tolist(), found.arrays["boxes"].tolist(), strict=True):
        clipped = np.clip(box, 0, SIDE).tolist()
        assert clipped == np.clip(field.box((row, column)), 0, SIDE).tolist()
    assert found.facts["cell"].startswith("row 3, column 5")
    strongest = np.unravel_index((own**2).sum(0).argmax(), own.shape[1:])
    without = vizapp.ask("neighbours", network, picture, source, site="body", of="cell", k=1)
    assert without.arrays["cell"].tolist() == [int(place) for place in strongest]
    assert "largest norm" in without.facts["cell"]


@pytest.mark.parametrize("of", ["pooled", "flat", "cell"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_photo_of_the_folder_and_its_copy_come_first_at_distance_zero(
    network: Network, photos: Path, of: str, metric: str
) -> None:
    source = vizapp.open_folder(photos)
    found = vizapp.ask(
        "neighbours",
        network,
        source.open(TWINS[1]),
        source,
        site="" if of == "pooled" else "body",
        of=of,
        metric=metric,
        k=3,
    )
    assert found.arrays["indices"][:2].tolist() == list(TWINS)
    assert found.arrays["distances"][:2].tolist() == [0, 0]
    assert found.arrays["distances"][2] > 0
    if of == "cell":
        assert found.arrays["cells"][0].tolist() == found.arrays["cells"][1].tolist() == found.arrays["cell"].tolist()


def test_the_order_of_the_files_does_not_matter(network: Network, photos: Path, tmp_path: Path) -> None:
    source = vizapp.open_folder(photos)
    order = np.random.default_rng(3).permutation(len(source)).tolist()
    listing = tmp_path / "list.csv"
    listing.write_text("path\n" + "".join(f"{photos / source.path(number)}\n" for number in order))
    picture = vizapp.open_picture(noise(40, 44, seed=98))
    here, there = (vizapp.ask("neighbours", network, picture, folder, k=5).arrays for folder in (source, listing))
    assert [order[number] for number in there["indices"]] == here["indices"].tolist()
    assert there["distances"].tolist() == here["distances"].tolist()


def test_what_is_missing_is_told(network: Network, photos: Path) -> None:
    found = vizapp.ask("neighbours", network, noise(40, 44, seed=97), photos, k=100)
    assert sorted(found.arrays["indices"].tolist()) == [n for n in range(24) if n != DAMAGED]
    assert "only 23" in found.facts["fewer"]
    assert found.facts["unreadable"].startswith("1 photo was skipped: ")
    assert "09.png" in found.documents["unreadable.csv"]
    assert "among 23 photos" in found.facts["search"]


def test_one_photo_alone_is_its_own_neighbour(network: Network, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes((photos / "cat" / "00.png").read_bytes())
    found = vizapp.ask("neighbours", network, tmp_path / "one.png", tmp_path)
    assert (found.arrays["indices"].tolist(), found.arrays["distances"].tolist()) == ([0], [0.0])


def test_features_that_are_not_finite_are_left_out_and_counted(photos: Path) -> None:
    network = vizapp.wrap(Dividing(), input_size=(3, SIDE, SIDE), name="dividing")
    source, site = vizapp.open_folder(photos), network.sites[-1].name
    finite = {number: bool(np.isfinite(one).all()) for number, one in maps_of(network, source, site).items()}
    good, bad = (next(number for number, one in finite.items() if one == wanted) for wanted in (True, False))
    found = vizapp.ask("neighbours", network, source.open(good), source, site=site, k=50)
    assert sorted(found.arrays["indices"].tolist()) == [number for number, one in finite.items() if one]
    assert found.facts["not finite"].startswith(f"{sum(not one for one in finite.values())} photo")
    with refuses("not-finite", "not finite"):
        vizapp.ask("neighbours", network, source.open(bad), source, site=site)


def test_what_cannot_be_asked_is_refused(network: Network, photos: Path) -> None:
    photo = noise(40, 44, seed=1)
    with refuses("no-cells", "mean", "without cells"):
        vizapp.ask("neighbours", network, photo, photos, site="mean", of="cell")
    with refuses("several-layers", "stem", "body"):
        vizapp.ask("neighbours", network, photo, photos, site="body", of="cell", unit=vizapp.Unit("stem", 0, (1, 1)))
    with refuses("no-such-layer", "bodi"):
        vizapp.ask("neighbours", network, photo, photos, site="bodi")
    with refuses("missing-input", "folder"):
        vizapp.ask("neighbours", network, photo)


@pytest.mark.slow
@pytest.mark.skipif(not CALTECH.is_dir(), reason="needs Caltech-101")
def test_of_six_neighbours_most_share_the_class(tmp_path: Path) -> None:
    """15 photos of each of 25 classes, last hidden layer of the ImageNet network: 90 % of these classes, every fourth."""
    chosen = sorted(path for path in CALTECH.iterdir() if path.is_dir())[::4][:25]
    listing = tmp_path / "list.csv"
    rows = [f"{file},{path.name}" for path in chosen for file in sorted(path.glob("*.jpg"))[:15]]
    listing.write_text("\n".join(["path,label", *rows]) + "\n")
    network, source = vizapp.load(device="cpu"), vizapp.open_folder(listing)
    found = folder_features(network, source, default_site(network), 1, Job())
    assert found is not None
    features, labels = found.matrix(), np.array(source.labels)
    nearby = [[row for row in nearest([features], one, 7).rows if row != n][:6] for n, one in enumerate(features)]
    share = float(np.mean([labels[rows] == labels[n] for n, rows in enumerate(nearby)]))
    print(f"share of six neighbours with the photo's class: {share:.3f}")
    assert len(features) == 375
    assert share > 0.85
