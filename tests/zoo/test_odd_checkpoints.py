"""Checkpoints of unusual but harmless content, of several state dicts, of odd types; and those that take too long."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import vizapp
from tests.errors import refuses
from tests.zoo.test_checkpoints import NET, saved, state
from tests.zoo.test_pickle_scan import packed
from vizapp.media.process import Limits
from vizapp.zoo import pickled


def loaded(path: Path) -> vizapp.zoo.Network:
    network = vizapp.load(NET, weights=path, device="cpu")
    assert all(torch.equal(value, state()[key]) for key, value in network.module.state_dict().items())
    return network


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of other processes, in the place of which this process answers."""
    made: list[Any] = []

    def call(function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits, tick: object) -> Any:
        made.append(limits)
        return function(*arguments)

    monkeypatch.setattr(pickled, "call", call)
    return made


WEIGHTS, TURNED = state(), "classifier.0.weight"
BESIDE: dict[str, Callable[[], Any]] = {
    "lightning": lambda: {"state_dict": {f"model.{k}": v for k, v in WEIGHTS.items()} | {"criterion.w": torch.ones(())}},
    "averaged": lambda: {f"module.{k}": v for k, v in WEIGHTS.items()} | {"n_averaged": torch.tensor(5)},
    "compiled and averaged": lambda: {f"module._orig_mod.{k}": v for k, v in WEIGHTS.items()} | {"n": torch.tensor(5)},
}  # fmt: skip
APART: dict[str, Callable[[], Any]] = {
    "numpy number": lambda: {"state_dict": WEIGHTS, "best": np.float64(0.9), "epoch": np.int64(3)},
    "numpy array": lambda: {"state_dict": WEIGHTS, "losses": np.arange(5.0)},
    "arguments": lambda: {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/tmp/x"))},
    "sets": lambda: {"state_dict": WEIGHTS, "frozen": {"a", "b"}},
    "half precision": lambda: {"state_dict": {k: v.bfloat16() for k, v in WEIGHTS.items()}, "frozen": {"a"}},
    "transposed": lambda: {"state_dict": WEIGHTS | {TURNED: WEIGHTS[TURNED].t().contiguous().t()}, "frozen": {"a"}},
    "long": lambda: {"state_dict": WEIGHTS, "log": ["x" * 1000 + str(n) for n in range(3000)]},
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE)
def test_what_training_adds_to_the_keys_is_left_out(kind: str, tmp_path: Path, calls: list[Any]) -> None:
    loaded(saved(tmp_path / "net.pth", BESIDE[kind]()))
    assert not calls


@pytest.mark.parametrize("kind", APART)
def test_harmless_content_beside_the_weights_is_read_apart(kind: str, tmp_path: Path, calls: list[Any]) -> None:
    path = saved(tmp_path / "net.pth", APART[kind]())
    if kind == "half precision":
        network = vizapp.load(NET, weights=path, device="cpu")
        assert torch.equal(network.module.features[0].weight, WEIGHTS["features.0.weight"].bfloat16().float())
    else:
        loaded(path)
    assert len(calls) == 1


def test_a_part_of_the_keys_is_not_taken_for_all(tmp_path: Path) -> None:
    keys = {f"model.{k}": v for k, v in WEIGHTS.items() if k != "features.0.bias"} | {"criterion.w": torch.ones(())}
    with refuses("checkpoint-mismatch", "criterion.w"):
        vizapp.load(NET, weights=saved(tmp_path / "net.pth", keys), device="cpu")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("student", "teacher"), "those of student, not of teacher"),
        (("state_dict", "state_dict_ema"), "those of state_dict, not of state_dict_ema"),
        (("ema", "model"), "those of model, not of ema"),
        (("one", "two", "three"), "those of one, not of two and three"),
    ],
)
def test_of_several_state_dicts_the_facts_say_which_one(keys: tuple[str, ...], told: str, tmp_path: Path) -> None:
    taken = told.split()[2].rstrip(",")
    content = {key: WEIGHTS if key == taken else {k: v + 1 for k, v in WEIGHTS.items()} for key in keys}
    assert loaded(saved(tmp_path / "net.pth", content)).facts["weights taken"] == told
    alone = {"model": WEIGHTS, "optimizer": {"state": {0: {"m": torch.ones(2)}}}, "scaler": {"scale": torch.ones(())}}
    assert "weights taken" not in loaded(saved(tmp_path / "alone.pth", alone)).facts


# Types


def tensors(kind: str, bits: int) -> bytes:
    return safetensors({"a": {"dtype": kind, "shape": [8], "data_offsets": [0, bits]}}, bytes([64]) * bits)


