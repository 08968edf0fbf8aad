"""Photos with labelled boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIZE, _PAD, _LINE = 14, 3, 2  # pixels of the letters, around them, and of the lines
_LEAST = 480  # a narrower photo is enlarged by a whole number, or labels would hide it


def draw_labelled(
    picture: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: Sequence[Sequence[int]]
) -> np.ndarray:
    """A copy of uint8 `[H W 3]` with boxes `[n 4]` (top, left, bottom, right), a text and a colour (r, g, b) each.

    A text stands above its box, or inside where there is no room, and never reaches over the border of the photo unless it is
    wider. The first boxes are drawn last, over the others.
    """
    times = -(-_LEAST // picture.shape[1])
    image = Image.fromarray(picture.repeat(times, 0).repeat(times, 1))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_SIZE)
    for box, text, colour in reversed(list(zip(boxes * times, texts, colours, strict=True))):
        fill = (int(colour[0]), int(colour[1]), int(colour[2]))
        top, left = float(max(box[0], 0)), float(max(box[1], 0))
        bottom, right = float(min(box[2], image.height)) - 1, float(min(box[3], image.width)) - 1
        if bottom < top or right < left:
            continue
        draw.rectangle((left, top, right, bottom), outline=fill, width=_LINE)
        wide, high = font.getlength(text) + 2 * _PAD, _SIZE + 2 * _PAD
        x = max(min(left, image.width - wide), 0)
        y = top - high if top >= high else min(top, image.height - high)
        draw.rectangle((x, y, x + wide, y + high), fill)
        bright = 0.3 * fill[0] + 0.6 * fill[1] + 0.1 * fill[2] > 140
        draw.text((x + _PAD, y + _PAD - 1), text, "black" if bright else "white", font)
    return np.asarray(image)
