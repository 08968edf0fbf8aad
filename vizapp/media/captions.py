"""Pictures with a line of text below, for files that hold several of them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_HEIGHT, _SIZE = 24, 14  # pixels of the line and of its letters


def captioned(picture: np.ndarray, text: str, least: int) -> np.ndarray:
    """A picture uint8 `[H W 3]` with a line of text below, cut at its width.

    A picture narrower than `least` pixels is enlarged by a whole number.
    """
    times = -(-least // picture.shape[1])
    large = picture.repeat(times, 0).repeat(times, 1)
    line = Image.new("RGB", (large.shape[1], _HEIGHT), "white")
    font = ImageFont.load_default(_SIZE)
    left = max(0.0, (large.shape[1] - font.getlength(text)) / 2)
    ImageDraw.Draw(line).text((left, 4), text, "black", font)
    return np.concatenate([large, np.asarray(line)])
