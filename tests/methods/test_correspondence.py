"""Correspondence against a loop over all pairs of photos with a pass each, and its list of photos with parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

import vizapp
from tests.errors import refuses
from tests.networks import Branching, seeded
from vizapp.__main__ import main
from vizapp.engine.trace.observe import observe
from vizapp.methods import correspondence as method
from vizapp.methods.correspondence import disagreement, in_words, share_of_place, squares
from vizapp.methods.parts import Box
from vizapp.zoo.network import Network

SIDE = 64
BOXES: list[Box] = [(4, 8, 24, 30), (30, 20, 50, 42), (10, 40, 30, 62)]
PHOTOS = [np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for seed in range(3)]
PARTS = list(zip(PHOTOS, BOXES, strict=True))
FAMILIES = {
    "resnet18": SIDE, "mobilenet_v2": SIDE,
    **dict.fromkeys(("vgg11", "densenet121", "googlenet"), SIDE), "alexnet": 96,
}  # fmt: skip
SLOW = ("alexnet", "vgg11", "densenet121", "googlenet")


def wrapped(module: nn.Module, side: int = SIDE) -> Network:
    return vizapp.wrap(module.eval(), (3, side, side), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def small() -> Network:
    return wrapped(seeded(Branching()))


def by_the_paper(network: Network, photos: Sequence[np.ndarray], boxes: Sequence[Box], site: str) -> float:
    """Zeiler & Fergus 2013, section 4.3, as the mean over pairs: one pass per photo, and a loop over the pairs."""
    where, epsilon = network.site(site), []
    for photo, (top, left, bottom, right) in zip(photos, boxes, strict=True):
        crop = network.seen(photo)
        masked = crop.copy()
        masked[top:bottom, left:right] = 128
        passes = [observe(network.module, network.batch([one]), [where])[site].double() for one in (crop, masked)]
        epsilon.append(np.sign((passes[0] - passes[1]).flatten().numpy()))
    pairs = list(itertools.permutations(range(len(photos)), 2))
    return float(np.mean([np.mean(epsilon[i] != epsilon[j]) for i, j in pairs]))


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAMILIES])
def test_it_is_the_loop_over_pairs_for_parts_and_for_both_kinds_of_random_squares(name: str) -> None:
    torch.manual_seed(0)
    more: dict[str, bool] = {"init_weights": False} if name in ("googlenet", "vgg11") else {}
    more |= {"aux_logits": False} if name == "googlenet" else {}
    side = FAMILIES[name]
    network = wrapped(models.get_model(name, num_classes=10, **more), side)
    photos = [np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8) for seed in range(3)]
    found = vizapp.ask("correspondence", network, parts=list(zip(photos, BOXES, strict=True)), draws=1, seed=5)
    (own,), (shared,) = squares(BOXES, (side, side), 1, 5)
    assert len(found.table) >= 3
    for row, entry in list(enumerate(found.table))[:: max(1, len(found.table) - 1)]:
        for key, boxes in (("parts", BOXES), ("random", own), ("shared", shared)):
            value = np.ravel(found.arrays[key][row])[0]
            # Rounding differs between batches: in a large map, changes of 1e-7 may get another sign in up to three pairs.
            least = 2 / entry["features"] if entry["features"] > 1000 else 1e-12
            expected = by_the_paper(network, photos, boxes, entry["layer"])
            assert value == pytest.approx(expected, abs=least), (entry["layer"], key)


def test_identical_photos_with_identical_parts_change_alike(small: Network) -> None:
    same = [(PHOTOS[0], BOXES[0])] * 3
    found = vizapp.ask("correspondence", small, parts=same, draws=3, sites=["stem", "body", "head"])
    assert (found.arrays["parts"] == 0).all()
    assert (found.arrays["shared"] == 0).all()
    assert (found.arrays["random"][:2] > 0).all(), "places of their own"


def test_independent_random_signs_differ_in_half_of_the_pairs() -> None:
    features, photos = 20_000, 12
    changes = torch.from_numpy(np.random.default_rng(0).normal(size=(2, photos, features)))
    # The n (n - 1) / 2 pairs are independent two by two, and each differs with probability 1/2.
    sigma = 0.5 / np.sqrt(features * photos * (photos - 1) / 2)
    assert disagreement(*changes) == pytest.approx(0.5, abs=3 * sigma)


def test_the_sign_of_zero_is_a_value_of_its_own() -> None:
    nan, infinity = float("nan"), float("inf")
    before = torch.tensor([[0.0, -2.0, 1e-30, infinity], [3.0, -1.0, nan, infinity], [-0.0, -5.0, 1.0, 0.0]])
    after = torch.tensor([[0.0, 0.0, 0.0, infinity], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # Signs of the features: 0 + 0, - - -, + 0 +, 0 + 0.
    assert disagreement(before, after) == pytest.approx((2 / 3 + 0 + 2 / 3 + 2 / 3) / 4)
    photos = torch.arange(12.0)[:, None]
    assert disagreement(photos, torch.full_like(photos, -1)) == 0, "twelve photos alike"


def test_features_that_no_square_reaches_are_equal_and_not_rounded() -> None:
    """Each photo is hidden at a place of its own, and a feature sees one pixel: it changes for at most one of them."""
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    with torch.no_grad():
        module[0].weight.fill_(1)
        module[0].bias.fill_(10)  # nothing is rectified
    network = vizapp.wrap(module.eval(), (3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)
    dark = [np.full((SIDE, SIDE, 3), 40, np.uint8)] * 3
    found = vizapp.ask("correspondence", network, parts=list(zip(dark, BOXES, strict=True)), draws=1, sites="1")
    covered = sum((bottom - top) * (right - left) for top, left, bottom, right in BOXES)
    # For each covered pixel, two of the three pairs differ: changed and unchanged.
    assert found.arrays["parts"][0] == pytest.approx(2 / 3 * covered / SIDE**2, rel=1e-12)


def test_random_squares_lie_inside_have_the_sizes_of_the_parts_and_share_their_centre() -> None:
    boxes: list[Box] = [(0, 0, 10, 20), (0, 0, 30, 8), (5, 5, 15, 11)]
    own, shared = squares(boxes, (40, 32), 200, 1)
    for drawn in (own, shared):
        values = np.array(drawn)
        assert (values[..., :2] >= 0).all()
        assert (values[..., 2] <= 40).all()
        assert (values[..., 3] <= 32).all()
        assert (values[..., 2:] - values[..., :2] == [[10, 20], [30, 8], [10, 6]]).all()
    centres = (np.array(shared)[..., :2] + np.array(shared)[..., 2:]) / 2
    assert (np.ptp(centres, axis=1) <= 0.5).all(), "to half a pixel"
    assert np.ptp(np.array(own)[..., 0], axis=1).max() > 10
    tops = np.array(own)[:, 0, 0]
    assert (tops.min(), tops.max()) == (0, 30), "anywhere"
    assert squares(boxes, (40, 32), 3, 1)[0] == own[:3], "more draws leave the first ones as they are"
    assert squares(boxes, (40, 32), 3, 2)[0] != own[:3]


def test_a_part_as_large_as_the_crop_leaves_no_choice_of_a_place(small: Network) -> None:
    parts = [(photo, (0, 0, SIDE, SIDE)) for photo in PHOTOS]
    found = vizapp.ask("correspondence", small, parts=parts, draws=2, sites="body")
    assert set(found.arrays["random"][0]) == set(found.arrays["shared"][0]) == set(found.arrays["parts"])
    assert found.table[0]["place"] is None


@pytest.mark.parametrize(
    ("parts", "random", "shared", "share", "words"),
    [
        (0.08, [0.29, 0.31], [0.06, 0.08], 0.23 / 0.22, "explains all"),
        (0.30, [0.43, 0.45], [0.37, 0.39], 0.06 / 0.14, "about 43 %"),
        (0.10, [0.29, 0.31], [0.30, 0.30], 0.0, "explains none"),
        (0.29, [0.20, 0.40], [0.10, 0.12], None, "no more alike"),
        (0.40, [0.30, 0.30], [0.10, 0.10], None, "no more alike"),
        (0.30, [0.30], [0.10], None, "no more alike"),
    ],
)
def test_what_place_explains_is_told_where_there_is_something_to_explain(
    parts: float, random: list[float], shared: list[float], share: float | None, words: str
) -> None:
    found = share_of_place(parts, np.array(random), np.array(shared))
    assert found == (None if share is None else pytest.approx(share))
    assert words in in_words(found)


def test_the_table_holds_means_deviations_and_the_share(small: Network) -> None:
    found = vizapp.ask("correspondence", small, parts=PARTS, draws=4, sites=["stem", "head"])
    assert {name: values.shape for name, values in found.arrays.items()} == {
        "parts": (2,), "random": (2, 4), "shared": (2, 4),
    }  # fmt: skip
    for number, row in enumerate(found.table):
        random = found.arrays["random"][number]
        assert row["random"] == pytest.approx(random.mean())
        assert row["random sd"] == pytest.approx(np.sqrt(((random - random.mean()) ** 2).sum() / 3))
        assert row["parts"] == found.arrays["parts"][number]
    assert [row["layer"] for row in found.table] == ["stem", "head"]
    assert "the parts" in found.facts["summary"].lower()
    one = vizapp.ask("correspondence", small, parts=PARTS, draws=1, sites="stem")
    assert one.table[0]["random sd"] is None


def test_by_default_it_goes_from_early_maps_to_the_logits(small: Network) -> None:
    rows = [row["layer"] for row in vizapp.ask("correspondence", small, parts=PARTS, draws=1).table]
    order = [site.name for site in small.sites]
    assert rows == sorted(rows, key=order.index)
    assert (rows[-1], len(rows)) == ("head", len(set(rows)))
    softmax = wrapped(seeded(nn.Sequential(Branching(), nn.Softmax(1))))
    assert method.default_sites(softmax)[-1].name == "0.head"


def test_memory_for_one_photo_at_a_time_gives_the_same(small: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"parts": PARTS, "draws": 2, "sites": ["stem", "left", "head"]}
    expected = vizapp.ask("correspondence", small, **asked)
    monkeypatch.setattr(method, "AT_ONCE", 1)
    found = vizapp.ask("correspondence", small, **asked)
    for name, values in expected.arrays.items():
        np.testing.assert_allclose(found.arrays[name], values, atol=2e-4)


def test_it_reports_progress_and_can_be_left(small: Network) -> None:
    shares: list[float] = []

    class Leave(BaseException):
        pass

    def tick(share: float) -> None:
        shares.append(share)
        if share > 0.4:
            raise Leave

    with pytest.raises(Leave):
        vizapp.ask("correspondence", small, parts=PARTS, draws=5, tick=tick)
    assert len(shares) >= 4
    assert shares == sorted(shares)


# The list of photos


def written(folder: Path, text: str) -> str:
    for number, photo in enumerate(PHOTOS):
        Image.fromarray(photo).save(folder / f"{number}.png")
    (folder / "parts.csv").write_text(text, encoding="utf-8")
    return str(folder / "parts.csv")


ROWS = [f"{number}.png,{','.join(map(str, box))}" for number, box in enumerate(BOXES)]
HEADER = "path,top,left,bottom,right"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEADER, *ROWS]),
        "\ufeffPath, Right ,bottom,left,TOP,note\r\n"
        + "\r\n".join(f"{n}.png,{','.join(map(str, box[::-1]))},x" for n, box in enumerate(BOXES))
        + "\r\n\r\n",
    ],
)
def test_a_csv_file_says_the_same_as_python(
    text: str, small: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    found = vizapp.ask("correspondence", small, parts=written(tmp_path, text), draws=2)
    expected = vizapp.ask("correspondence", small, parts=PARTS, draws=2)
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)


def test_the_command_line_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = "\n".join([HEADER, *(f"{n}.png,4,4,12,14" for n in range(3))])
    asked = ["correspondence", "--network", "lenet5-digits", "--weights", "none", "--device", "cpu", "--draws", "2"]
    assert main([*asked, "--parts", written(tmp_path, boxes), "--out", str(tmp_path / "out")]) == 0
    assert "place" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "arrays.npz")["random"].shape[1] == 2
    assert (tmp_path / "out" / "parts.png").is_file()
    assert main([*asked, "--parts", str(tmp_path / "part.csv")]) == 2
    assert "Did you mean parts.csv?" in capsys.readouterr().err
    assert main(asked) == 2
    assert "--parts FILE.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("", "missing-column", "no column path and no column top"),
        ("path,top,left,bottom\n", "missing-column", "no column right;"),
        ("\n".join([HEADER, *ROWS[:2], "2.png,1,2,three,4"]), "bad-part", "Row 4 of"),
        ("\n".join([HEADER, *ROWS[:2], "2.png,1,2,3.5,4"]), "bad-part", "'3.5' as bottom"),
        ("\n".join([HEADER, *ROWS[:2], "2.png,1,2"]), "bad-part", "'' as bottom"),
        ("\n".join([HEADER, *ROWS[:2], ",1,2,3,4"]), "bad-part", "names no photo"),
        ("\n".join([HEADER, *ROWS[:2], "2.png,9,2,9,4"]), "empty-part", "Row 4 of"),
        ("\n".join([HEADER, *ROWS[:2], "7.png,1,2,3,4"]), "no-such-file", "7.png"),
        ("\n".join([HEADER, *ROWS[:2], "parts.csv,1,2,3,4"]), "unsupported-format", "parts.csv"),
        (
            "\n".join([HEADER, ROWS[0]]),
            "wrong-number-of-parts",
            "3 to 12 photos with a marked part each; one was given",
        ),
        ("\n".join([HEADER, *ROWS[:2]]), "wrong-number-of-parts", "2 were given"),
        ("\n".join([HEADER, *ROWS * 5]), "wrong-number-of-parts", "15 were given"),
        (HEADER, "wrong-number-of-parts", "none was given"),
        (f'{HEADER}\n"0.png,1,2,3,4', "list-damaged", "cannot be read as a CSV file"),
    ],
)
def test_a_wrong_file_is_told_with_the_row(small: Network, tmp_path: Path, text: str, code: str, told: str) -> None:
    with refuses(code, told):
        vizapp.ask("correspondence", small, parts=written(tmp_path, text), draws=1)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({}, "missing-input", "3 to 12 photos"),
        ({"parts": []}, "wrong-number-of-parts", "none was given"),
        ({"parts": PARTS[:1]}, "wrong-number-of-parts", "one was given"),
        ({"parts": PARTS * 5}, "wrong-number-of-parts", "15 were given"),
        ({"parts": 3}, "bad-value", "a list of (photo"),
        ({"parts": PHOTOS}, "bad-part", "Entry 1 of parts has no part"),
        ({"parts": [*PARTS[:2], (PHOTOS[2],)]}, "bad-part", "Entry 3"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], (1, 2, 3))]}, "bad-part", "four whole numbers"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], (1, 2, 3.5, 4))]}, "bad-part", "(1, 2, 3.5, 4)"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], None)]}, "bad-part", "None"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], (5, 5, 5, 9))]}, "empty-part", "bottom must be larger than top"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], (0, 0, 9, SIDE + 1))]}, "part-outside", "64 pixels high and 64 wide"),
        ({"parts": [*PARTS[:2], (PHOTOS[2], (-1, 0, 9, 9))]}, "part-outside", "-1,0,9,9"),
        ({"parts": [*PARTS[:2], (3, BOXES[2])]}, "not-a-picture", "int"),
        ({"parts": PARTS, "sites": "stm"}, "no-such-layer", "stem"),
        ({"parts": PARTS, "draws": 0}, "bad-value", "draws"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(
    small: Network, given: dict[str, object], code: str, told: str
) -> None:
    with refuses(code, told):
        vizapp.ask("correspondence", small, **given)  # type: ignore[arg-type]


def test_photos_of_other_sizes_are_cropped_as_the_network_sees_them(small: Network) -> None:
    large = [np.kron(photo, np.ones((3, 2, 1), np.uint8)) for photo in PHOTOS]
    parts = list(zip([PHOTOS[0], *large[1:]], BOXES, strict=True))
    found = vizapp.ask("correspondence", small, parts=parts, draws=1, sites="stem")
    assert found.arrays["parts"][0] == pytest.approx(
        by_the_paper(small, [p for p, _ in parts], BOXES, "stem"), abs=2e-3
    )
