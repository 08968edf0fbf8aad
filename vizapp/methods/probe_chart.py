"""The pictures of a probe: accuracy by layer, and over the number of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vizapp.media.film import draw_curve, write_lines
from vizapp.methods.base import Panel

_HEIGHT, _WIDTH, _LEFT, _TOP, _RIGHT, _BOTTOM = 540, 960, 70, 84, 930, 450
_INK, _QUIET, _FAINT = (28, 28, 28), (104, 104, 104), (214, 214, 214)
LINES = {
    "": ("this network", (213, 94, 0)), "_random": ("random weights", (127, 133, 140)), "_pixels": ("pixels", (63, 143, 210)),
}  # fmt: skip


def panels(arrays: Mapping[str, np.ndarray], layers: Sequence[str]) -> tuple[Panel, ...]:
    """The charts of the arrays of `probe`."""
    depth = {key: arrays[f"accuracy{key}"] for key in LINES}
    depth["_pixels"] = np.repeat(depth["_pixels"][None], len(layers), 0)
    found = [Panel("accuracy", _chart("Accuracy by layer", layers, depth), "A line is a mean, a dot a split.")]
    if len(arrays.get("curve_photos", ())):
        counts = [str(count) for count in arrays["curve_photos"].tolist()]
        curves = {key: arrays[f"curve{key}"] for key in LINES}
        found.append(Panel("photos", _chart(f"Accuracy at {layers[-1]} by photos per class", counts, curves)))
    return tuple(found)


def _chart(title: str, across: Sequence[str], lines: Mapping[str, np.ndarray]) -> np.ndarray:
    """A line per entry of `lines` `[n splits]` from 0 to 1, uint8 `[540 960 3]`; `across` are the names of the n places."""
    frame = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    x = np.linspace(_LEFT + 40, _RIGHT - 40, len(across)) if len(across) > 1 else np.array([(_LEFT + _RIGHT) / 2])

    def points(values: np.ndarray) -> np.ndarray:
        return np.stack([x, _BOTTOM - (_BOTTOM - _TOP) * values], 1)

    words = [(_LEFT, 18, _RIGHT - _LEFT, title, 22, _INK)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = _BOTTOM - (_BOTTOM - _TOP) * share
        draw_curve(frame, np.array([(_LEFT, at), (_RIGHT, at)]), _FAINT, 1)
        words.append((8, round(at) - 9, _LEFT - 12, f"{100 * share:.0f} %", 15, _QUIET))
    for number, (key, values) in enumerate(lines.items()):
        name, colour = LINES[key]
        draw_curve(frame, points(values.mean(1)), colour, 3)
        for one in values.T:
            for spot in points(one):
                draw_curve(frame, spot + np.array([(-2, 0), (2, 0)]), colour, 5)
        words.append((_LEFT + 190 * number, 50, 180, name, 17, colour))
    step = max(1, len(across) // 8)
    room = round((_RIGHT - _LEFT) / max(1, len(across[::step]))) - 6
    words += [
        (round(at) - room // 2 + 4, _BOTTOM + 12, room, name, 14, _QUIET)
        for at, name in zip(x[::step], across[::step], strict=True)
    ]
    return write_lines(frame, words)
