"""The film of a training: the projections of some units change from epoch to epoch, and their curves grow."""

from __future__ import annotations

import math

import numpy as np

from vizapp.media.drawing import COLOURS, contrasted, draw_box
from vizapp.media.film import Frames, draw_curve, write_lines
from vizapp.media.transforms import resize
from vizapp.methods.base import Result

HEIGHT, WIDTH, PER_SECOND = 720, 1280, 2
_PAPER, _INK, _QUIET, _FAINT = (255, 255, 255), (28, 28, 28), (104, 104, 104), (214, 214, 214)
_EDGE, _TOP, _ROOM, _GAP = 60, 110, 560, 12  # pixels: left edge, top of the units, their room, and the gap between them
_RIGHT, _CHART = 720, (200, 500)  # left edge of the charts, and their height and width
_MOST = 12  # units
_JUMP = (213, 94, 0)


class Film(Frames):
    """The frames, uint8 `[720 1280 3]`, one per checkpoint, each drawn when it is read.

    On the left the projection of each unit (at most 12), framed where the photo is another one; on the right the activations,
    and the accuracy if it is known, whole curves in grey and up to this epoch in colour.
    """

    def __init__(self, result: Result, site: str) -> None:
        self._arrays, self._site = result.arrays, site
        self._epochs = result.arrays["epochs"]
        lines = result.arrays["activation"][:_MOST]
        self._charts = [("Strongest activation", _TOP, lines, float(np.nanmax(lines, initial=1e-9)))]
        if "accuracy" in result.arrays:
            self._charts.append(("Right answers", _TOP + 300, result.arrays["accuracy"][None], 1.0))
        self._columns = math.ceil(math.sqrt(len(lines)))
        self._side = (_ROOM - (self._columns - 1) * _GAP) // self._columns

    def __len__(self) -> int:
        return len(self._epochs)

    def draw(self, number: int) -> np.ndarray:
        """The frame of that number, from 0."""
        arrays, frame = self._arrays, np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
        words = [(_EDGE, 40, _ROOM, f"{self._site} after epoch {self._epochs[number]}", 26, _INK)]
        for row, channel in enumerate(arrays["channels"][:_MOST].tolist()):
            down, across = divmod(row, self._columns)
            top, left = _TOP + down * (self._side + _GAP), _EDGE + across * (self._side + _GAP)
            cell = contrasted(arrays["projection"][row, number])
            times = (self._side - 24) / max(cell.shape[:2])
            height, width = (max(1, int(side * times)) for side in cell.shape[:2])
            large = resize(cell, height, width, "nearest")
            if arrays["jump"][row, number]:
                large = draw_box(large, (0, 0, *large.shape[:2]), _JUMP, 4)
            frame[top : top + large.shape[0], left : left + large.shape[1]] = large
            words.append((left, top + large.shape[0] + 3, self._side, f"unit {channel}", 15, _QUIET))
        for title, top, lines, most in self._charts:
            corners = [
                (_RIGHT, top),
                (_RIGHT, top + _CHART[0]),
                (_RIGHT + _CHART[1], top + _CHART[0]),
            ]
            draw_curve(frame, np.array(corners, float), _QUIET, 1)
            for row, values in enumerate(lines):
                points = self._points(values, top, most)
                draw_curve(frame, points, _FAINT)
                draw_curve(frame, points[: number + 1], _colour(row), 3)
            last = f"{self._epochs[-1]}"
            words += [
                (_RIGHT, top - 34, _CHART[1], title, 20, _INK),
                (_RIGHT - 50, top - 8, 46, f"{most:.3g}", 16, _QUIET),
                (_RIGHT, top + _CHART[0] + 4, 100, "epoch 0", 16, _QUIET),
                (_RIGHT + _CHART[1] - 30, top + _CHART[0] + 4, 60, last, 16, _QUIET),
            ]
        return write_lines(frame, words)

    def _points(self, values: np.ndarray, top: int, most: float) -> np.ndarray:
        """A line in pixels, `[epochs 2]` (x, y), over epochs to scale."""
        height, width = _CHART
        across = self._epochs / max(1, int(self._epochs[-1]))
        return np.stack([_RIGHT + width * across, top + height * (1 - np.clip(values / most, 0, 1))], 1)


def _colour(row: int) -> tuple[int, int, int]:
    red, green, blue = COLOURS[(5, 4, 2, 6, 7, 8, 0, 1)[row % 8]].tolist()
    return red, green, blue
