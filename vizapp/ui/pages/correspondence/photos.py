"""The photos to mark, and the square on each: drawn on the photo or given as numbers, and kept in the link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

import streamlit as st

from vizapp.components.data import uri
from vizapp.errors import VizError, plural
from vizapp.media.picture import Picture
from vizapp.methods.parts import Box
from vizapp.ui.inputs import image_picker, images
from vizapp.ui.inputs.images import Origin
from vizapp.ui.session import compute, messages, state, url
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

MOST = 24  # photos to choose from
_WIDTH = 170  # pixels of a photo on the screen: two stand side by side on a phone
_ADVICE = "Open a folder of the photos that you want to mark."
_SIDES = ("Top", "Left", "Bottom", "Right")
# An eye of a cat, and two faces, in pixels of a crop of 224 × 224.
_FACES: dict[str, Box] = {"chelsea": (52, 36, 108, 104), "camera": (14, 62, 80, 118), "astronaut": (18, 72, 78, 124)}
_FACES_SIZE = (224, 224)


@dataclass(frozen=True)
class Photo:
    """A photo: its name in the link, its title on the page, and the square on it, if there is one inside of the crop."""

    name: str
    title: str
    picture: Picture
    box: Box | None


def choose(network: Network) -> list[Photo]:
    """Draw the choice of the photos; returns those that can be opened, and messages about the others."""
    chosen = {
        _name_of(origin): (origin, title)
        for origin, title in image_picker.choose_several("correspondence", state.PHOTOS, MOST, _ADVICE)
    }
    boxes = _marked(network)
    chosen |= {name: _named(name) for name in boxes if name not in chosen}
    found, wrong, outside = [], list[str](), list[str]()
    for name, (origin, title) in chosen.items():
        try:
            picture = images.open_from(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        box = boxes.get(name)
        if box is not None and not _is_inside(network, box):
            outside.append(title)
            box = None
        found.append(Photo(name, title or picture.name, picture, box))
    if wrong:
        messages.warn(f"{plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if outside:
        _, height, width = network.input_size
        messages.warn(
            f"The square on {', '.join(outside)} does not lie inside of what {network.name} sees, {width} × {height} pixels. "
            "Draw it again."
        )
    return found


def draw(network: Network, photos: list[Photo], key: str) -> None:
    """Draw the photos as the network sees them, to mark a part of each. `key`: of the container."""
    with st.container(horizontal=True, gap="small", key=key):
        for photo in photos:
            name = f"correspondence.photo.{state.name_of(photo.name)}"
            data = {
                "photo": _seen(network, photo.picture), "size": list(network.input_size[1:]),
                "box": None if photo.box is None else list(photo.box), "name": photo.title,
            }  # fmt: skip
            component("box")(
                key=name, data=data, width=_WIDTH, on_box_change=partial(_take_drawn, network, photo.name, name)
            )


def by_numbers(network: Network, photos: list[Photo]) -> None:
    """Draw a popover with the square of one photo as numbers."""
    with st.popover("By numbers", icon=":material/edit:"):
        titles = {photo.name: photo.title for photo in photos}
        chosen = st.selectbox("Photo", list(titles), format_func=titles.__getitem__, key="correspondence.by_numbers")
        photo = next((one for one in photos if one.name == chosen), photos[0])
        _, height, width = network.input_size
        shown = photo.box or _middle(height, width)
        for side, value, limit in zip(_SIDES, shown, (height, width) * 2, strict=True):
            key = f"correspondence.{side.lower()}"
            state.save(key, value)
            st.number_input(
                f"{side}, px", 0, limit, key=key, on_change=_take_numbers, args=(network, photo.name, shown)
            )
        messages.info(f"Pixels of what the network sees: {width} wide and {height} high.")


def _middle(height: int, width: int) -> Box:
    return height * 3 // 8, width * 3 // 8, height * 5 // 8, width * 5 // 8


def _seen(network: Network, picture: Picture) -> str:
    key = compute.key_of("correspondence.photo", network, picture)
    return compute.remembered(key, lambda: uri(network.seen(picture)), len)


# The squares in the link


def _marked(network: Network) -> dict[str, Box]:
    """The squares by the name of their photo, in pixels of the crop of this network."""
    texts, size = state.get(state.PARTS), network.input_size[1:]
    if texts is None:
        known = images.sample_names() if state.get(state.PHOTOS) == "samples" else ()
        return _scaled({name: box for name, box in _FACES.items() if name in known}, _FACES_SIZE, size)
    found, of = {}, size
    for text in texts:
        name, *sides = text.split(":")
        if sides:
            top, left, bottom, right = map(int, sides)
            found[unquote(name)] = (top, left, bottom, right)
        else:
            height, width = map(int, name.split("x"))
            of = (height, width)
    return _scaled(found, of, size)


def _scaled(boxes: Mapping[str, Box], of: tuple[int, int], to: tuple[int, int]) -> dict[str, Box]:
    """Squares drawn on crops of one size (height, width), on crops of another: networks see about the same part of a photo."""
    down, across = to[0] / of[0], to[1] / of[1]
    return {
        name: (round(top * down), round(left * across), round(bottom * down), round(right * across))
        for name, (top, left, bottom, right) in boxes.items()
    }


def _is_inside(network: Network, box: Box) -> bool:
    _, height, width = network.input_size
    top, left, bottom, right = box
    return 0 <= top < bottom <= height and 0 <= left < right <= width


def _put(network: Network, boxes: Mapping[str, Box]) -> None:
    texts = (f"{quote(name, safe='/')}:{':'.join(map(str, box))}" for name, box in boxes.items())
    state.put(state.PARTS, ("x".join(map(str, network.input_size[1:])), *texts))


def _take_drawn(network: Network, name: str, key: str) -> None:
    _take(network, name, state.clicked(key, "box"))


def _take_numbers(network: Network, name: str, shown: Box) -> None:
    values = [state.load(f"correspondence.{side.lower()}") for side in _SIDES]
    if values[0] >= values[2] or values[1] >= values[3]:
        state.note(f"A square has its top above its bottom and its left before its right. It stays at {shown}.")
        return
    _take(network, name, values)


def _take(network: Network, name: str, given: Any) -> None:
    """Keep the square that the browser sent for a photo; an empty list removes it."""
    boxes = _marked(network)
    if not isinstance(given, list) or not all(type(side) is int for side in given):
        return
    if not given:
        boxes.pop(name, None)
    elif len(given) == len(_SIDES) and _is_inside(network, box := (given[0], given[1], given[2], given[3])):
        boxes[name] = box
    _put(network, boxes)


# Names in the link: of a sample, of a photo of the folder by its path in it, of an upload by its digest


def _name_of(origin: Origin) -> str:
    kind, *rest = origin
    if kind == "given":
        return url.upload_text(rest[0])
    return str(rest[1] if kind == "folder" else rest[0])


def _named(name: str) -> tuple[Origin, str]:
    """The origin and the title of a photo that only the link names."""
    digest, source = url.upload_digest(name), state.get(state.PHOTOS)
    if digest is not None:
        return ("given", digest, ""), ""
    return (("sample", name) if source in ("samples", "upload") else ("folder", source, name)), name
