"""The film of a transform: the photo changes, and the curves of features and probabilities grow with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizapp.media.distortions import ResizedPhoto
from vizapp.media.drawing import COLOURS
from vizapp.media.film import Frames, draw_curve, write_lines
from vizapp.media.transforms import resize
from vizapp.methods.transform import TransformParams

HEIGHT, WIDTH = 720, 1280
_EDGE, _TOP, _ROOM = 60, 96, 548  # pixels: left edge, top of the photo, and its largest side
_RIGHT, _CHART = 720, (200, 500)  # left edge of the charts, and their height and width
_PAPER, _INK, _QUIET, _FAINT = (255, 255, 255), (28, 28, 28), (104, 104, 104), (214, 214, 214)
_UNITS = {"rotate": "°", "scale": " times", "shift-x": " pixels", "shift-y": " pixels"}

Line = tuple[str, np.ndarray]  # name, and values `[S]`


def amount_text(kind: str, amount: float) -> str:
    """An amount with its unit, as in `90°` and `severity 3`."""
    return f"{amount:g}{_UNITS[kind]}" if kind in _UNITS else f"severity {amount:g}"


class Film(Frames):
    """The frames, uint8 `[720 1280 3]`, one per amount, each drawn when it is read.

    On the left the photo as the network sees it; on the right the distance of the features at each layer and the probability
    of each class, whole curves in grey and up to this amount in colour.

    Args:
        photo: The photo.
        params: Kind, amounts, edge and seed.
        distances: A line per layer.
        probabilities: A line per class, from 0 to 1; may be empty.
        answers: The most probable class at each amount, in words; may be empty.
    """

    def __init__(
        self, photo: ResizedPhoto, params: TransformParams, distances: Sequence[Line], probabilities: Sequence[Line],
        answers: Sequence[str],
    ) -> None:  # fmt: skip
        self._photo, self._params, self._answers = photo, params, answers
        amounts = np.array(params.amounts)
        low, high = amounts.min(), amounts.max()
        self._across = (amounts - low) / ((high - low) or 1)
        finite = [values[np.isfinite(values)].max(initial=0) for _, values in distances]
        self._charts = [(_TOP, distances, max([*finite, 1e-9])), (_TOP + 300, probabilities, 1.0)][
            : 1 + bool(probabilities)
        ]
        enlarge = _ROOM / max(photo.height, photo.width)
        self._size = round(photo.height * enlarge), round(photo.width * enlarge)
        self._frame = self._surroundings(low, high)

    def __len__(self) -> int:
        return len(self._params.amounts)

    def draw(self, number: int) -> np.ndarray:
        """The frame of that number, from 0."""
        asked, (height, width) = self._params, self._size
        amount, frame = asked.amounts[number], self._frame.copy()
        seen = self._photo.transformed(asked.kind, amount, asked.edge, asked.seed)
        frame[_TOP : _TOP + height, _EDGE : _EDGE + width] = resize(seen, height, width)
        for top, lines, most in self._charts:
            for colour, (_, values) in zip(_colours(), lines, strict=False):
                draw_curve(frame, self._points(values, top, most)[: number + 1], colour, 3)
        answer = self._answers[number] if self._answers else ""
        return write_lines(frame, [
            (_EDGE, 656, _ROOM, f"{asked.kind}: {amount_text(asked.kind, amount)}", 26, _INK),
            (_EDGE, 690, _ROOM, answer, 18, _QUIET),
        ])  # fmt: skip

    def _points(self, values: np.ndarray, top: int, most: float) -> np.ndarray:
        """A line in pixels, `[S 2]` (x, y)."""
        height, width = _CHART
        return np.stack([_RIGHT + width * self._across, top + height * (1 - values / most)], 1)

    def _surroundings(self, low: float, high: float) -> np.ndarray:
        """All that is the same in all frames."""
        frame, (height, width) = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8), _CHART
        titles = ("Distance of the features / their clean size", "Probability")
        words = []
        for (top, lines, most), title in zip(self._charts, titles, strict=False):
            corners = [(_RIGHT, top), (_RIGHT, top + height), (_RIGHT + width, top + height)]
            draw_curve(frame, np.array(corners, float), _QUIET, 1)
            words += [(_RIGHT, top - 34, width, title, 20, _INK), (_RIGHT - 50, top - 8, 46, f"{most:.2g}", 16, _QUIET)]
            step = width // max(1, len(lines))
            for number, (colour, (name, values)) in enumerate(zip(_colours(), lines, strict=False)):
                draw_curve(frame, self._points(values, top, most), _FAINT)
                words.append((_RIGHT + number * step, top + height + 24, step - 10, name, 16, colour))
            words += [
                (_RIGHT, top + height + 4, 200, f"{low:g}", 16, _QUIET),
                (_RIGHT + width - 40, top + height + 4, 60, f"{high:g}", 16, _QUIET),
            ]
        return write_lines(frame, words)


def _colours() -> list[tuple[int, int, int]]:
    """The colours of the lines; yellow is left out, which is too light for lines on white."""
    red, *others = (tuple(map(int, COLOURS[n])) for n in (5, 4, 2, 6, 7, 8, 0, 1))
    return [red, *others]  # type: ignore[list-item]
