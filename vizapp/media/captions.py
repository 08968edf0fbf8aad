"""Pictures with text below: a line, or the legend of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_HEIGHT, _SIZE = 24, 14  # pixels of the line and of its letters


def captioned(picture: np.ndarray, text: str, least: int) -> np.ndarray:
    """A picture uint8 `[H W 3]` with a line of text below, cut at its width.

    A picture narrower than `least` pixels is enlarged by a whole number.
    """
    large = _enlarged(picture, least)
    line = Image.new("RGB", (large.shape[1], _HEIGHT), "white")
    font = ImageFont.load_default(_SIZE)
    left = max(0.0, (large.shape[1] - font.getlength(text)) / 2)
    ImageDraw.Draw(line).text((left, 4), text, "black", font)
    return np.concatenate([large, np.asarray(line)])


def with_legend(picture: np.ndarray, entries: Sequence[tuple[Sequence[int], str]], least: int) -> np.ndarray:
    """A picture uint8 `[H W 3]` with a line for each entry, its colour (r, g, b) and name, below.

    A picture narrower than `least` pixels is enlarged by a whole number. Names are cut at its width.
    """
    large = _enlarged(picture, least)
    lines = Image.new("RGB", (large.shape[1], _HEIGHT * len(entries)), "white")
    draw, font = ImageDraw.Draw(lines), ImageFont.load_default(_SIZE)
    for number, (colour, name) in enumerate(entries):
        top = _HEIGHT * number
        draw.rectangle((4, top + 5, 4 + _SIZE, top + 5 + _SIZE), tuple(colour), "black")
        draw.text((_SIZE + 12, top + 4), name, "black", font)
    return np.concatenate([large, np.asarray(lines)])


def _enlarged(picture: np.ndarray, least: int) -> np.ndarray:
    times = -(-least // picture.shape[1])
    return picture.repeat(times, 0).repeat(times, 1)
