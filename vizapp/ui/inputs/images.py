"""The current picture and its origin; pictures as data URIs for the browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import streamlit as st

from vizapp.components.data import uri
from vizapp.errors import VizError
from vizapp.media import samples
from vizapp.media.drawing import sheet, to_png
from vizapp.media.picture import Picture, open_picture, open_thumbnail
from vizapp.media.source import File, Source
from vizapp.media.sources import BUNDLED, open_folder
from vizapp.media.stacks import read_bands
from vizapp.media.transforms import centre_crop, resize_short_side
from vizapp.service import lru_cache
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache, Key
from vizapp.ui.inputs import networks, stored_uploads, uploads
from vizapp.ui.session import access, compute, state

# ("sample", name), ("given", digest, name), ("folder", path, path of the picture in it) or ("unreadable", sentence, code)
Origin = tuple[Any, ...]
CAPACITY = 512 * 2**20  # bytes of decoded pictures kept for all sessions together
THUMB = 96  # pixels
# ZFNet was not trained on cats, the embedding on photos of one shape.
_KNOWN = {"vizapp/zfnet-mini": "motorcycle", "vizapp/shapes-embedding": "shapes 6"}


@st.cache_resource(show_spinner=False)
def decoded_pictures() -> ByteBoundedCache[Picture]:
    """Decoded pictures of all sessions; a session holds only their digests."""
    return ByteBoundedCache(CAPACITY, min_kept_under_pressure=None)  # an upload is stored nowhere else


def sample(name: str) -> Picture:
    """A sample picture."""
    key, shelf = ("sample", name), decoded_pictures()
    found = shelf.get(key)
    if found is None:
        found = samples.open_sample(name)
        shelf.put(key, found, found.nbytes)
    return found


def _decoded(key: Key, decode: Callable[[Tick], Picture]) -> Picture | None:
    """The picture, or None if the user cancelled a slow one.

    Raises:
        VizError: it cannot be read.
    """
    return compute.compute(
        key, decode, size=lambda picture: picture.nbytes, title="Decoding the photo", shelf=decoded_pictures(),
        raises=True,
    )  # fmt: skip


def _unless_cancelled(picture: Picture | None, name: str) -> Picture:
    if picture is None:
        raise VizError(f"Decoding {name} was cancelled.", code="cancelled")
    return picture


def keep(content: bytes, name: str) -> Origin | None:
    """Keep an uploaded picture; returns its origin, or None if the user cancelled a slow one.

    Raises:
        VizError: it is not a picture.
    """
    digest = stored_uploads.digest_of(content, name)
    picture = _decoded(("given", digest), lambda tick: open_picture(content, name=name, tick=tick))
    if picture is None:
        return None
    stored_uploads.store(digest, content, name)
    _register(digest, picture, len(content))
    return ("given", digest, name)


def _restore(digest: str) -> Picture:
    """The photo of an upload that this session does not have, or no longer has in memory."""
    content, name = stored_uploads.restore(digest, "photo")
    picture = _unless_cancelled(
        _decoded(("given", digest), lambda tick: open_picture(content, name=name, tick=tick)), name
    )
    _register(digest, picture, len(content))
    return picture


def _register(digest: str, picture: Picture, nbytes: int) -> None:
    _pixels()[digest] = picture.digest
    uploads.register(("picture", digest), nbytes, lambda: forget(digest))


def forget(digest: str) -> None:
    """Drop an uploaded picture and all results about it."""
    lru_cache.forget(digest)
    pixels = _pixels().pop(digest, None)
    if pixels is not None:
        lru_cache.forget(pixels)


@st.cache_resource(show_spinner=False)
def _pixels() -> dict[str, str]:
    """Pixel digests of uploads by file digest; a picture may be evicted before the results about it."""
    return {}


def folder(path: str) -> Source:
    """A folder of this machine, listed again after a minute; or the bundled collection of that name.

    Raises:
        VizError: it does not exist, has no pictures, or may not be opened on this server.
    """
    if path in BUNDLED:
        return _folder(Path(path), None)
    return _folder(access.allowed(path), access.root())


@st.cache_resource(show_spinner=False, ttl=60, max_entries=8)
def _folder(path: Path, within: Path | None) -> Source:
    return open_folder(path, within)


def sample_names() -> list[str]:
    """The samples that suit the chosen network: digits for grey networks, drawn shapes for those of shapes, else photos."""
    kind = "photo"
    with suppress(VizError):  # of a damaged file; the sidebar says so
        card = networks.card(state.get(state.NETWORK))
        kind = "digit" if card.input_size[0] == 1 else "shapes" if card.data == "shapes" else "photo"
    return [name for name in samples.sample_names() if samples.sample_kind(name) == kind]


def first_sample() -> str:
    """The initial picture: one of a class that the chosen network knows."""
    first = _KNOWN.get(state.get(state.NETWORK))
    names = sample_names()
    return first if first in names else names[0]


def origin() -> Origin:
    """Where the current picture came from: see `Origin`.

    A picture of a folder is identified by its path, because numbers change when files are added or removed.
    """
    chosen = state.load(state.ORIGIN)
    if chosen is not None:
        return tuple(chosen)
    return ("sample", state.get(state.SAMPLE) or first_sample())


def replace_missing() -> None:
    """Choose a picture of the folder if its link names none, or, with a note, if the current one is no longer in it."""
    kind, *rest = origin()
    if kind == "folder" and not rest[1]:
        with suppress(VizError):  # told where the picture is opened
            state.save(state.ORIGIN, ("folder", rest[0], folder(rest[0]).path(0)))
        return
    if kind != "folder" or origin() == state.load(state.LINKED_ORIGIN):
        return
    try:
        folder(rest[0]).index_of(rest[1])
    except VizError as error:
        state.clear(state.ORIGIN)
        state.note(f"{error} Showing another photo.")


def current() -> Picture:
    """The current picture.

    Raises:
        VizError: it is gone, or cannot be read.
    """
    drawn, found = stack_bands(), open_from(origin())
    if not drawn and stack_bands():
        st.rerun()  # the sidebar was drawn before it was open
    return found


def stack_bands() -> int:
    """The number of bands of the current picture; 0 if it is a photo or not open yet."""
    kind, *rest = origin()
    if kind not in ("given", "folder"):
        return 0
    try:
        key = ("given", rest[0]) if kind == "given" else _folder_key(*rest)
    except VizError:  # told where the picture is opened
        return 0
    found = decoded_pictures().get(key)
    return 0 if found is None or found.bands is None else found.bands.shape[2]


def _folder_key(path: str, name: str) -> tuple[str, ...]:
    source = folder(path)
    return ("folder", str(source.root), name, source.stamp(source.index_of(name)))


def open_from(origin: Origin) -> Picture:
    """The picture of an origin, a stack with the chosen bands. While a slow one is decoded, Cancel is shown.

    Raises:
        VizError: it is gone, cannot be read, or decoding was cancelled.
    """
    found, chosen = _opened(origin), state.get(state.BANDS)
    if found.bands is None or chosen is None:
        return found
    key = ("bands", found.digest, chosen)
    shown = decoded_pictures().get(key)
    if shown is None:
        try:
            shown = open_picture(found, bands=read_bands(chosen))
        except VizError as error:
            state.note(f"The choice of bands was ignored. {error}")
            state.put(state.BANDS, None)
            st.rerun()
        # What is forgotten with the upload is found by its digest.
        shown = replace(shown, digest=f"{shown.digest}-{found.digest}")
        decoded_pictures().put(key, shown, shown.pixels.nbytes)
    return replace(shown, label=found.label)


def _opened(origin: Origin) -> Picture:
    kind, *rest = origin
    if kind == "sample":
        return sample(rest[0])
    if kind == "unreadable":  # an upload
        raise VizError(rest[0], code=rest[1])
    if kind == "folder":
        path, name = rest
        source = folder(path)
        index = source.index_of(name)
        key = _folder_key(path, name)
        return _unless_cancelled(_decoded(key, lambda tick: source.open(index, tick)), name)
    found = decoded_pictures().get(("given", rest[0]))
    if found is None or not uploads.is_registered(("picture", rest[0])):  # another session's, or evicted
        found = _restore(rest[0])
    label = state.load(state.LABELS, {}).get(rest[0])
    return found if label is None else replace(found, label=label)


def thumb(picture: Picture) -> np.ndarray:
    """A thumbnail of the centre of the picture, uint8 `[THUMB THUMB 3]`."""
    return _square(picture.pixels)


def _square(pixels: np.ndarray) -> np.ndarray:
    return centre_crop(resize_short_side(pixels, THUMB, "bilinear"), THUMB, THUMB)


def uploaded() -> list[Origin]:
    """The origins of this session's uploaded photos, oldest first."""
    return [tuple(one) for one in state.load(state.UPLOADS, [])]


