"""Pictures as HTML figures, for notebooks."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from vizapp.markup import more, text

_MOST, _ALONE, _AMONG = 8, 480, 224  # figures; largest side in pixels of up to two figures, and of several
_ENLARGED = 0.75  # of that side: small pictures are enlarged to as much, in whole steps
_LOSSLESS = 24_000  # bytes; a PNG file that is larger becomes a JPEG file


def figures(shown: Sequence[tuple[np.ndarray, str]]) -> str:
    """The first of the pictures, uint8 `[H W 3]`, side by side with their captions, and how many more there are.

    Large pictures are shrunk, small ones enlarged with their pixels seen.
    """
    side = _ALONE if len(shown) <= 2 else _AMONG
    listed = "".join(_figure(pixels, caption, side) for pixels, caption in shown[:_MOST])
    style = "display:flex;flex-wrap:wrap;gap:12px;margin:6px 0"
    return listed and f'<div style="{style}">{listed}</div>{more(len(shown) - _MOST, "picture")}'


def _figure(pixels: np.ndarray, caption: str, side: int) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side), Image.Resampling.BOX)
    scale = max(1, int(_ENLARGED * side) // max(image.size))
    kind, file = _encoded(image)
    width, height = image.width * scale, image.height * scale
    style = "margin:0;max-width:100%" + (";image-rendering:pixelated" if scale > 1 else "")
    return (
        f'<figure style="margin:0;max-width:{max(width, 120)}px"><img style="{style}" alt="{text(caption)}" '
        f'width="{width}" height="{height}" src="data:image/{kind};base64,{base64.b64encode(file).decode()}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def _encoded(image: Image.Image) -> tuple[str, bytes]:
    """A PNG file if it is small, as of maps, else a JPEG file."""
    png, jpeg = BytesIO(), BytesIO()
    image.save(png, "PNG", optimize=True)
    if png.tell() <= _LOSSLESS:
        return "png", png.getvalue()
    image.save(jpeg, "JPEG", quality=80, subsampling=0)
    return "jpeg", jpeg.getvalue()
