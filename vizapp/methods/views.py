"""The outputs of a method as components of the browser, for its page and for reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vizapp.components.data import packed, percent, photo_data, ramp, signed_ramp, uri
from vizapp.media.drawing import COLOURS, lay_over
from vizapp.methods.output import OPACITY, Output, label_colours, labels_by_frequency, ranks
from vizapp.methods.provenance import Provenance
from vizapp.report.section import View
from vizapp.zoo.labels import is_background, readable

_MOST_CURVES = 8


def views(asked: Provenance, arrays: Mapping[str, np.ndarray]) -> Iterator[View]:
    """A view for each declared output that is a map over the photo or curves, in their order."""
    for output in asked.shows:
        values = arrays.get(output.array)
        if values is None or not values.size:
            continue
        if output.kind == "curves" and values.ndim <= 2 and len(values) > 1:
            columns = values.reshape(len(values), -1)[:, :_MOST_CURVES]
            numbered = [output.label] if columns.shape[1] == 1 else [str(n + 1) for n in range(columns.shape[1])]
            yield View("curves", curves_data(np.arange(len(values)), columns.T, numbered, output.label), output.label)
        elif output.over_photo and asked.seen is not None:
            if output.kind == "per-class map":
                output, values = strongest_class(output, values, arrays.get("classes"), asked.readable_name)
            if values.ndim == 2:
                yield _over_photo(asked, output, values, asked.seen)


def _over_photo(asked: Provenance, output: Output, values: np.ndarray, seen: np.ndarray) -> View:
    about = asked.subject
    shares, over = label_shares(output, values, asked.readable_name), overlay(output, values, asked.readable_name)
    return View(
        "map",
        map_data(output, values, seen, about, asked.readable_name),
        map_title(output, about),
        map_caption(output, values, about),
        tuple(
            ("transparent" if colour is None else f"#{bytes(colour).hex()}", f"{name}, {percent(share)}")
            for colour, name, share in shares
        ),
        {f"{output.array}-over-photo": lay_over(seen, over, OPACITY)},
    )


def map_data(
    output: Output, values: np.ndarray, seen: np.ndarray, about: str, name_of: Callable[[int], str]
) -> dict[str, Any]:
    """Data of the map component for one map `[h w]` over the crop, with its numbers where it is pointed at.

    Args:
        output: Describes the map.
        values: The map, `[h w]`.
        seen: The crop, uint8 `[H W 3]`.
        about: The name of what it supports.
        name_of: The name of a class.
    """
    data = photo_data(seen, map_title(output, about)) | {
        "heat": uri(overlay(output, values, name_of)), "cells": list(values.shape), "values": packed(values),
        "opacity": OPACITY, "hint": "Hover over the map to read its values",
    }  # fmt: skip
    if output.kind == "label map":
        return data | {
            "grey": True,
            "names": {str(number): _class(number, name_of) for number in np.unique(values).tolist()},
        }
    low, high = output.limits(values)
    signed = output.is_signed(values)
    data |= {"low": low, "high": high, "ramp": signed_ramp() if signed else ramp(through=True), "signed": signed}
    if output.kind == "support map":
        data["ends"] = (
            [f"−{high:.2g}, against", f"for, {high:.2g}"] if low < 0 else ["least" if low else "none", "most"]
        )
    return data


def map_title(output: Output, about: str) -> str:
    """The heading of a map."""
    return f"{output.label} for {about}" if output.kind == "support map" else output.label


def map_caption(output: Output, values: np.ndarray, about: str) -> str:
    """What the colours of a map mean; empty for classes, which have a legend."""
    if output.reading:
        return output.reading
    if output.kind == "signed map":
        return "Red raises what is explained, blue lowers it."
    if output.kind == "heat map":
        return "The brighter, the higher the value."
    if output.kind != "support map":
        return ""
    is_signed = output.limits(values)[0] < 0
    return (
        f"Red speaks for {about}, blue against it." if is_signed else f"The brighter, the more it matters for {about}."
    )


def label_shares(
    output: Output, values: np.ndarray, name_of: Callable[[int], str]
) -> list[tuple[Sequence[int] | None, str, float]]:
    """The colours of a label map, each with its class and share of the cells; None: the background, which has no colour.

    Empty for other maps.
    """
    if output.kind != "label map":
        return []
    order, background = _colours_of(values, name_of)
    shares = np.bincount(ranks(values, order).reshape(-1), minlength=len(order) + 1) / values.size
    named = zip(COLOURS.tolist(), order, shares.tolist(), strict=False)
    found: list[tuple[Sequence[int] | None, str, float]] = [(c, _class(n, name_of), share) for c, n, share in named]
    return found + [(None, _class(one, name_of), float((values == one).mean())) for one in background]


def overlay(output: Output, values: np.ndarray, name_of: Callable[[int], str]) -> np.ndarray:
    """A map to lay over the photo, uint8 `[h w 4]`; the background of a label map is clear."""
    drawn = output.draw_over(values)
    if output.kind == "label map":
        order, background = _colours_of(values, name_of)
        drawn[..., :3] = label_colours(values, order)
        drawn[np.isin(values, background), 3] = 0
    return drawn


def _colours_of(values: np.ndarray, name_of: Callable[[int], str]) -> tuple[list[int], list[int]]:
    """The classes of a label map that have a colour, in the order of the colours, and the background."""
    background = [one for one in np.unique(values).tolist() if is_background(_class(one, name_of))]
    return labels_by_frequency(values[~np.isin(values, background)]), background


def strongest_class(
    output: Output, values: np.ndarray, classes: np.ndarray | None, name_of: Callable[[int], str]
) -> tuple[Output, np.ndarray]:
    """The map of the class with the largest mean, of `[classes h w]`, and what describes it."""
    row = int(values.reshape(len(values), -1).mean(1).argmax())
    number = row if classes is None else int(classes[row])
    return replace(output, kind="heat map", title=f"{output.label}: {name_of(number)}"), values[row]


def curves_data(x: np.ndarray, lines: np.ndarray, names: Sequence[str], label: str, axis: str = "") -> dict[str, Any]:
    """Data of the curves component.

    Args:
        x: The places, `[n]`.
        lines: The values `[lines n]`.
        names: A name per line.
        label: Describes the figure.
        axis: What the places are.
    """
    series = [{"name": name, "y": packed(line)} for name, line in zip(names, lines, strict=True)]
    return {"x": packed(np.asarray(x)), "series": series, "label": label, "axis": axis}


def _class(number: int, name_of: Callable[[int], str]) -> str:
    return readable(name_of(number)) if number >= 0 else "no class"
