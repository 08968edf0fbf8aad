"""Small pickles that would take hours or gigabytes to read are refused; what training scripts write is not."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

import vizapp
from tests.errors import refuses
from vizapp.zoo.pickle_scan import Unsafe, scan

NET = "vizapp/lenet5-digits"
NESTED = b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * 45 + b"K\x00s."  # {((…, …), (…, …)): 0}, 2^45 tuples to hash
NESTED_IN_SET = b"\x80\x02cbuiltins\nset\n](" + b")" + b"q\x01h\x01\x86" * 45 + b"e\x85R."
NESTED_MEMOIZED = b"\x80\x04}" + b")" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(45)) + b"K\x00s."
NESTED_BY_MARK = b"\x80\x02}" + b")" + b"".join(b"q\x01(h\x01h\x01t" for _ in range(45)) + b"K\x00s."
ALLOCATING = b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 3 * 10**9) + b"\x85R."
ALLOCATING_4 = b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93\x8a\x08" + struct.pack("<q", 3 * 10**9) + b"\x85R."
# Keys n * (2^61 - 1), all of hash 0, so that each is compared with all before it.
COLLIDING = (
    b"\x80\x02}("
    + b"".join(b"\x8a\x0b%bN" % (n * (2**61 - 1)).to_bytes(11, "little") for n in range(9, 90_000))
    + b"u."
)
HARMLESS = b"\x80\x02}."
LEGACY_HEAD = b"".join(
    pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
BAD = {
    "nested": NESTED, "nested in a set": NESTED_IN_SET, "nested, protocol 4": NESTED_MEMOIZED,
    "nested by mark": NESTED_BY_MARK, "allocating": ALLOCATING, "allocating, protocol 4": ALLOCATING_4,
    "colliding": COLLIDING,
}  # fmt: skip


def packed(body: bytes, name: str = "data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"a/{name}", body)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return buffer.getvalue()


# torch judges by the beginning whether a file is a zip file, and finds members in capitals; `zipfile` does neither.
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": packed,
    "bare": lambda body: body,
    "legacy": lambda body: LEGACY_HEAD + body,
    "before a harmless zip": lambda body: body + packed(HARMLESS),
    "legacy before a harmless zip": lambda body: LEGACY_HEAD + body + packed(HARMLESS),
    "in capitals": lambda body: packed(body, "DATA.PKL"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", BAD)
def test_a_small_checkpoint_takes_neither_time_nor_memory(kind: str, container: str, tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    path.write_bytes(CONTAINERS[container](BAD[kind]))
    before, memory = sum(os.times()[:4]), psutil.Process().memory_info().rss
    with refuses("checkpoint-unsafe"):
        vizapp.load(NET, weights=path, device="cpu")
    assert sum(os.times()[:4]) - before < 5, "seconds of processor time, here and in processes"
    assert psutil.Process().memory_info().rss - memory < 2**28


def test_a_pickle_of_many_megabytes_is_refused() -> None:
    with pytest.raises(Unsafe):
        scan(io.BufferedReader(io.BytesIO(pickle.dumps(["x" * 1000 + str(n) for n in range(20_000)]))))


@pytest.mark.parametrize("body", [b"", b"\x80\x02h\x01.", b"\x80\x02s.", b"\x80\x02}q\x01", b"\x80\x02t."])
def test_a_pickle_that_no_pickler_writes_is_damaged(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(packed(body))
    with refuses("checkpoint-damaged"):
        vizapp.load(NET, weights=path, device="cpu")


@pytest.mark.parametrize("modern", [True, False])
def test_what_training_scripts_write_passes(modern: bool, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 3, 6, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])  # which holds a Counter
    content = {
        "state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
        "arguments": {"betas": (0.9, (0.5, 1)), "sizes": [(1, 2)] * 500}, "seed": 2**80, "rng": torch.get_rng_state(),
        "order": collections.OrderedDict(a=1), "best": np.float64(3).item(), "module": nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    path = tmp_path / "training.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=modern)
    if modern:
        with zipfile.ZipFile(path) as archive, archive.open("training/data.pkl") as file:
            scan(file)
    else:
        with path.open("rb") as file:
            scan(file, 5)
            assert struct.unpack("<q", file.read(8))[0] > 0  # the numbers of the first weight follow