def restore_uploads() -> None:
    """Take the uploaded photos that the address named into those of this session, after a reload."""
    named = [short for short in state.load(state.LINKED_UPLOADS, []) if short]
    state.clear(state.LINKED_UPLOADS)
    found = [one for one in map(stored_uploads.find, named) if one is not None]
    if len(found) < len(named):
        state.note("Some of the uploaded photos are not on this machine any more.")
    if found:
        state.save(state.UPLOADS, [*uploaded(), *(("given", *one) for one in found)])


def add_linked() -> None:
    """Add the upload that a link named, if it can be opened, to the uploaded photos of this session."""
    kind, *rest = origin()
    if kind == "given" and rest[0] not in [one[1] for one in uploaded()]:
        with suppress(VizError):  # the page says that it is gone
            state.save(state.ORIGIN, add_upload(("given", rest[0], current().name)))


def add_upload(new: Origin) -> Origin:
    """Add an uploaded photo to those of this session; returns it, or the one with the same pixels that is there already."""
    kept, pixels = uploaded(), _pixels().get(new[1], new[1])
    same = next((one for one in kept if _pixels().get(one[1], one[1]) == pixels), None)
    if same is None:
        state.save(state.UPLOADS, [*kept, new])
    return same or new


def add_from_collection(picture: Picture, name: str) -> Origin | None:
    """Add a photo that is no file of a folder, with its class, to the uploaded photos; None if the user cancelled.

    Raises:
        VizError: it is too large to keep.
    """
    kept = keep(to_png(picture.pixels), name)
    if kept is None:
        return None
    added = add_upload(kept)
    if picture.label is not None:
        state.save(state.LABELS, {**state.load(state.LABELS, {}), added[1]: picture.label})
    return added


