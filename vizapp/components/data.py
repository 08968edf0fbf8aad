"""Pictures and numbers as the data of components: data URIs, packed numbers, colour ramps, a photo."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from vizapp.media.drawing import diverging, heat, to_jpeg, to_png, veil


def uri(pixels: np.ndarray) -> str:
    """A picture, uint8 `[H W 3]` or `[H W 4]`, as a PNG file in a data URI."""
    return "data:image/png;base64," + base64.b64encode(to_png(pixels)).decode()


def photo_uri(pixels: np.ndarray) -> str:
    """A photo, uint8 `[H W 3]`, as a JPEG file in a data URI: where there are many, and colours need not be exact."""
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(pixels)).decode()


def packed(values: np.ndarray) -> str:
    """Numbers for the map component: base64 of float32."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def percent(share: float) -> str:
    """A share in percent, with a decimal where it is small or nearly all."""
    return f"{100 * share:.0f} %" if 0.1 <= share <= 0.99 or share in (0, 1) else f"{100 * share:.1f} %"


def photo_data(pixels: np.ndarray, label: str) -> dict[str, Any]:
    """Data of the map component for a picture without a map."""
    return {"photo": uri(pixels), "size": list(pixels.shape[:2]), "label": label}


def ramp(through: bool = False) -> str:
    """The colours of the heat maps from low to high. `through`: as transparent as those of `veil`."""
    return uri((veil if through else heat)(np.linspace(0, 1, 64)[None], 0, 1))


def signed_ramp() -> str:
    """The colours of the signed maps, from blue over white to red."""
    return uri(diverging(np.linspace(-1, 1, 65)[None], 1))
