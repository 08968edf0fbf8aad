"""Stacks of bands in arrays, NumPy files and TIFF files keep all their values, whichever axis is that of the bands."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vizapp.errors import VizError
from vizapp.media.folder import list_folder
from vizapp.media.picture import open_picture
from vizapp.media.stacks import stretched

KINDS = ("uint8", "uint16", "int16", "float32")


def stack(kind: str, bands: int, height: int = 40, width: int = 50) -> np.ndarray:
    """Random values `[H W C]` over the whole range of the type."""
    random = np.random.default_rng(bands)
    if kind == "float32":
        return random.normal(0, 1e4, (height, width, bands)).astype(np.float32)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, (height, width, bands), kind, endpoint=True)


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    file = BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


WRITERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "NPY": npy,
    "NPY in Fortran's order": lambda array: npy(np.asfortranarray(array)),
    "NPY of the other byte order": lambda array: npy(array.astype(array.dtype.newbyteorder(">"))),
    "NPZ": lambda array: npz(stack=array),
    "TIFF": lambda array: tiff(array, photometric="minisblack"),
    "TIFF, deflate": lambda array: tiff(array, photometric="minisblack", compression="deflate"),
    "TIFF, big-endian": lambda array: tiff(array, photometric="minisblack", byteorder=">"),
}
SLOW = {"TIFF, deflate"}  # are unpacked in a process of their own


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_files_keep_all_values_in_both_orders_of_axes(writer: str, kind: str) -> None:
    array = stack(kind, 13)
    for given, order in ((array, "[H W C]"), (array.transpose(2, 0, 1), "[C H W]"))[: 1 if writer in SLOW else 2]:
        picture = open_picture(WRITERS[writer](np.ascontiguousarray(given)), "a.npy")
        assert picture.bands is not None
        assert picture.bands.dtype == array.dtype
        assert np.array_equal(picture.bands, array)
        assert not picture.bands.flags.writeable
        assert picture.notes[0] == f"13 bands of {kind}, read as {order}."
        assert picture.pixels.shape == (40, 50, 3)
        assert picture.digest == open_picture(array).digest


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_keep_all_values_and_their_owner(kind: str) -> None:
    array = stack(kind, 5)
    kept = array.copy()
    picture = open_picture(array)
    array[:] = 0
    assert picture.bands is not None
    assert np.array_equal(picture.bands, kept)
    one = open_picture(stack("uint16", 1)[:, :, 0])
    assert one.bands is not None
    assert one.bands.shape == (40, 50, 1)
    assert one.notes[0] == "1 band of uint16, read as [H W]."


@pytest.mark.parametrize(
    ("bands", "options"),
    [
        (2, {"photometric": "minisblack", "planarconfig": "contig"}),
        (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (4, {"photometric": "minisblack", "planarconfig": "contig"}),
        (6, {"photometric": "minisblack", "planarconfig": "contig"}),
        (6, {"photometric": "rgb"}),
    ],
)
def test_tiff_files_with_several_samples_are_stacks(bands: int, options: dict[str, object]) -> None:
    array = stack("uint16", bands)
    picture = open_picture(tiff(array, **options))
    assert picture.bands is not None
    assert np.array_equal(picture.bands, array)


def test_planes_and_pages_are_bands() -> None:
    array = stack("uint16", 6)
    for options in (
        {"photometric": "minisblack", "planarconfig": "separate"},
        {"photometric": "minisblack", "metadata": None},
    ):
        picture = open_picture(tiff(np.ascontiguousarray(array.transpose(2, 0, 1)), **options))
        assert picture.bands is not None
        assert np.array_equal(picture.bands, array)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (stack("uint8", 3), {"photometric": "rgb"}),
        (stack("uint8", 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (stack("uint8", 1)[:, :, 0], {}),
        (stack("uint16", 1)[:, :, 0], {}),
        (np.stack([stack("uint8", 3)] * 3), {"photometric": "rgb"}),
        (np.stack([stack("uint8", 1)[:, :, 0]] * 60), {"photometric": "minisblack"}),  # a film
    ],
)
def test_photos_in_tiff_files_stay_photos(array: np.ndarray, options: dict[str, object]) -> None:
    assert open_picture(tiff(array, **options)).bands is None


def test_a_photo_in_an_array_has_no_bands_and_one_of_finer_floats_keeps_them() -> None:
    photo = stack("uint8", 3)
    assert open_picture(photo).bands is None
    assert open_picture(photo / 255).bands is None
    assert open_picture(npy(photo)).bands is None
    assert open_picture(npy(photo)).digest == open_picture(photo).digest
    fine = np.random.default_rng(0).random((40, 50, 3), np.float32)
    picture = open_picture(fine)
    assert picture.bands is not None
    assert np.array_equal(picture.bands, fine)
    assert np.array_equal(picture.pixels, np.rint(fine * 255))


def test_the_fourth_channel_is_transparency_in_arrays_and_a_band_in_files() -> None:
    array = stack("uint8", 4)
    assert np.array_equal(open_picture(array).pixels, open_picture(array).pixels)
    for source in (array, npy(array)):
        bands = open_picture(source).bands
        assert bands is not None
        assert np.array_equal(bands, array)
    clear = array.copy()
    clear[:, :, 3] = 0
    assert open_picture(clear).pixels.min() == 255
    assert open_picture(npy(clear)).shown == (0, 1, 2)


def test_bands_are_shown_from_the_2nd_to_the_98th_percentile() -> None:
    array = stack("uint16", 5)
    picture = open_picture(array, bands=(3, 2, 1))
    for channel, band in enumerate((3, 2, 1)):
        low, high = np.percentile(array[:, :, band], (2, 98))
        expected = np.clip(np.rint((array[:, :, band] - low) / (high - low) * 255), 0, 255)
        assert np.abs(picture.pixels[:, :, channel] - expected).max() <= 1  # float32
    grey = open_picture(array, bands=[4])
    assert np.array_equal(grey.pixels, np.dstack([stretched(array[:, :, 4])] * 3))
    assert "Shown, and given to networks for photos: band 4," in grey.notes[-1]
    assert len({picture.digest, grey.digest, open_picture(array).digest}) == 3
    again = open_picture(picture, bands=(0, 1, 2))
    assert again.digest == open_picture(array).digest
    assert again.notes == open_picture(array).notes


def test_the_digest_covers_values_that_are_not_shown() -> None:
    array = stack("uint16", 5)
    other = array.copy()
    other[7, 9, 4] ^= 1
    assert np.array_equal(open_picture(array).pixels, open_picture(other).pixels)
    assert open_picture(array).digest != open_picture(other).digest
    assert open_picture(array.view(np.int16)).digest != open_picture(array).digest


@pytest.mark.parametrize("value", [0, 7])
def test_a_band_of_one_value_is_grey_and_a_single_other_value_is_seen(value: int) -> None:
    band = np.full((40, 50), value, np.int16)
    assert set(stretched(band).flat) == {128}
    band[3, 4] = 9
    assert stretched(band)[3, 4] == 255


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("/nowhere/vizapp-trap"),)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HUGE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 99999, 9), }\n")
NEGATIVE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 20, 3), }\n")
WRAPPED = header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 1), }\n")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (npy(np.array([[Trap()] * 9] * 9), pickled=True), "pickled Python objects"),
        (npz(a=stack("uint8", 5), b=stack("uint8", 5)), "2 arrays ('a', 'b' …)"),
        (npy(stack("uint16", 5))[:-1], "ends too early: 19,999 of 20,000 bytes"),
        (npy(stack("uint16", 5))[:50], "damaged"),
        (npz(a=stack("uint16", 5))[:-9], "ZIP"),
        (HUGE, "89,998,200,009 values; at most 300,000,000"),
        (NEGATIVE, "shape [-5, 20, 3]"),
        (WRAPPED, "values; at most"),
        (header("__import__('os').abort()\n"), "damaged"),
        (header("[" * 9000), "damaged"),
        (npy(np.zeros((20, 20, 5), np.int64)), "int64"),
        (npy(np.zeros((20, 20, 5), [("a", "u1")])), "accepted is [H W C], [C H W] or [H W] of uint8"),
        (npy(np.zeros((20, 20, 5), "M8[s]")), "datetime64"),
        (npy(np.zeros((2, 40, 50, 5), np.uint8)), "[2, 40, 50, 5]"),
        (npy(np.full((20, 20, 5), np.nan, np.float32)), "2,000 values that are NaN"),
        (npy(np.full((20, 20, 5), 1e300)), "NaN or infinite"),
        (npy(np.zeros((20, 2, 5), np.uint16)), "[20, 2, 5]"),
        (npy(np.zeros((40, 30, 60), np.int16)), "[40, 30, 60]"),
        (npy(np.zeros((3, 3, 2), np.uint16)), "3 × 3"),
        (tiff(stack("uint16", 13), photometric="minisblack")[:3000], "damaged"),
        (tiff(np.zeros((7, 20, 20, 5), np.uint16), photometric="minisblack"), "[7, 20, 20, 5]"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_damaged_or_no_stack_is_refused_in_a_sentence(data: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "stack.npy"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(VizError) as caught:
            open_picture(source)
        assert found in str(caught.value)


def test_a_compressed_array_that_unpacks_to_gigabytes_is_refused_by_its_header() -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        member.write(HUGE + bytes(2**24))
    with pytest.raises(VizError, match="values; at most"):
        open_picture(file.getvalue())


@pytest.mark.parametrize(
    ("bands", "found"), [((0, 1), "three numbers"), ((0, 1, 5), "bands 0 to 4, not 5"), ((-1,), "not -1")]
)
def test_bands_that_are_not_there_are_refused(bands: tuple[int, ...], found: str) -> None:
    with pytest.raises(VizError, match=found):
        open_picture(stack("uint16", 5), bands=bands)
    with pytest.raises(VizError, match="a photo without bands"):
        open_picture(stack("uint8", 3), bands=bands)


def test_folders_list_stacks(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy(stack("uint16", 5)))
    (tmp_path / "b.NPZ").write_bytes(npz(x=stack("uint16", 5)))
    (tmp_path / "c.tif").write_bytes(tiff(stack("uint16", 5), photometric="minisblack"))
    source = list_folder(tmp_path)
    assert len({source.open(number).digest for number in range(3)}) == 1
