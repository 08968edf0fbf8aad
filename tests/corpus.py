"""Files and addresses made to break things: each is a `Case`, made on the spot from a seed, none is kept as a file.

`fails` says that only a refusal is right. Others (a picture with one flipped bit, say) may happen to be readable.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from tests.media.files import bmp_header, noise, png, saved
from vizapp.zoo.classic.lenet import LeNet5

HUGE = 30_000  # pixels a side of what only pretends to be a picture


@dataclass(frozen=True)
class Case:
    """One bad input: `name` with the ending that a file of it would have. A large one is made when a test asks for it."""

    name: str
    made: bytes | Callable[[], bytes]
    fails: bool = True

    @cached_property
    def content(self) -> bytes:
        return self.made if isinstance(self.made, bytes) else self.made()

    def __repr__(self) -> str:
        return self.name


def _unlike(cases: Iterator[Case]) -> tuple[Case, ...]:
    found = tuple(cases)
    assert len({case.name for case in found}) == len(found), "every case has a name of its own"
    return found


# Pictures

_KINDS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp", "PPM": "ppm"}


@cache
def pictures() -> tuple[Case, ...]:
    """Cut, damaged, pretending, exploding and mistaken picture files."""
    return _unlike(_pictures())


def _pictures() -> Iterator[Case]:
    for kind, ending in _KINDS.items():
        whole = saved(noise(24, 31, seed=3), kind)
        for share in (0.02, 0.1, 0.35, 0.6, 0.85):
            yield Case(f"cut at {share:.0%}.{ending}", whole[: max(2, int(len(whole) * share))])
        for seed in range(6):
            yield Case(f"flipped {seed}.{ending}", _flipped(whole, seed), fails=False)
        yield Case(f"zeroed middle.{ending}", whole[:40] + bytes(len(whole) - 60) + whole[-20:], fails=False)
        yield Case(f"head of {kind} with noise.{ending}", whole[:12] + _noise(4000, 1), fails=False)
    yield from _bombs()
    yield from _no_pictures()


def _flipped(content: bytes, seed: int) -> bytes:
    random, damaged = np.random.default_rng(seed), bytearray(content)
    for place in random.integers(4, len(content), 1 + seed):
        damaged[place] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def _noise(length: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bombs() -> Iterator[Case]:
    yield Case("bomb.png", png(HUGE, HUGE, bytes(3_000_000)))
    yield Case("bomb of the largest sides.png", png(2**31 - 1, 2**31 - 1, b""))
    yield Case("bomb.bmp", bmp_header(HUGE, HUGE))
    yield Case("bomb upside down.bmp", bmp_header(HUGE, -HUGE))
    yield Case("bomb.ppm", b"P6 30000 30000 255\n")
    yield Case(
        "bomb.gif", b"GIF89a" + struct.pack("<HH3x", HUGE, HUGE) + b"," + struct.pack("<4HB", 0, 0, 9, 9, 0) + b"\2\0;"
    )
    jpeg = bytearray(saved(noise(16, 16), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    yield Case("bomb.jpg", bytes(jpeg))
    for name, tag, value in (
        ("wide", 256, 2**31),
        ("tall", 257, 2**31 - 1),
        ("deep", 258, 65_535),
        ("many", 277, 60_000),
    ):
        yield Case(f"tiff too {name}.tif", _tiff({tag: value}))
    yield Case("tiff whose directory follows itself.tif", _tiff({}, following=8), fails=False)
    yield Case("tiff with an endless tag.tif", _tiff({273: 2**32 - 1}))
    whole = saved(noise(16, 16))
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        head = b"key\0\0" if kind != b"iTXt" else b"key\0\1\0\0\0"
        yield Case(f"bomb in {kind.decode()}.png", partial(_swollen, whole, kind, head), fails=False)
    yield Case("rows that swell.png", partial(png, 40, 40, bytes(30_000_000)), fails=False)
    yield Case("1500 frames.gif", _frames, fails=False)
    yield Case("a side of none.png", png(0, 10, b""))
    yield Case("a side of none.bmp", bmp_header(0, 0))
    yield Case("one pixel.png", saved(noise(1, 1)))
    yield Case("a line.png", saved(noise(1, 4000)))
    yield Case("chunk of 2 GB.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(40))
    yield Case("bad depth.png", png(8, 8, bytes(200), depth=7))
    yield Case("bad colour.png", png(8, 8, bytes(200), colour=9))
    yield Case("numbers too long.ppm", b"P6 " + b"9" * 5000 + b" 9 255\n")
    yield Case("negative.ppm", b"P6 -5 -5 255\n" + bytes(100))
    yield Case("maximum of none.pgm", b"P5 8 8 0\n" + bytes(64))
    yield Case("not a number.pfm", b"Pf 8 8 nan\n" + bytes(256))
    yield Case("plain with words.ppm", b"P3 8 8 255\n" + b"many words " * 50)


def _swollen(whole: bytes, kind: bytes, head: bytes) -> bytes:
    return whole[:33] + _chunk(kind, head + zlib.compress(bytes(40_000_000), 9)) + whole[33:]


def _frames() -> bytes:
    frames = [Image.new("L", (8, 8), shade % 256) for shade in range(1500)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def _tiff(change: dict[int, int], following: int = 0) -> bytes:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 122, 277: 1, 278: 8, 279: 64} | change
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following) + bytes(64)


def _no_pictures() -> Iterator[Case]:
    others = {
        "empty.jpg": b"",
        "one byte.jpg": b"\xff",
        "zeros.jpg": bytes(5000),
        "noise.png": _noise(5000, 2),
        "text.jpg": b"Dear network,\n" * 30,
        "page.png": b"<!doctype html><script>alert(1)</script>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "laughs.png": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "'
        + b"ha" * 500
        + b'"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>',
        "entity.png": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>',
        "document.jpg": b"%PDF-1.7\n" + _noise(500, 3),
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
        "program.jpg": b"\x7fELF" + _noise(500, 4),
        "windows.jpg": b"MZ" + _noise(500, 5),
        "film.jpg": b"\0\0\0\x18ftypisom" + bytes(300),
        "heic.jpg": b"\0\0\0\x18ftypheic" + bytes(300),
        "avif.avif": b"\0\0\0\x1cftypavif" + _noise(400, 6),
        "pickle.png": pickle.dumps({"a": 1}),
        "array.npy": b"\x93NUMPY\x01\0" + bytes(200),
        "gzip.jpg": b"\x1f\x8b\x08" + bytes(60),
        "icon.ico": b"\0\0\1\0\1\0" + bytes(60),
        "script.sh": b"#!/bin/sh\ntouch /tmp/it-ran\n",
        "photoshop.psd": b"8BPS" + bytes(80),
        "names\n and \x1b[31mcolours.jpg": b"no picture",
        "../../../up.png": b"no picture",
        "a" * 300 + ".png": b"no picture",
        "=cmd|' /C calc'!A0.png": b"no picture",
        "<img src=x onerror=alert(1)>.png": b"no picture",
        "con.png": b"no picture",
    }
    for name, content in others.items():
        yield Case(name, content)


# Checkpoints

WITNESS = "/tmp/vizapp-corpus-it-ran"


class _Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(LeNet5(10).state_dict())


def _saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


@cache
def checkpoints() -> tuple[Case, ...]:
    """Files for `vizapp/lenet5-digits` that carry code, do not fit, are not finite, cut, lying or exploding."""
    return _unlike(_checkpoints())


def _checkpoints() -> Iterator[Case]:
    yield from _payloads()
    yield from _misfits()
    whole, tensors = _saved(_state()), save(_state())
    old = _saved(_state(), _use_new_zipfile_serialization=False)
    for share in (0.01, 0.2, 0.5, 0.8, 0.97):
        for name, content in (("zip.pth", whole), ("old.pth", old), ("tensors.safetensors", tensors)):
            yield Case(f"cut at {share:.0%} {name}", content[: int(len(content) * share)])
    for seed in range(8):
        for name, content in (("zip.pth", whole), ("old.pth", old), ("tensors.safetensors", tensors)):
            yield Case(f"flipped {seed} {name}", _flipped(content[:3000], seed) + content[3000:], fails=False)
    for name, content in (
        ("empty", b""),
        ("zeros", bytes(3000)),
        ("noise", _noise(3000, 7)),
        ("text", b"weights\n" * 99),
    ):
        for ending in ("pth", "safetensors"):
            yield Case(f"{name}.{ending}", content)
    yield from _safetensors()
    yield from _swelling()


def _payloads() -> Iterator[Case]:
    import builtins
    import os
    import subprocess

    code = f"open({WITNESS!r}, 'w')"
    calls = {
        "system": _Calls(os.system, f"touch {WITNESS}"), "open": _Calls(builtins.open, WITNESS, "w"),
        "exec": _Calls(exec, code), "eval": _Calls(eval, code), "popen": _Calls(subprocess.Popen, ["touch", WITNESS]),
        "import": _Calls(__import__, "os"),
        "load": _Calls(torch.load, WITNESS), "hub": _Calls(torch.hub.load_state_dict_from_url, "http://127.0.0.1:9/x"),
    }  # fmt: skip
    for name, call in calls.items():
        content = {"state_dict": _state(), "extra": call}
        yield Case(f"{name} in a zip.pth", _saved(content))
        yield Case(f"{name} in the old format.pth", _saved(content, _use_new_zipfile_serialization=False))
        for protocol in (0, 2, 4):
            yield Case(f"{name} by protocol {protocol}.pt", pickle.dumps(call, protocol))
    yield Case("a whole module.pt", _saved(LeNet5(10)))
    yield Case("stack of 100000.pth", b"\x80\x02" + b"(" * 100_000 + b".")
    yield Case("nested lists.pth", b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")
    yield Case("a string of 4 GB.pth", b"\x80\x04\x8d" + struct.pack("<Q", 2**32) + b"x.")
    yield Case("a long of 2 GB.pth", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.")
    yield Case("no end.pth", b"\x80\x02}")


def _misfits() -> Iterator[Case]:
    for bad in ("nan", "inf", "-inf"):
        for key in ("features.0.weight", "classifier.2.bias"):
            state = _state()
            state[key].view(-1)[0] = float(bad)
            yield Case(f"{bad} in {key}.pth", _saved(state))
            yield Case(f"{bad} in {key}.safetensors", save(state))
    state = _state()
    yield Case("overflow in half precision.pth", _saved({k: (v * 1e6).half() for k, v in state.items()}))
    shapes = {
        "transposed": state["classifier.0.weight"].t().contiguous(), "flat": state["classifier.0.weight"].flatten(),
        "none": torch.zeros(0), "scalar": torch.tensor(1.0), "deep": state["classifier.0.weight"][None, None],
    }  # fmt: skip
    for name, weight in shapes.items():
        yield Case(f"{name} weight.pth", _saved(state | {"classifier.0.weight": weight}))
    yield Case("a key is missing.pth", _saved({k: v for k, v in state.items() if k != "features.0.bias"}))
    yield Case("keys of another network.pth", _saved({f"layer{n}": torch.zeros(3) for n in range(50)}))
    yield Case("keys that shout.pth", _saved({"<script>alert(1)</script>\n\x1b[31m": torch.zeros(1)}))
    yield Case("2000 keys.pth", lambda: _saved({f"k{n}": torch.zeros(1) for n in range(2000)}))
    yield Case("sparse.pth", _saved(state | {"features.0.bias": state["features.0.bias"].to_sparse()}))
    yield Case(
        "complex.pth", _saved(state | {"features.0.bias": state["features.0.bias"].to(torch.complex64)}), fails=False
    )
    yield Case("quantised.pth", _saved({"a": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}))
    yield Case("on the meta device.pth", _saved({k: v.to("meta") for k, v in state.items()}))
    for name, value in {"none": None, "list": [1], "number": 5, "text": "weights", "tensor": torch.ones(2), "empty": {},
                        "nested": {"a": {"b": {"c": {}}}}, "numbers as keys": {1: 2}}.items():  # fmt: skip
        yield Case(f"holds {name}.pth", _saved(value))


def _header(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _safetensors() -> Iterator[Case]:
    good = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers: dict[str, tuple[object, bytes]] = {
        "no header": (b"", b""), "no json": (b"{no json}", b""), "a list": ([1], b""), "nothing": ({}, b""),
        "deep": (b"[" * 100_000, b""), "deep objects": (b'{"a":' * 100_000, b""),
        "wrong type": ({"a": good | {"dtype": "F33"}}, bytes(8)), "wrong shape": ({"a": good | {"shape": [3]}}, bytes(8)),
        "negative shape": ({"a": good | {"shape": [-2]}}, bytes(8)), "huge shape": ({"a": good | {"shape": [2**40]}}, bytes(8)),
        "product that wraps": ({"a": good | {"shape": [2**33, 2**33]}}, bytes(8)),
        "beyond the end": ({"a": good | {"data_offsets": [0, 800]}}, bytes(8)),
        "backwards": ({"a": good | {"data_offsets": [8, 0]}}, bytes(8)),
        "overlapping": ({"a": good, "b": good}, bytes(8)), "hole": ({"a": good | {"data_offsets": [8, 16]}}, bytes(16)),
        "metadata of numbers": ({"__metadata__": {"classes": 3}, "a": good}, bytes(8)),
    }  # fmt: skip
    for name, (header, body) in headers.items():
        yield Case(f"{name}.safetensors", _header(header, body))
    for name, length in (("header of 0", 0), ("header of 2^63", 2**63), ("header of 99 MB", 99_000_000)):
        yield Case(f"{name}.safetensors", struct.pack("<Q", length) + b"{}" + bytes(50))
    for name, classes in (("deep", "[" * 100_000), ("number", "9" * 5000), ("text", "{"), ("short", '["a"]')):
        content = save(_state(), {"classes": classes})
        yield Case(f"classes that are {name}.safetensors", content, fails=False)


def _swelling() -> Iterator[Case]:
    yield Case("one number for all.pth", _saved({"a": torch.zeros(1).expand(200_000, 100_000)}))
    yield Case("one double for all.pth", _saved({"a": torch.zeros(1, dtype=torch.float64).expand(100_000, 40_000)}))
    halves = torch.zeros(500_000, dtype=torch.float16)
    yield Case("a thousand names for one storage.pth", _saved({f"a{n}": halves for n in range(1500)}))
    yield Case("packed zeros.pth", _packed_zeros)


def _packed_zeros() -> bytes:
    packed, zeros = io.BytesIO(), _saved({"a": torch.zeros(30_000_000, dtype=torch.int8)})
    with zipfile.ZipFile(io.BytesIO(zeros)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            for copy in range(3 if len(data) > 1e6 else 1):
                new.writestr(entry.filename + ("" if copy == 0 else f"{copy}"), data)
    return packed.getvalue()


# Other kinds of files, by their first bytes, in the place of checkpoints and pictures

HEADS = {
    "raw of Canon": b"\0\0\0\x18ftypcrx ", "raw of Fujifilm": b"FUJIFILMCCD-RAW 0201", "raw of Olympus": b"IIRO\x08\0\0\0",
    "raw of Panasonic": b"IIU\0\x18\0\0\0", "raw of Sigma": b"FOVb\0\0\3\0", "raw of Minolta": b"\0MRM\0\0",
    "JPEG XL": b"\xff\x0a\xfa\x7f", "JPEG XL in boxes": b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XR": b"II\xbc\1",
    "OpenEXR": b"v/1\x01\2\0\0\0", "Radiance": b"#?RADIANCE\n", "DirectDraw": b"DDS |\0\0\0", "QOI": b"qoif\0\0\0\x10",
    "PAM": b"P7\nWIDTH 4", "FITS": b"SIMPLE  =        T", "DICOM": bytes(128) + b"DICM", "GIMP": b"gimp xcf v011",
    "tar": bytes(257) + b"ustar", "XZ": b"\xfd7zXZ\0", "bzip2": b"BZh91AY", "Zstandard": b"\x28\xb5\x2f\xfd",
    "7-Zip": b"7z\xbc\xaf\x27\x1c",
    "RAR": b"Rar!\x1a\7", "SQLite": b"SQLite format 3\0", "Parquet": b"PAR1", "Arrow": b"ARROW1\0\0", "GGUF": b"GGUF\3\0\0\0",
    "HDF5": b"\x89HDF\r\n\x1a\n", "NumPy": b"\x93NUMPY\1\0", "TensorFlow Lite": b"\x1c\0\0\0TFL3", "DjVu": b"AT&TFORM",
    "pointer": b"version https://git-lfs.github.com/spec/v1\n", "page": b"<!doctype html>", "PDF": b"%PDF-1.7\n",
    "gzip": b"\x1f\x8b\x08", "film": b"\x1aE\xdf\xa3", "sound": b"ID3\4", "Photoshop": b"8BPS", "icon": b"\0\0\1\0",
}  # fmt: skip
TYPES = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64,
    "F64": 64, "I64": 64, "U64": 64, "C128": 128, "F128": 128, "X": 8, "": 8, "f32": 32,
}  # fmt: skip


@cache
def other_files() -> tuple[Case, ...]:
    """Files of other kinds that are called checkpoints or pictures, numbers of all types, and small greedy pickles."""
    return _unlike(_other_files())


def _other_files() -> Iterator[Case]:
    for ending in ("pth", "safetensors", "png", "tif"):
        for name, head in HEADS.items():
            yield Case(f"{name}.{ending}", head + _noise(300, 21))
    for name, bits in TYPES.items():
        header = {"a": {"dtype": name, "shape": [8], "data_offsets": [0, bits]}}
        yield Case(f"type {name}.safetensors", _header(header, bytes([64]) * bits))
    for name, body in GREEDY.items():
        pickled = io.BytesIO()
        with zipfile.ZipFile(pickled, "w") as archive:
            for file, content in (("data.pkl", body), ("version", b"3\n"), ("byteorder", b"little")):
                archive.writestr(f"a/{file}", content)
        yield Case(f"{name}.pth", pickled.getvalue())
        yield Case(f"bare {name}.pth", body)
        yield Case(f"old {name}.pth", OLD_HEAD + body)


OLD_HEAD = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
GREEDY = {f"nested {depth}": b"\x80\x02}" + b")" + b"q\x01h\x01\x86" * depth + b"K\x00s." for depth in (20, 24, 45, 300)} | {
    f"{call} of {size}": b"\x80\x02c" + module + b"\n" + call.encode() + b"\n\x8a\x08" + struct.pack("<q", size) + b"\x85R."
    for call in ("bytearray", "complex", "range", "bytes", "list")
    for module in (b"builtins",)
    for size in (3 * 10**9, 2**62)
}  # fmt: skip


@cache
def garbled_zips() -> tuple[Case, ...]:
    """Zip files of every compression with one garbled member and a good one."""
    return _unlike(_garbled_zips())


def _garbled_zips() -> Iterator[Case]:
    photo = saved(noise(40, 40))
    for name, mode in (("LZMA", zipfile.ZIP_LZMA), ("bzip2", zipfile.ZIP_BZIP2), ("deflate", zipfile.ZIP_DEFLATED)):
        whole = bytearray(_zip({"a.png": photo}, mode))
        begin = whole.index(b"a.png") + 5
        for place in range(0, 60, 5):
            for fill in (0x00, 0xFF):
                garbled = bytearray(whole)
                garbled[begin + place : begin + place + 5] = bytes([fill]) * 5
                yield Case(f"{name} {place} {fill}.zip", bytes(garbled), fails=False)


# Zip archives, of pictures


@cache
def zips() -> tuple[Case, ...]:
    """Archives that reach out of their folder, explode, lie, or are cut."""
    return _unlike(_zips())


def _zip(entries: dict[str, bytes], mode: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", mode) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, mode)
    return stream.getvalue()


def _linked(name: str, target: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo(name)
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
        archive.writestr(f"{name}/out.png", saved(noise(8, 8)))
    return stream.getvalue()


def _zips() -> Iterator[Case]:
    photo = saved(noise(12, 12))
    ways = [
        "../out.png",
        "../../../../tmp/out.png",
        "/tmp/out.png",
        "a/../../out.png",
        "..\\out.png",
        "C:\\out.png",
        "~/out.png",
        "./../out.png",
        "a//../../out.png",
        "\\\\host\\share\\out.png",
        ".ssh/authorized_keys.png",
        "con.png",
        "a\0b.png",
        "\n.png",
        "\x1b[31m.png",
        "<img src=x onerror=alert(1)>.png",
        "a" * 250 + ".png",
        "x/" * 300 + "deep.png",
    ]
    for number, way in enumerate(ways):
        yield Case(f"way out {number}.zip", _zip({way: photo}), fails=False)
    for number, target in enumerate(("/etc", "..", "/etc/passwd", ".")):
        yield Case(f"link {number}.zip", _linked("link", target), fails=False)
    yield Case("bomb.zip", lambda: _zip({"zeros.png": bytes(60_000_000)}))
    yield Case("many bombs.zip", lambda: _zip({f"{n}.png": bytes(2_000_000) for n in range(60)}))
    for depth in range(3):
        yield Case(f"zips in zips {depth}.zip", partial(_nested, depth))
    yield Case("20000 files.zip", lambda: _zip({f"{n}.txt": b"" for n in range(20_000)}, zipfile.ZIP_STORED))
    yield Case("nothing.zip", _zip({}))
    yield Case("no picture.zip", _zip({"a.txt": b"text"}))
    yield Case("damaged pictures.zip", _zip({f"{n}.png": photo[: 20 + n] for n in range(20)}), fails=False)
    whole = _zip({"a.png": photo, "b.png": photo}, zipfile.ZIP_STORED)
    for share in (0.1, 0.5, 0.9, 0.99):
        yield Case(f"cut at {share:.0%}.zip", whole[: int(len(whole) * share)])
    for seed in range(8):
        yield Case(f"flipped {seed}.zip", _flipped(whole, seed), fails=False)
    yield Case("wrong checksum.zip", whole.replace(struct.pack("<I", zlib.crc32(photo)), b"\1\2\3\4"), fails=False)
    directory = whole.index(b"PK\1\2")
    encrypted, liar = bytearray(whole), bytearray(whole)
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    yield Case("encrypted.zip", bytes(encrypted), fails=False)
    liar[directory + 24 : directory + 28] = struct.pack("<I", 2**32 - 2)
    yield Case("lies about sizes.zip", bytes(liar), fails=False)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        for _ in range(2):
            archive.writestr(zipfile.ZipInfo("same.png"), photo)
    yield Case("same name twice.zip", twice.getvalue(), fails=False)
    yield Case("text.zip", b"PK, but no archive at all")
    yield Case("empty.zip", b"")
    yield Case("end record alone.zip", b"PK\5\6" + bytes(18))


@cache
def _nested(depth: int) -> bytes:
    inner = _zip({"zeros.png": bytes(60_000_000)}) if depth == 0 else _nested(depth - 1)
    return _zip({f"{n}.zip": inner for n in range(6)})


# Tables


@cache
def tables() -> tuple[Case, ...]:
    """CSV and JSON files that list something (class names, photos), badly."""
    return _unlike(_tables())


def _tables() -> Iterator[Case]:
    lines = {
        "empty": b"",
        "blank": b"\n\n  \n",
        "zeros": bytes(2000),
        "noise": _noise(3000, 8),
        "latin": "Käse,Brot\n".encode("latin-1"),
        "utf-16": "file,label\na.png,b\n".encode("utf-16"),
        "header alone": b"file,label\n",
        "ragged": b"file,label\na\nb,c,d,e\n",
        "quote that never ends": b'file,label\n"a.png,b\nc.png,d\n' * 200,
        "one long line": b"a" * 5_000_000,
        "no such files": b"file,label\nnot there.png,a\n",
        "ways out": b"file,label\n../../etc/passwd,a\n/etc/passwd,b\n",
        "addresses": b"file,label\nhttp://127.0.0.1:9/a.png,a\nfile:///etc/passwd,b\n",
        "formulas": b"file,label\n=cmd|' /C calc'!A0,@SUM(1)\n",
        "many columns": b",".join(b"c%d" % n for n in range(20_000)) + b"\n",
        "nul": b"file,label\na\0b.png,c\n",
        "carriage returns": b"file,label\ra.png,b\r",
        "no file column": b"x,y\n1,2\n",
        "huge field": b'file,label\n"' + b"x" * 300_000 + b'",a\n',
        "markup": b"file,label\n<img src=x onerror=alert(1)>.png,<script>alert(1)</script>\n",
        "same file twice": b"file,label\na.png,b\na.png,c\n",
    }
    names = [f"c{number}" for number in range(11)]
    ends = {"LF": "\n", "CRLF": "\r\n", "CR": "\r", "VT": "\v", "FF": "\f", "FS": "\x1c", "NEL": "\x85", "LS": "\u2028"}
    lines |= {f"ends with {name}": end.join(names).encode() for name, end in ends.items()}
    codes = ("utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037", "shift_jis", "utf-8-sig")
    lines |= {
        f"in {code}": "\n".join([*names, "Käse" if code != "shift_jis" else "日本"]).encode(code) for code in codes
    }
    odd = {
        "bidi": "\u202egnp", "isolates": "\u2066x", "escape": "\x1b[31m", "bell": "\a", "formula": "=1+1", "at": "@SUM(1)",
        "plus": "+1", "minus": "-1", "tab": "\t=1", "quote": '"', "semicolon": ";", "nothing": "\u200b",
        "joined": "e" + "\u0301" * 500,
        "long": "x" * 3000, "private": "\ue000", "slashes": "../" * 50, "tag": "</script>", "percent": "%s%n", "half": "½",
    }  # fmt: skip
    lines |= {f"names with {name}": "\n".join(text + one for one in names).encode() for name, text in odd.items()}
    lines |= {f"photos with {name}": f"file,label\n{text}.png,{text}\n".encode() for name, text in odd.items()}
    for name, content in lines.items():
        yield Case(f"{name}.csv", content, fails=False)
    objects = {
        "no json": b"{",
        "number": b"5",
        "null": b"null",
        "text": b'"cat"',
        "empty list": b"[]",
        "empty object": b"{}",
        "holes": b'{"0":"a","5":"b"}',
        "words": b'{"a":"b"}',
        "twice": b'{"a":0,"b":0}',
        "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "long number": b'{"' + b"9" * 5000 + b'":"a"}',
        "number too long": b"[" + b"9" * 5000 + b"]",
        "nan": b'{"0": NaN, "1": Infinity}',
        "cut": b'["cat","do',
        "byte order": b"\xff\xfe[]",
        "floats": b'{"a":0.5,"b":1.5}',
        "bools": b'{"a":true,"b":false}',
        "nested": b"[[],[[]],{}]",
        "negative": b'{"-1":"a","0":"b"}',
    }
    accepted = {"nested", "nan"}
    for name, content in objects.items():
        yield Case(f"{name}.json", content, fails=name not in accepted)


# Addresses


ODD = (
    "", " ", "\0", "..", "../../etc/passwd", "<script>alert(1)</script>", "%00", "%s%n", "${jndi:ldap://x}",
    "'; DROP TABLE--", "-1", "1e9", "9" * 400, "NaN", "½", "٣", "a" * 10_000, "\u202egnp", "😀", "None", "[]", "vizapp/",
    "/", "torchvision/", "timm/../x", "0", "1", "999999999", "inf", "-inf", "1e308", "1e-320", "0x10", "1_000", "true",
    "7,7", "999999999,0", ",", "1,2,3", "features.1", "classifier.0", "features.1,features.1,nothing", "#12345", "#gggggg",
    "upload/" + "0" * 32, "upload/../..", "file:///etc/passwd", "http://127.0.0.1:9/x.zip", "\\\\host\\share", "ﬁle", "\ud800",
    "x" * 100_000,
)  # fmt: skip


@cache
def addresses() -> tuple[dict[str, str], ...]:
    """Query strings, as names and values."""
    odd = list(ODD)
    names = ["network", "weights", "picture", "layer", "channel", "cell", "top", "crops"]
    found = [{name: value} for name in names for value in odd[:: 2 if name in ("crops", "top") else 1]]
    found += [{"cell": text} for text in ("1", "1,2,3", ",", "1,", "-1,2", "1.5,2", "9999999999,1", "a,b")]
    found += [{"nothing": "x"}, {"network": "torchvision/raft_large"}, {"network": "torchvision/quantized_resnet50"}]
    found += [{f"name{n}": "x" for n in range(500)}, {"__proto__": "x"}, {"embed": "true", "embed_options": "x"}]
    return tuple(found)


# Galleries


@cache
def galleries() -> tuple[Case, ...]:
    """Files of a gallery, by the name that they have in its folder, damaged or made up."""
    return _unlike(_galleries())


def _galleries() -> Iterator[Case]:
    whole = {"name": "x", "pictures": 1, "listing": "x", "classes": [], "digest": "0"}
    full = {
        "format": 2, "network": {"name": "x", "digest": "0", "weights": "none"}, "data": whole, "top": 9, "unreadable": [],
        "identity": {}, "sites": [{"name": "features.1", "file": "000-features.1.parquet"}],
    }  # fmt: skip
    manifests: dict[str, object] = {
        "a list": [1], "nothing": {}, "format alone": {"format": 2}, "format of another kind": {"format": "1"},
        "of the future": full | {"format": 99}, "numbers": dict.fromkeys(full, 1) | {"format": 2},
        "texts": dict.fromkeys(full, "x") | {"format": 2}, "lists": {key: [1] for key in full} | {"format": 2},
        "way out": full | {"sites": [{"name": "features.1", "file": "../../../etc/passwd"}]},
        "absolute": full | {"sites": [{"name": "features.1", "file": "/etc/passwd"}]},
        "no file": full | {"sites": [{"name": "features.1"}]}, "no sites": full | {"sites": []},
        "pictures that are many": full | {"data": whole | {"pictures": 10**30}},
        "pictures that are none": full | {"data": whole | {"pictures": "many"}},
        "classes that are numbers": full | {"data": whole | {"classes": [1, None]}},
        "unreadable that are numbers": full | {"unreadable": [1]},
    }  # fmt: skip
    texts = {name: json.dumps(value).encode() for name, value in manifests.items()}
    texts |= {
        "empty": b"", "cut": json.dumps(full).encode()[:60], "noise": _noise(900, 11), "deep": b"[" * 100_000,
        "latin": '{"format": 2, "x": "ä"}'.encode("latin-1"), "long number": b'{"format": ' + b"9" * 5000 + b"}",
        "nan": b'{"format": NaN}',
    }  # fmt: skip
    for name, content in texts.items():
        yield Case(f"_manifest.json/{name}", content)
    for file in ("_units.arrow", "000-features.1.parquet"):
        for name, content in _tables_of_columns(file.endswith("arrow")).items():
            yield Case(f"{file}/{name}", content, fails=False)
    for name, content in {
        "empty": b"", "noise": _noise(900, 12), "head alone": b"vizapp gallery checkpoint 2\n",
        "wrong sum": b"vizapp gallery checkpoint 2\n" + b"0" * 64 + b"\n{}\n",
        "of another kind": _checkpoint(b"[1]\n"), "deep": _checkpoint(b"[" * 100_000 + b"\n"),
        "no tensors": _checkpoint(b'{"identity": {}, "batches": 1, "digest": "0", "failed": []}\n'),
        "strange tensors": _checkpoint(b'{"identity": {}, "batches": 1, "digest": "0", "failed": []}\n'
                                       + save({"values": torch.zeros(3)})),
    }.items():  # fmt: skip
        yield Case(f"_work/checkpoint/{name}", content, fails=False)


def _checkpoint(body: bytes) -> bytes:
    return b"vizapp gallery checkpoint 2\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _tables_of_columns(arrow: bool) -> dict[str, bytes]:
    import pyarrow as pa
    from pyarrow import feather, parquet

    def written(columns: dict[str, list[Any]]) -> bytes:
        stream = io.BytesIO()
        (feather.write_feather if arrow else parquet.write_table)(pa.table(columns), stream)
        return stream.getvalue()

    good = written({"site": ["features.1"], "channel": [0], "rank": [0]})
    mark = good[:4]
    return {
        "empty": b"", "noise": _noise(2000, 13), "cut": good[: len(good) // 2], "head and noise": mark + _noise(2000, 14),
        "marks alone": mark + bytes(40) + mark, "huge footer": good[:-8] + struct.pack("<I", 2**31 - 1) + mark,
        "other columns": good, "no rows": written({"site": []}), "wrong types": written({"site": [1], "channel": ["x"]}),
        "flipped": _flipped(good, 3), "text": b"site,channel\n", "no columns": written({"a": [[1, 2]]}),
    }  # fmt: skip
