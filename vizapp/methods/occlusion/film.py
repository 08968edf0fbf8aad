"""The film of a sweep: the occluder moves over the photo, and the map is filled in, position by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vizapp.media.drawing import diverging, tint
from vizapp.media.film import Frames, write_lines
from vizapp.media.transforms import resize
from vizapp.methods.occlusion.occluder import Positions
from vizapp.methods.occlusion.panels import ends, full_scale
from vizapp.methods.occlusion.sweep import OcclusionParams, occluded

HEIGHT, WIDTH = 720, 1280
_EDGE, _TOP, _ROOM = 60, 96, (548, 560)  # pixels: left edge, top of the pictures, and their largest height and width
_PAPER, _INK, _QUIET = (255, 255, 255), (28, 28, 28), (104, 104, 104)


class Film(Frames):
    """The frames, uint8 `[720 1280 3]`, each drawn when it is read.

    On the left the photo with the occluder, on the right the map over the grey photo up to that position: red where hiding
    lowers the probability, blue where hiding raises it. The class, its probability there, and a legend stand around them.

    Args:
        seen: The crop that the network sees, uint8 `[H W 3]`.
        params: Fill of the occluder, and whether it hides the rest instead.
        where: The positions of the occluder.
        name: The class.
        clean: Its probability for the photo without the occluder.
        probability: Its probability at each position, `[h w]`.
        answers: The name of the most probable class at each position, row by row.
        most: Largest number of frames. Of more positions, evenly spaced ones are shown, with the first and the last.
    """

    def __init__(
        self, seen: np.ndarray, params: OcclusionParams, where: Positions, name: str, clean: float,
        probability: np.ndarray, answers: Sequence[str], most: int = 120,
    ) -> None:  # fmt: skip
        self._seen, self._params, self._where = seen, params, where
        self._probability, self._answers = probability, answers
        count = probability.size
        self._places = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
        scale = full_scale(clean - probability)
        height, width = seen.shape[:2]
        enlarge = min(_ROOM[0] / height, _ROOM[1] / width)
        self._size = round(height * enlarge), round(width * enlarge)
        self._left, self._right = (_EDGE + shift + (_ROOM[1] - self._size[1]) // 2 for shift in (0, WIDTH // 2 - 20))
        self._colours = tint(clean - probability, scale)
        self._grey = resize(seen, *self._size).mean(2, keepdims=True)
        self._frame = self._surroundings(name, clean, scale)

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, number: int) -> np.ndarray:
        """The frame of that number, from 0."""
        place = int(self._places[number])
        row, column = divmod(place, self._probability.shape[1])
        frame = self._frame.copy()
        height, width = self._size
        hidden = occluded(self._seen, self._params, self._where, row, column)
        frame[_TOP : _TOP + height, self._left : self._left + width] = resize(hidden, *self._size)
        reached = self._colours.copy().reshape(-1, 4)
        reached[place + 1 :, 3] = 0
        over = resize(reached.reshape(self._colours.shape), height, width, "nearest")
        opacity = 0.85 * over[..., 3:] / 255
        mixed = self._grey * (1 - opacity) + over[..., :3] * opacity
        frame[_TOP : _TOP + height, self._right : self._right + width] = mixed.round().astype(np.uint8)
        shown = "with only this part shown" if self._params.inverse else "with the square here"
        return write_lines(frame, [
            (_EDGE, 656, _ROOM[1], f"{100 * float(self._probability[row, column]):.1f} % {shown}", 26, _INK),
            (_EDGE, 690, _ROOM[1], f"Most probable: {self._answers[place]}", 18, _QUIET),
        ])  # fmt: skip

    def _surroundings(self, name: str, clean: float, scale: float) -> np.ndarray:
        """All that is the same in all frames."""
        frame = np.full((HEIGHT, WIDTH, 3), _PAPER, np.uint8)
        right = _EDGE + WIDTH // 2 - 20
        helps, hurts = (end.replace("−", "-") for end in ends("probability", scale))  # the font has no "−"
        inverse = self._params.inverse
        raised, lowered = ("more probable", "less probable") if inverse else ("hiding helps", "hiding hurts")
        frame[664:680, right + 130 : right + 430] = diverging(np.linspace(-1, 1, 300)[None], 1)
        return write_lines(frame, [
            (_EDGE, 30, _ROOM[1], name, 36, _INK), (right, 40, _ROOM[1], f"{100 * clean:.1f} % in the whole photo", 26, _INK),
            (right, 660, 130, helps, 20, _INK), (right + 446, 660, 130, hurts, 20, _INK),
            (right, 690, 130, raised, 18, _QUIET), (right + 446, 690, 130, lowered, 18, _QUIET),
        ])  # fmt: skip
