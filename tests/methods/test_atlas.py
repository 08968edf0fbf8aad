"""The atlas of a folder: axes beside NumPy's singular values, trustworthiness beside a loop over its definition."""

from __future__ import annotations

import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.methods.test_neighbours import CLASSES, DAMAGED, SIDE, TWINS, Dividing, cache, maps_of, network, photos
from vizapp.media.drawing import COLOURS, GREY
from vizapp.methods.embedding import beside, nonlinear, principal_axes, trustworthiness
from vizapp.zoo.network import Network

__all__ = ["cache", "network", "photos"]
RNG = np.random.default_rng(1)


def by_svd(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Axes `[k F]` with a positive largest loading, and their shares of the variance."""
    _, values, axes = np.linalg.svd(features - features.mean(0), full_matrices=False)
    axes = np.array([axis * np.sign(axis[np.abs(axis).argmax()]) for axis in axes[:k]])
    return axes, values[:k] ** 2 / (values**2).sum()


@pytest.mark.parametrize(("count", "size"), [(60, 9), (9, 60), (30, 30), (300, 200), (120, 300)])
def test_the_axes_are_those_of_the_singular_value_decomposition(count: int, size: int) -> None:
    features = (RNG.normal(size=(count, size)) * RNG.uniform(0.5, 3, size) + 7).astype(np.float32)
    found = principal_axes(features, 3, lambda share: None)
    axes, explained = by_svd(features.astype(np.float64), 3)
    np.testing.assert_allclose(found.axes, axes, atol=1e-7)
    np.testing.assert_allclose(found.explained, explained, rtol=1e-9)
    np.testing.assert_allclose(
        found.project(features), (features.astype(np.float64) - features.mean(0, np.float64)) @ axes.T, atol=1e-5
    )


def test_axes_that_photos_do_not_vary_along_are_zero() -> None:
    for size in (3, 90):
        line = np.outer(np.arange(2 * size), np.eye(size)[0] * 3 - np.eye(size)[1] * 4).astype(np.float32)
        found = principal_axes(line, 2, lambda share: None)
        np.testing.assert_allclose(found.axes[0, :3], [-0.6, 0.8, 0], atol=1e-9)
        assert not found.axes[1].any()
        np.testing.assert_allclose(found.explained, [1, 0], atol=1e-12)
    assert not principal_axes(np.ones((90, 90), np.float32), 2, lambda share: None).axes.any()
    alone = principal_axes(line[:1], 2, lambda share: None)
    assert not alone.axes.any()
    assert alone.project(line[:1]).tolist() == [[0, 0]]


def trust_by_definition(features: np.ndarray, points: np.ndarray, k: int) -> float:
    """Venna & Kaski 2001: 1 minus the scaled sum of how far beyond the k-th each false neighbour is in the features."""
    n, penalty = len(features), 0.0
    for one in range(n):
        true = sorted(
            (o for o in range(n) if o != one), key=lambda o: float(np.linalg.norm(features[one] - features[o]))
        )
        near = sorted((o for o in range(n) if o != one), key=lambda o: float(np.linalg.norm(points[one] - points[o])))
        penalty += sum(true.index(other) + 1 - k for other in near[:k] if other not in true[:k])
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * penalty


def test_trustworthiness_is_its_definition() -> None:
    features = RNG.normal(size=(40, 5))
    for points in (features[:, :2], RNG.normal(size=(40, 2))):
        found, near, measured = trustworthiness(features, points, 0)
        assert (near, measured) == (12, 40)
        assert found == pytest.approx(trust_by_definition(features, points, 12), abs=1e-12)
    assert trustworthiness(features[:9], features[:9, :2], 0)[1] == 4
    assert np.isnan(trustworthiness(features[:2], features[:2, :2], 0)[0])


def test_of_many_photos_a_random_part_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vizapp.methods.embedding.MOST_TRUSTED", 50)
    features = RNG.normal(size=(80, 3))
    found = trustworthiness(features, features[:, :2], 4)
    assert found[1:] == (12, 50)
    assert found == trustworthiness(features, features[:, :2], 4)
    assert found[0] != trustworthiness(features, features[:, :2], 5)[0]


def test_each_photo_is_a_point_on_the_axes(network: Network, photos: Path) -> None:
    source, picture = vizapp.open_folder(photos), vizapp.open_picture(noise(40, 44, seed=99))
    maps = maps_of(network, source, "mean")
    features = np.stack(list(maps.values()))
    found = vizapp.ask("atlas", network, picture, source, unit=vizapp.Unit("body", 3))
    axes, explained = by_svd(features, 2)
    assert found.arrays["pictures"].tolist() == list(maps)
    np.testing.assert_allclose(found.arrays["positions"], (features - features.mean(0)) @ axes.T, atol=1e-4)
    np.testing.assert_allclose(found.arrays["explained"], explained, rtol=1e-4)
    expected = trust_by_definition(features, found.arrays["positions"], 11)
    assert float(found.arrays["trustworthiness"]) == pytest.approx(expected, abs=0.01)
    (own,) = maps_of_one(network, picture)
    np.testing.assert_allclose(found.arrays["photo"], (own - features.mean(0)) @ axes.T, atol=1e-4)
    scores = {n: network.scores(network.prepare(source.open(n)))[0].numpy() for n in maps}
    assert found.arrays["answers"].tolist() == [int(one.argmax()) for one in scores.values()]
    right = [int(one.argmax()) == CLASSES.index(str(source.labels[n])) for n, one in scores.items()]
    assert found.arrays["correct"].tolist() == right
    body = [one[3].mean() for one in maps_of(network, source, "body").values()]
    np.testing.assert_allclose(found.arrays["activation"], body, rtol=1e-4, atol=1e-5)
    assert [row["picture"] for row in found.table] == [n for n in range(24) if n != DAMAGED]
    assert found.table[0]["answer"] == CLASSES[found.arrays["answers"][0]]
    assert "1 photo was skipped: " in found.facts["unreadable"]


def maps_of_one(network: Network, picture: vizapp.Picture) -> list[np.ndarray]:
    from vizapp.engine.trace.observe import observe

    return [observe(network.module, network.prepare(picture), [network.site("mean")])["mean"][0].double().numpy()]


def test_a_photo_of_the_folder_is_projected_onto_itself(network: Network, photos: Path) -> None:
    source = vizapp.open_folder(photos)
    found = vizapp.ask("atlas", network, source.open(TWINS[0]), source).arrays
    at = found["pictures"].tolist().index(TWINS[0])
    np.testing.assert_allclose(found["photo"], found["positions"][at], atol=1e-12)


def test_beside_is_the_mean_of_the_five_nearest() -> None:
    features, points = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=(30, 2))
    order = np.argsort(np.linalg.norm(features.astype(float) - features[7], axis=1), kind="stable")[:5]
    np.testing.assert_allclose(beside(features, points, features[7]), points[order].mean(0))


@pytest.mark.slow
def test_t_sne_keeps_neighbours_together_and_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    features = (RNG.normal(size=(60, 8)) + 20 * np.repeat(np.eye(3, 8), 20, 0)).astype(np.float32)
    points = nonlinear("tsne", features, 0, lambda share: None)
    assert points.shape == (60, 2)
    assert trustworthiness(features, points, 0)[0] > 0.9

    begun = list[subprocess.Popen[str]]()

    def leave(share: float) -> None:
        raise KeyboardInterrupt

    def popen(*args: Any, **options: Any) -> subprocess.Popen[str]:
        begun.append(real(*args, **options))
        return begun[0]

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        nonlinear("tsne", features, 0, leave)
    assert begun[0].returncode == -9, "the work ends with the question"
    with refuses("too-few-photos", "t-SNE", "4"):
        nonlinear("tsne", features[:4], 0, lambda share: None)


@pytest.mark.skipif(find_spec("umap") is not None, reason="UMAP is installed")
def test_umap_is_used_only_where_it_is_installed() -> None:
    with refuses("not-installed", "umap-learn"):
        nonlinear("umap", np.zeros((20, 3), np.float32), 0, lambda share: None)


def test_photos_without_finite_features_are_no_points(photos: Path) -> None:
    network, source = vizapp.wrap(Dividing(), input_size=(3, SIDE, SIDE), name="dividing"), vizapp.open_folder(photos)
    site = network.sites[-1].name
    finite = [number for number, one in maps_of(network, source, site).items() if np.isfinite(one).all()]
    found = vizapp.ask("atlas", network, folder=source, site=site)
    assert found.arrays["pictures"].tolist() == finite
    assert np.isfinite(found.arrays["positions"]).all()
    assert f"{23 - len(finite)} photos left out" in found.facts["not finite"]


def test_one_photo_is_one_point(network: Network, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes((photos / "cat" / "00.png").read_bytes())
    found = vizapp.ask("atlas", network, folder=tmp_path)
    assert found.arrays["positions"].tolist() == [[0, 0]]
    assert np.isnan(found.arrays["trustworthiness"])
    with refuses("too-few-photos"):
        vizapp.ask("atlas", network, folder=tmp_path, map="tsne")


def test_the_picture_has_a_legend_of_the_classes(network: Network, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "loose.png").write_bytes(saved(noise(SIDE, SIDE, 7)))
    for name in ("cat", "owl"):
        (tmp_path / name).symlink_to(photos / name)
    found = vizapp.ask("atlas", network, folder=tmp_path)
    pixels = found.panels[0].pixels
    counts = Counter(row["label"] for row in found.table)
    assert counts[None] == 1
    legend = pixels[:, pixels.shape[0] :]
    squares = [tuple(legend[24 + 24 * row, 4]) for row in range(len(counts))]
    named = [label for label, _ in counts.most_common() if label is not None]
    assert squares == [*map(tuple, COLOURS[: len(named)]), (GREY,) * 3]
    assert (legend[24 + 24 * len(counts) :] == 255).all()
    assert all((legend[20 + 24 * row : 40 + 24 * row, 24:] < 128).any() for row in range(len(counts))), "their names"
    for name in ("cat", "owl"):
        (tmp_path / name).unlink()
    (tmp_path / "more.png").write_bytes(saved(noise(SIDE, SIDE, 8)))
    assert vizapp.ask("atlas", network, folder=tmp_path).panels[0].pixels.shape == (640, 640, 3)
