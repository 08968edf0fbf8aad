"""The method `colours`: one photo and a folder, a cell, parts and their classes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

import vizapp
from tests.errors import refuses
from tests.media.files import noise, saved
from tests.networks import Branching, seeded
from vizapp.engine.trace.observe import observe
from vizapp.methods.base import Result
from vizapp.methods.cell_features import colour_cells, likeness
from vizapp.methods.colours import MOST_PHOTOS, read_cell
from vizapp.zoo.network import Network

SIDE, CLASSES = 48, ("cat", "dog", "owl", "fox", "hen")
PHOTO = vizapp.open_picture(noise(60, 50, seed=99), "noise")


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.wrap(seeded(Branching()), input_size=(3, SIDE, SIDE), name="branching", categories=CLASSES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos, of which the second is damaged and the last that of the question."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(3):
        (root / f"{number}.png").write_bytes(b"\x89PNG broken" if number == 1 else saved(noise(50, 50, seed=number)))
    (root / "3.png").write_bytes(saved(PHOTO.pixels))
    return root


def maps(network: Network, photo: object, site: str) -> np.ndarray:
    """The activations `[1 h w C]` from a pass of their own."""
    found = observe(network.module, network.prepare(photo), [network.site(site)])[site]  # type: ignore[arg-type]
    return found.permute(0, 2, 3, 1).numpy()


def asked(network: Network, site: str, **options: object) -> Result:
    return vizapp.ask("colours", network, picture=PHOTO, unit=vizapp.Unit(site, 0), **options)  # type: ignore[arg-type]


def test_the_colours_of_one_photo_are_those_of_its_cells(network: Network) -> None:
    found = asked(network, "body", cell=(3, 4))
    features = maps(network, PHOTO, "body")
    expected = colour_cells(features, lambda share: None)
    assert found.arrays["colours"].shape == (12, 12, 3)
    np.testing.assert_allclose(found.arrays["components"], expected.components[0], atol=1e-4)
    assert np.abs(found.arrays["colours"].astype(int) - expected.pixels[0]).max() <= 1
    np.testing.assert_allclose(found.arrays["similarity"], likeness(features, 0, (3, 4))[0], atol=1e-5)
    assert found.arrays["similarity"][3, 4] == pytest.approx(1, abs=1e-6)
    assert set(found.arrays) == {"colours", "components", "axes", "mean", "explained", "similarity"}
    assert "144 cells of the photo" in found.facts["basis"]
    assert [panel.title for panel in found.panels] == ["photo", "colours", "similarity"]


def test_the_photos_of_a_folder_share_the_basis(network: Network, photos: Path) -> None:
    found = asked(network, "body", folder=str(photos), cell="3,4", parts=3)
    every = [PHOTO, photos / "0.png", photos / "2.png", photos / "3.png"]
    features = np.concatenate([maps(network, photo, "body") for photo in every])
    expected = colour_cells(features, lambda share: None)
    arrays = found.arrays
    np.testing.assert_allclose(arrays["components"], expected.components, atol=1e-4)
    np.testing.assert_allclose(arrays["colours"][0], arrays["colours"][3], atol=1)  # the same photo
    np.testing.assert_allclose(arrays["photo_similarity"], likeness(features, 0, (3, 4)), atol=1e-5)
    np.testing.assert_array_equal(arrays["photo_similarity"][0], arrays["similarity"])
    np.testing.assert_array_equal(arrays["photo_factors"][0], arrays["factors"])
    assert arrays["photo_factors"].shape == (4, 3, 12, 12)
    assert "576 cells of 4 photos together" in found.facts["basis"]
    assert found.facts["photos"] == "noise, 0.png, 2.png, 3.png (all 4 photos of " + photos.name + ")"
    assert found.facts["unreadable"].startswith("1 photo was skipped: ")


def test_of_a_large_folder_evenly_spaced_photos_are_taken(network: Network, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(saved(noise(12, 12, seed=number)))
    found = vizapp.ask("colours", network, folder=str(tmp_path), unit=vizapp.Unit("body", 0))
    assert len(found.arrays["colours"]) == MOST_PHOTOS
    assert found.facts["photos"].startswith("0.png, 2.png, 5.png, 7.png")
    assert f"(24 of 60 photos of {tmp_path.name})" in found.facts["photos"]


def test_the_classes_of_a_part_are_the_weights_of_the_head_times_its_mean_vector(network: Network) -> None:
    found = asked(network, "relu_3", parts=4)
    weight = network.module.head.weight.numpy()  # type: ignore[operator, union-attr]
    factors, vectors = found.arrays["factors"], found.arrays["vectors"]
    for part in range(4):
        mean = sum(factors[part].ravel()[cell] * vectors[part] for cell in range(144)) / 144
        expected = [float(row @ mean) for row in weight]
        np.testing.assert_allclose(found.arrays["factor_logits"][part], expected, rtol=1e-4, atol=1e-6)
        order = sorted(range(5), key=lambda class_: -expected[class_])
        assert found.arrays["factor_classes"][part].tolist() == order
        assert found.table[part]["classes"].startswith(f"{CLASSES[order[0]]} (")
    assert sum(row["share"] for row in found.table) == pytest.approx(1)
    assert "rectified" not in found.facts
    assert found.facts["classes"].startswith("The head's weights")


def test_parts_of_a_layer_without_a_linear_head_have_no_classes_and_negative_values_are_told(network: Network) -> None:
    found = asked(network, "body", parts=2)
    negative = (maps(network, PHOTO, "body") < 0).mean()
    assert f"{100 * negative:.1f} % of the activations are negative" in found.facts["rectified"]
    assert "factor_logits" not in found.arrays
    assert "They are of 'relu_3'." in found.facts["classes"]
    assert set(found.table[0]) == {"part", "share"}


def test_the_foreground_is_one_side_of_the_first_component_and_the_rest_is_black(network: Network) -> None:
    whole = asked(network, "body")
    first = whole.arrays["components"][..., 0]
    for side, shown in (("positive", first > 0), ("negative", first < 0)):
        found = asked(network, "body", foreground=side)
        np.testing.assert_array_equal(found.arrays["shown"], shown)
        np.testing.assert_array_equal(found.arrays["colours"], np.where(shown[..., None], whole.arrays["colours"], 0))
        assert f"whose first component is {side}" in found.facts["foreground"]


def test_interventions_change_the_colours(network: Network) -> None:
    changed = asked(network, "body", interventions=[vizapp.Intervention("stem", [0, 1, 2], "scale", 0.0)])
    assert not np.allclose(changed.arrays["components"], asked(network, "body").arrays["components"], atol=0.1)
    silent = asked(
        network, "body", interventions=[vizapp.Intervention("body", None, "scale", 0.0)], cell=(0, 0), parts=2
    )
    assert (silent.arrays["colours"] == 128).all()
    assert silent.facts["constant"].startswith("All cells are alike")
    assert silent.facts["cell"] == "Cell 0,0 is zero in every channel, so no cell is like it."
    assert silent.facts["unused"].startswith("2 of the parts are zero")


def test_a_map_of_one_cell_is_answered() -> None:
    module = seeded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5)))
    network = vizapp.wrap(module, input_size=(3, 8, 8), categories=CLASSES)
    found = asked(network, "1", cell=(0, 0), parts=2)
    assert found.arrays["colours"].tolist() == [[[128, 128, 128]]]
    assert found.arrays["similarity"].tolist() == [[1.0]]
    assert found.arrays["factors"].shape == (2, 1, 1)


def test_the_cell_may_be_that_of_the_unit(network: Network) -> None:
    unit = vizapp.Unit("body", 0, (3, 4))
    found = vizapp.ask("colours", network, picture=PHOTO, unit=unit)
    np.testing.assert_array_equal(found.arrays["similarity"], asked(network, "body", cell="3,4").arrays["similarity"])
    with refuses("several-cells", "3,4", "1,2"):
        vizapp.ask("colours", network, picture=PHOTO, unit=unit, cell=(1, 2))


def test_cells_are_read_from_python_and_from_texts() -> None:
    assert [read_cell(value) for value in ("3,5", " 3 , 5", (3, 5), np.array([3, 5]))] == [(3, 5)] * 4
    assert [read_cell(value) for value in (None, "", ())] == [()] * 3
    for wrong in ("3", "3,5,1", "a,b", "-1,2", (1.5, 2), (1,), 7, "3,"):
        with refuses("bad-value", "row and a column"):
            read_cell(wrong)


def test_what_cannot_be_answered_is_refused(network: Network, tmp_path: Path) -> None:
    with refuses("no-such-cell", "0,0 to 11,11", "12,3"):
        asked(network, "body", cell=(12, 3))
    with refuses("no-such-cell", "-1"):
        asked(network, "body", cell=(-1, 3))
    with refuses("no-cells", "'head'", "'relu_3'"):
        asked(network, "head")
    with refuses("bad-value", "parts", "from 2 to 12"):
        asked(network, "body", parts=1)
    with refuses("bad-value", "parts", "12"):
        asked(network, "body", parts=13)
    (tmp_path / "a.png").write_bytes(b"\x89PNG broken")
    with refuses("no-photo", tmp_path.name):
        vizapp.ask("colours", network, folder=str(tmp_path))
