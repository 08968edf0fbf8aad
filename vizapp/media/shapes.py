"""Synthetic photos of shapes on patterned ground, whose label maps and boxes are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 96  # pixels, of the pictures that the networks of shapes are trained on
SHAPES = ("square", "disc", "triangle", "ring")  # the classes of the bundled segmenter and detector
MORE_SHAPES = ("cross", "flower", "half disc", "bar")  # further ones for the embedding


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    slanted = math.sqrt(3) / 2 * np.abs(x) - y / 2
    return np.maximum(slanted, y) - 0.5


# Signed distances, negative inside, of shapes in the unit circle, at x to the right and y down.
_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "triangle": _triangle,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.72) - 0.23,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95)),
    "flower": lambda x, y: np.hypot(x, y) - 0.65 - 0.3 * np.cos(5 * np.arctan2(y, x)),
    "half disc": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, y - 0.1),
    "bar": lambda x, y: _box(x, y, 0.95, 0.25),
}


@dataclass(frozen=True, eq=False)
class ShapesPhoto:
    """A synthetic photo and what is in it.

    `pixels`: uint8 `[H W 3]`. `labels`: uint8 `[H W]`, 0 for the ground, else 1 + the index of the uppermost shape.
    `boxes`: float64 `[n 4]`, x1 y1 x2 y2 in pixels of what can be seen of each shape. `kinds`: `[n]`, the indices of these.
    """

    pixels: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    kinds: np.ndarray


def draw_shapes(
    seed: int, side: int = SIDE, most: int = 4, shapes: tuple[str, ...] = SHAPES, kind: int | None = None
) -> ShapesPhoto:
    """A photo of 1 to `most` shapes of random size, angle, colour and pattern. The same seed gives the same photo.

    Args:
        seed: Of all that is random.
        side: Pixels of its sides. The arrangement does not depend on it.
        most: The largest number of shapes; later ones may hide parts of earlier ones.
        shapes: The names of the shapes to draw from.
        kind: The index of the only shape to draw from.
    """
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side + 0.5 / side  # 0 to 1
    ground = dice.uniform(0.1, 0.9, 3)
    pixels = _pattern(dice, x, y, ground)
    owner = np.full((side, side), -1)
    kinds = []
    for _ in range(int(dice.integers(1, most + 1))):
        kinds.append(int(dice.integers(len(shapes))) if kind is None else kind)
        radius, angle = dice.uniform(0.11, 0.26), dice.uniform(0, 2 * math.pi)
        left, top = dice.uniform(0.6 * radius, 1 - 0.6 * radius, 2)
        along, across = (x - left) / radius, (y - top) / radius
        turned = (
            along * math.cos(angle) + across * math.sin(angle),
            across * math.cos(angle) - along * math.sin(angle),
        )
        distance = _DISTANCES[shapes[kinds[-1]]](*turned) * radius * side
        colour = dice.uniform(0, 1, 3)
        while np.abs(colour - ground).max() < 0.35:  # else it could not be told from the ground
            colour = dice.uniform(0, 1, 3)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        pixels = cover * _pattern(dice, x, y, colour) + (1 - cover) * pixels
        owner[distance < 0] = len(kinds) - 1
    pixels = pixels + dice.normal(0, dice.uniform(0, 0.04), pixels.shape)
    seen = [number for number in range(len(kinds)) if (owner == number).sum() >= (0.06 * side) ** 2]
    return ShapesPhoto(
        np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8),
        np.append(1 + np.array(kinds), 0)[owner].astype(np.uint8),
        np.array([_bounds(owner == number) for number in seen], np.float64).reshape(-1, 4),
        np.array([kinds[number] for number in seen], np.int64),
    )


def _pattern(dice: np.random.Generator, x: np.ndarray, y: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """A colour `[3]` modulated by three random waves: `[H W 3]`."""
    found = np.broadcast_to(colour, (*x.shape, 3)).copy()
    for _ in range(3):
        angle, waves = dice.uniform(0, 2 * math.pi), dice.uniform(1, 14)
        wave = np.sin(2 * math.pi * waves * (x * math.cos(angle) + y * math.sin(angle)) + dice.uniform(0, 2 * math.pi))
        found += wave[..., None] * dice.uniform(-0.07, 0.07, 3)
    return found


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box around a mask: x1 y1 x2 y2."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