def remove_upload(old: Origin) -> None:
    """Remove an uploaded photo from those of this session. If it is the current one, its neighbour becomes that."""
    kept = uploaded()
    at = kept.index(old)
    rest = kept[:at] + kept[at + 1 :]
    state.save(state.UPLOADS, rest)
    if origin()[:2] == old[:2]:
        state.clear(state.ORIGIN)
        if rest:
            state.save(state.ORIGIN, rest[min(at, len(rest) - 1)])
    uploads.remove(("picture", old[1]))


def upload_thumbs(origins: Sequence[Origin], columns: int) -> str:
    """A contact sheet of uploaded photos, as a data URI. One that is gone is grey."""

    def made(one: Origin) -> np.ndarray:
        key = ("thumb of upload", one[1], str(state.get(state.BANDS)))
        found = compute.answers().get(key)
        if found is None:
            found = _grey()
            with suppress(VizError):
                found = thumb(open_from(one))
                compute.answers().put(key, found, found.nbytes)
        return cast(np.ndarray, found)

    key = ("thumbs of uploads", str(state.get(state.BANDS)), *(str(one[1]) for one in origins))
    return compute.remembered(key, lambda: uri(sheet([made(one) for one in origins], columns, gap=0)), len)


def folder_thumbs(source: Source, numbers: Sequence[int], columns: int) -> str | None:
    """A contact sheet of some photos of a folder, as a data URI. Only these are decoded; unreadable ones are grey.

    None where a message says that the user cancelled it.
    """
    keys = {number: ("thumb", str(source.root), source.path(number), source.stamp(number)) for number in numbers}

    def work(tick: Tick, missing: list[int], keep_one: Callable[[int, np.ndarray], None]) -> None:
        for done, number in enumerate(missing):
            share = done / len(missing)
            tick(share)
            ref, made, wait = source.image_ref(number), _grey(), partial(_report, tick, share)
            with suppress(VizError):
                made = _square(
                    open_thumbnail(ref.path, THUMB, wait) if isinstance(ref, File) else ref.open(wait).pixels
                )
            keep_one(number, made)

    found = compute.compute_each(keys, work, "Making thumbnails")
    if not found:
        return None
    pixels = [found[number] for number in numbers]
    key = ("sheet of thumbs", str(columns), *(part for one in keys.values() for part in one[1:]))
    return compute.remembered(key, lambda: uri(sheet(pixels, columns, gap=0)), len)


def _report(tick: Tick, share: float, of_this_photo: float) -> None:
    tick(share)


def _grey() -> np.ndarray:
    return np.full((THUMB, THUMB, 3), 128, np.uint8)


@cache
def sprite(names: tuple[str, ...], columns: int) -> str:
    """A contact sheet of these samples with `columns` columns, as a data URI."""
    return uri(sheet([thumb(sample(name)) for name in names], columns, gap=0))
