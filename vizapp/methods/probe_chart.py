"""Accuracies by layer as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizapp.media.film import Line, draw_curve, write_lines

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM, _PLOT = 900, 60, 24, 44, 24, 320  # pixels
_ROW = 20  # of a layer's name
_INK, _PALE, _SIZE = (40, 40, 40), (225, 225, 225), 14
LINES = {
    "": ("this network", (213, 94, 0)), "_random": ("random weights", (127, 133, 140)), "_pixels": ("pixels", (63, 143, 210)),
}  # fmt: skip


def chart(arrays: dict[str, np.ndarray], layers: Sequence[str]) -> np.ndarray:
    """The means over the splits at each layer, uint8 `[H W 3]`; below them the names of the layers.

    `arrays`: `accuracy` and `accuracy_random` `[sites splits]`, `accuracy_pixels` `[splits]`.
    """
    bottom = _TOP + _PLOT
    frame = np.full((bottom + _BOTTOM + _ROW * (len(layers) + 1), _WIDTH, 3), 255, np.uint8)
    text: list[Line] = []
    for percent in range(0, 101, 20):
        row = bottom - _PLOT * percent // 100
        frame[row, _LEFT : _WIDTH - _RIGHT] = _PALE
        text.append((8, row - 9, _LEFT, f"{percent} %", _SIZE, _INK))
    across = np.linspace(_LEFT + 20, _WIDTH - _RIGHT - 20, len(layers)) if len(layers) > 1 else np.array([_WIDTH / 2])
    for place, (key, (name, colour)) in enumerate(LINES.items()):
        values = np.atleast_2d(arrays[f"accuracy{key}"]).mean(1)
        points = np.stack([across, bottom - _PLOT * np.broadcast_to(values, len(layers))], 1)
        draw_curve(frame, points, colour, 3)
        for x, y in np.rint(points).astype(int):
            frame[y - 3 : y + 4, x - 3 : x + 4] = colour
        text.append((_LEFT + 180 * place, 12, 170, name, _SIZE + 2, colour))
    for place, (x, name) in enumerate(zip(across, layers, strict=True), 1):
        text.append((int(x) - 5, bottom + 4, 40, str(place), _SIZE, _INK))
        text.append(
            (_LEFT, bottom + _BOTTOM + _ROW * (place - 1) + 8, _WIDTH - 2 * _LEFT, f"{place}  {name}", _SIZE, _INK)
        )
    return write_lines(frame, text)
