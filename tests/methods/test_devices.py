"""Each method gives the same on a GPU as on a CPU, and the same in batches of one picture by one thread.

The comparison with the GPU is run by `pytest -m gpu` on a machine with one; the other one runs everywhere, by the same code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vizapp
from tests.media.files import noise, saved
from tests.networks import Branching, saved_run, seeded
from vizapp.engine.memory import chunks
from vizapp.methods.base import Result

SIDE = 48
PICTURE = noise(SIDE, SIDE, seed=3)
# The largest difference, as a share of the largest value of an array. Float32 rounds to 6e-8; a sum of a few hundred products
# in another order differs by some 1e-6.
ROUNDING = 1e-5
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "activations": ({}, ROUNDING),
    "architecture": ({}, ROUNDING),
    "arithmetic": ({}, 1e-4),  # the parts are those of activations that differ by rounding
    "atlas": ({}, 1e-3),  # axes turn by more than the features change
    "attribution": ({"kind": "gradcam"}, ROUNDING),
    "colours": ({"parts": 3, "cell": (2, 3)}, 5e-3),  # a pixel may be rounded the other way
    "correspondence": (
        {
            "parts": [(noise(SIDE, SIDE, seed=n), (9, 9, 30, 30)) for n in range(3)],
            "draws": 2,
            "sites": ["body", "head"],
        },
        ROUNDING,
    ),
    "dense": ({"stride": "native"}, ROUNDING),
    "evaluate": ({"crops": "ten"}, ROUNDING),
    "evolution": ({"site": "body", "units": 3}, ROUNDING),
    "filters": ({}, ROUNDING),
    "gallery": ({"sites": ["body", "left"], "top": 3, "batch": 4}, ROUNDING),
    "ideal": ({"steps": 2, "size": SIDE}, 1e-3),  # each step divides by the size of the last gradient, and adds up
    "knockout": ({"site": "stem", "fewest": True}, ROUNDING),
    "neighbours": ({"of": "cell"}, ROUNDING),
    "occlusion": ({"window": 8, "stride": 8}, ROUNDING),
    "predict": ({"crops": "ten"}, ROUNDING),
    "probe": ({"photos": 3, "splits": 1}, ROUNDING),  # shares of right answers
    "projection": ({"rule": "deconvnet"}, ROUNDING),
    "sanity": ({"seed": 1}, ROUNDING),
    "stages": ({}, ROUNDING),
    "teach": ({}, 1e-2),  # the fit ends where its slope is small
    "transform": ({"kind": "blur"}, ROUNDING),
    "trust": ({"kinds": "gradcam,random"}, 1e-3),  # a pixel of a map may come before or after another
}
# What is rounded as the larger values that it is a part or a difference of.
ROUNDED_AS = {
    "logit": "logits", "per_pixel": "logits", "logit_change": "clean_logits", "fewest_curve": "clean_logits",
    "probability_change": "clean_probability",
}  # fmt: skip
BATCHED = dict.fromkeys(("atlas", "neighbours"), 1e-5)  # differences of features are rounded as the features are
BATCHED |= {"colours": 5e-3, "teach": 1e-3}
METHODS = sorted(vizapp.methods())


def answer(key: str, device: str, folder: Path) -> Result:
    network = vizapp.wrap(seeded(Branching()), (3, SIDE, SIDE), categories=list("abcde"), device=device)
    assert network.device.type == device
    needs, (options, _) = vizapp.methods()[key].needs, CASES[key]
    given: dict[str, Any] = dict(options)
    if "picture" in needs:
        given["picture"] = PICTURE
    if "unit" in needs:
        given["unit"] = vizapp.Unit("body", 2)
    if "folder" in needs:
        given["folder"] = photos(folder, classes=2 if key in ("probe", "teach") else 5)
    if key == "evolution":
        given["checkpoints"] = saved_run(network.module, folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIZAPP_CACHE", tempfile.mkdtemp(dir=folder.parent))  # so that each question makes its own pass
        return vizapp.ask(key, network, **given)


def photos(folder: Path, classes: int) -> str:
    for number in range(10 if classes == 2 else 7):
        place = folder / "abcde"[number % classes] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(noise(SIDE, SIDE, seed=number)))
    return str(folder)


def differences(found: Result, expected: Result) -> dict[str, float]:
    """Of each array, the largest difference as a share of the largest value; 1 for other numbers of other kinds."""
    assert set(found.arrays) == set(expected.arrays)
    assert expected.arrays
    largest = {}
    for name, values in expected.arrays.items():
        other = found.arrays[name]
        assert (other.shape, other.dtype) == (values.shape, values.dtype), name
        if values.dtype == np.uint8:  # pixels
            largest[name] = float(np.abs(other.astype(int) - values).max(initial=0)) / 255
        elif values.dtype.kind == "f":
            assert np.array_equal(np.isfinite(values), np.isfinite(other)), name
            apart = np.abs(np.nan_to_num(other - values)).max(initial=0)
            size = np.abs(np.nan_to_num(expected.arrays[ROUNDED_AS.get(name, name)])).max(initial=0)
            largest[name] = float(apart / max(size, 1e-30))
        else:
            largest[name] = float(not np.array_equal(other, values))
    return largest


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(chunks, "SHARE_OF_FREE_MEMORY", 1e-15)
    assert chunks.chunk_size(1, torch.device("cpu")) == 1
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_each_method_is_compared() -> None:
    assert sorted(CASES) == METHODS


@pytest.mark.parametrize("key", METHODS)
def test_results_do_not_depend_on_the_batch_or_the_threads(
    key: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    expected = answer(key, "cpu", tmp_path / "photos")
    request.getfixturevalue("one_by_one")
    worst = differences(answer(key, "cpu", tmp_path / "photos"), expected)
    assert max(worst.values()) <= BATCHED.get(key, min(CASES[key][1], 1e-6)), worst


@pytest.mark.gpu
@pytest.mark.parametrize("key", METHODS)
def test_results_on_a_gpu_are_those_of_the_cpu(key: str, tmp_path: Path) -> None:
    expected = answer(key, "cpu", tmp_path / "photos")
    worst = differences(answer(key, "cuda", tmp_path / "photos"), expected)
    assert max(worst.values()) <= CASES[key][1], worst


def test_a_difference_is_seen(tmp_path: Path) -> None:
    found, expected = (answer("predict", "cpu", tmp_path) for _ in range(2))
    assert max(differences(found, expected).values()) == 0
    found.arrays["logits"][1] += 0.01 * np.abs(expected.arrays["logits"]).max()
    assert differences(found, expected)["logits"] == pytest.approx(0.01, rel=1e-3)
