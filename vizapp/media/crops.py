"""Several crops of a photo, and the whole of it, at the size at which a network's preprocessing crops photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vizapp.media.transforms import (
    View,
    centre_crop,
    five_corners,
    five_crops,
    resize,
    resize_short_side,
    short_side_size,
)  # fmt: skip

GOOGLENET_SIDES = (256, 288, 320, 352)  # of the resized photo, for a network that takes 224 pixels


@dataclass(frozen=True)
class CornerCrops:
    """The four corners and the centre of the resized photo, then their mirror images (Krizhevsky et al. 2012, section 4.1).

    `scales`: of the shorter side, one after the other. There are 10 crops for each.
    """

    view: View
    scales: tuple[float, ...] = (1.0,)

    def sides(self, height: int, width: int) -> list[int]:
        """The shorter side of the resized photo at each scale, of a photo of that height and width."""
        most = max(self.view.height, self.view.width)
        # Preprocessing that squeezes the whole photo into the input leaves no margin; crops need one.
        squeezed = self.view.resize == (self.view.height, self.view.width)
        side = most * 256 / 224 if squeezed else min(self.view.resized(height, width))
        return [max(round(side * scale), most) for scale in self.scales]

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The crops of a photo `[H W 3]`: uint8 `[n height width 3]`."""
        found: list[np.ndarray] = []
        for side in self.sides(*pixels.shape[:2]):
            resized = resize_short_side(pixels, side, self.view.interpolation)
            found += _with_mirrored(five_crops(resized, self.view.height, self.view.width))
        return np.stack(found)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """(top, left, bottom, right) of each crop in pixels of the photo, float32 `[n 4]`."""
        found = []
        for side in self.sides(height, width):
            resized = short_side_size(height, width, side)
            corners = five_corners(resized, self.view.height, self.view.width)
            edges = [(top, left, top + self.view.height, left + self.view.width) for top, left in corners]
            scale = np.array([height / resized[0], width / resized[1]] * 2)
            found += [(np.array(edges) * scale).astype(np.float32)] * 2
        return np.concatenate(found)


@dataclass(frozen=True)
class GoogLeNetCrops:
    """The 144 crops of Szegedy et al. 2014, section 7; for networks of another input size, of sides in proportion.

    At each of four sizes the left, centre and right squares of the photo (top, centre and bottom of a tall one); of each square
    the four corners, the centre and the whole square resized; then their mirror images.
    """

    view: View

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The crops of a photo `[H W 3]`: uint8 `[144 height width 3]`."""
        found: list[np.ndarray] = []
        height, width, how = self.view.height, self.view.width, self.view.interpolation
        for side in GOOGLENET_SIDES:
            short = round(side * max(height, width) / 224)
            resized = resize_short_side(pixels, short, how)
            for top, left in _squares(resized.shape[0] - short, resized.shape[1] - short):
                square = np.ascontiguousarray(resized[top : top + short, left : left + short])
                found += _with_mirrored([*five_crops(square, height, width), resize(square, height, width, how)])
        return np.stack(found)


@dataclass(frozen=True)
class WholePhoto:
    """The resized photo, not cropped; one that is smaller than the network's input is padded with black."""

    view: View

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """The photo `[H W 3]`, resized: uint8 `[height width 3]`."""
        resized = resize(pixels, *self.view.resized(*pixels.shape[:2]), self.view.interpolation)
        height, width = (max(pair) for pair in zip(resized.shape, (self.view.height, self.view.width), strict=False))
        return centre_crop(resized, height, width, self.view.floor)


def _squares(below: int, beside: int) -> list[tuple[int, int]]:
    """The corners of the first, middle and last square of a photo that is so many pixels taller or wider than a square."""
    return [(0, 0), (round(below / 2), round(beside / 2)), (below, beside)]


def _with_mirrored(crops: list[np.ndarray]) -> list[np.ndarray]:
    return crops + [crop[:, ::-1] for crop in crops]