def safetensors(header: dict[str, Any], content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize(("kind", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_types_that_are_not_read_are_called_so(kind: str, bits: int, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(tensors(kind, bits))
    with refuses("checkpoint-odd-type"):
        vizapp.load(NET, weights=tmp_path / "a.safetensors", device="cpu")


_ALL = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64 C128 X"


@pytest.mark.parametrize("kind", _ALL.split())
def test_all_types_of_safetensors_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    bits = int("".join(c for c in kind.split("_")[0] if c.isdigit()) or 8)
    (tmp_path / "a.safetensors").write_bytes(tensors(kind, bits))
    with refuses("checkpoint-damaged" if kind in ("C128", "X") else "checkpoint-mismatch"):
        vizapp.load(NET, weights=tmp_path / "a.safetensors", device="cpu")


_TYPES = sorted({getattr(torch, name) for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}, key=str)
_UNSAVED = re.compile(r"torch\.(q.*|u?int[1-7])")  # torch.save fails


@pytest.mark.parametrize("dtype", [dtype for dtype in _TYPES if not _UNSAVED.fullmatch(str(dtype))], ids=str)
def test_all_types_of_torch_are_read_or_refused(dtype: torch.dtype, tmp_path: Path, calls: list[Any]) -> None:
    size = WEIGHTS["features.0.bias"].shape
    value = torch.zeros(64, dtype=torch.uint8).view(dtype) if dtype.itemsize == 1 else torch.zeros(size, dtype=dtype)
    path = saved(tmp_path / "net.pth", WEIGHTS | {"features.0.bias": value[: size[0]]})
    try:
        network = vizapp.load(NET, weights=path, device="cpu")
    except vizapp.VizError:
        assert dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2)
    else:
        assert dtype.is_floating_point
        assert (network.module.features[0].bias < 1e-30).all()


@pytest.mark.parametrize("change", [Tensor.to_sparse, Tensor.int, lambda value: value.to(torch.complex64)])
@pytest.mark.slow
def test_weights_that_would_lose_something_are_refused(change: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", WEIGHTS | {"features.0.weight": change(WEIGHTS["features.0.weight"])})
    with pytest.raises(vizapp.VizError) as caught:
        vizapp.load(NET, weights=path, device="cpu")
    assert caught.value.code in ("checkpoint-mismatch", "checkpoint-not-dense")
    assert "features.0.weight" in str(caught.value)


# Other kinds of files


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!doctype html><title>404</title>", "web page"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"), (b"GGUF\3\0\0\0" + bytes(99), "GGUF"),
        (b"\x93NUMPY\1\0" + bytes(99), "NumPy"), (b"\x1f\x8b\x08" + bytes(99), "gzip"), (bytes(257) + b"ustar", "tar"),
        (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow"), (b"just words\n" * 99, "text"), (b"%PDF-1.7\n" + bytes(99), "PDF"),
    ],
)  # fmt: skip
def test_other_kinds_of_files_are_called_by_their_names(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with refuses("checkpoint-damaged", kind):
        vizapp.load(NET, weights=tmp_path / "net.pth", device="cpu")


# Limits


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_file_of_very_many_tensors_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200,000 empty ones took 13 s, and the server with them."""
    monkeypatch.setattr(pickled, "MOST_TENSORS", len(WEIGHTS))
    write = save_file if kind == "safetensors" else torch.save
    write(dict(WEIGHTS), tmp_path / f"net.{kind}")
    loaded(tmp_path / f"net.{kind}")
    write(WEIGHTS | {"empty": torch.zeros(0)}, tmp_path / f"more.{kind}")
    with refuses("checkpoint-too-many-tensors", f"{len(WEIGHTS) + 1} tensors"):
        vizapp.load(NET, weights=tmp_path / f"more.{kind}", device="cpu")


def test_a_tensor_of_very_many_dimensions_is_refused(tmp_path: Path) -> None:
    """100,000 dimensions took 20 s of the processor."""
    header = {"a": {"dtype": "F32", "shape": [1] * 100_000, "data_offsets": [0, 4]}}
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, bytes(4)))
    with refuses("checkpoint-odd-type", "more than 64 dimensions"):
        vizapp.load(NET, weights=tmp_path / "a.safetensors", device="cpu")


def test_a_pickled_tensor_of_very_many_dimensions_is_read_apart(tmp_path: Path, calls: list[Any]) -> None:
    with refuses("checkpoint-mismatch"):
        vizapp.load(NET, weights=saved(tmp_path / "few.pth", {"a": torch.ones((1,) * 64)}), device="cpu")
    assert not calls
    with refuses("checkpoint-mismatch"):
        vizapp.load(NET, weights=saved(tmp_path / "many.pth", {"a": torch.ones((1,) * 200)}), device="cpu")
    assert len(calls) == 1


@pytest.mark.slow
def test_the_process_has_limits_and_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "_SPARE", 2**20)
    monkeypatch.setattr(pickled, "_COPIES", 0)
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a": torch.zeros(2_000_000)}, "frozen": {"a"}}, path)
    with refuses("checkpoint-unsafe", "takes more than"):
        vizapp.load(NET, weights=path, device="cpu")


@pytest.mark.slow
def test_reading_apart_can_be_cancelled_and_gives_what_reading_here_gives(tmp_path: Path) -> None:
    class Left(Exception):
        pass

    def leave(share: float) -> None:
        raise Left

    path = saved(tmp_path / "net.pth", APART["numpy number"]() | {"classes": [f"c{n}" for n in range(10)]})
    before = set(threading.enumerate())
    with pytest.raises(Left):
        pickled.read_pickled(path, leave)
    assert loaded(path).categories == tuple(f"c{n}" for n in range(10))  # in the other process
    assert not [one for one in threading.enumerate() if one not in before and "_talk" in one.name]


def test_names_on_the_stack_are_not_believed(tmp_path: Path, calls: list[Any]) -> None:
    """A name of protocol 4 may be another than the last two strings; such files are read apart, and refused by torch."""
    body = (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93\x8c\x01x\x85R."
    )
    (tmp_path / "net.pth").write_bytes(packed(body))
    with pytest.raises(vizapp.VizError):
        vizapp.load(NET, weights=tmp_path / "net.pth", device="cpu")
    assert len(calls) == 1
