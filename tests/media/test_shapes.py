"""Drawn photos of shapes are what they say they show."""

from __future__ import annotations

import numpy as np
import pytest

from vizapp.media.bundled import open_samples, open_shapes
from vizapp.media.samples import open_sample, sample_kind, sample_names
from vizapp.media.shapes import MORE_SHAPES, SHAPES, draw_shapes
from vizapp.media.sources import open_folder

AREAS = {  # of a shape in the unit circle, by elementary geometry
    "square": 1.5**2, "disc": np.pi * 0.9**2, "triangle": 0.75 * 3**0.5, "ring": np.pi * (0.95**2 - 0.49**2),
    "cross": 2 * 1.9 * 0.6 - 0.6**2, "flower": np.pi * (0.65**2 + 0.3**2 / 2), "bar": 1.9 * 0.5,
}  # fmt: skip


def test_a_seed_gives_one_photo_and_another_seed_another() -> None:
    one, again, other = draw_shapes(5), draw_shapes(5), draw_shapes(6)
    assert (one.pixels == again.pixels).all()
    assert (one.labels == again.labels).all()
    assert (one.pixels != other.pixels).any()


@pytest.mark.parametrize("name", AREAS)
def test_a_shape_covers_the_area_that_geometry_gives_it(name: str) -> None:
    """The radius that follows from the area is in the range from which radii are drawn."""
    shapes = (*SHAPES, *MORE_SHAPES)
    ratios = []
    for seed in range(40):
        drawn = draw_shapes(seed, 192, 1, shapes, shapes.index(name))
        x1, y1, x2, y2 = drawn.boxes[0]
        if min(x1, y1) == 0 or max(x2, y2) == 192:
            continue  # it may go on outside of the photo
        area = (drawn.labels > 0).sum()
        ratios.append(np.sqrt(area / AREAS[name]) / 192)
    assert len(ratios) > 5
    assert min(ratios) > 0.105
    assert max(ratios) < 0.265  # radii are drawn from 0.11 to 0.26


def test_boxes_bound_what_can_be_seen_of_each_shape() -> None:
    for seed in range(40):
        drawn = draw_shapes(seed)
        assert len(drawn.boxes) == len(drawn.kinds)
        inside = np.zeros(drawn.labels.shape, bool)
        for (x1, y1, x2, y2), kind in zip(drawn.boxes.astype(int), drawn.kinds, strict=True):
            part = drawn.labels[y1:y2, x1:x2] == kind + 1
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            inside[y1:y2, x1:x2] = True
        assert ((drawn.labels > 0) & ~inside).sum() < 40  # slivers of shapes that others hide have no box


def test_a_shape_can_be_told_from_the_ground() -> None:
    for seed in range(30):
        drawn = draw_shapes(seed, most=1)
        shape, ground = (drawn.pixels[drawn.labels == label].mean(0) for label in (drawn.labels.max(), 0))
        assert np.abs(shape - ground).max() > 0.2 * 255


def test_a_larger_photo_shows_the_same_arrangement() -> None:
    small, large = draw_shapes(8, 96), draw_shapes(8, 288)
    assert (small.kinds == large.kinds).all()
    assert np.abs(3 * small.boxes - large.boxes).max() <= 3
    assert (small.labels == large.labels[1::3, 1::3]).mean() > 0.995


def test_samples_of_shapes_stand_behind_the_photos_and_digits() -> None:
    names = sample_names()
    assert [name for name in names if sample_kind(name) == "shapes"] == [f"shapes {number}" for number in range(1, 9)]
    assert all(sample_kind(name) == "shapes" for name in names[-8:])
    assert open_sample("shapes 1").pixels.shape == (288, 288, 3)
    assert not any(path.startswith(("shapes", "digit")) for path in open_folder("samples").classes)


def test_the_collection_of_shapes_has_ten_photos_of_each() -> None:
    source = open_folder("shapes")
    assert source.classes == (*SHAPES, *MORE_SHAPES)
    assert len(source) == 80
    assert [source.labels.count(name) for name in source.classes] == [10] * 8
    assert source.path(11) == "disc/01.png"
    first = source.open(11)
    assert first.label == "disc"
    assert first.pixels.shape == (96, 96, 3)
    assert (open_shapes().open(11).pixels == first.pixels).all()


def test_whole_samples_are_the_photos_among_the_samples() -> None:
    source = open_samples()
    assert [source.path(number) for number in range(len(source))] == [
        n for n in sample_names() if sample_kind(n) == "photo"
    ]
    assert all(source.stamp(number) for number in range(len(source)))
