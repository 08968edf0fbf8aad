"""The frames of the film of a sweep."""

from __future__ import annotations

import numpy as np

from vizapp.methods.occlusion.film import frames
from vizapp.methods.occlusion.occluder import positions
from vizapp.methods.occlusion.sweep import OcclusionParams, occluded


def test_a_frame_shows_the_square_and_the_maps_as_far_as_it_has_come() -> None:
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    where = positions((200, 200), (40, 40), 50)
    one, other = rng.integers(200, 256, (2, *where.shape, 3), dtype=np.uint8)
    params = OcclusionParams(window=40, stride=50, fill="black")
    film = frames(seen, params, where, [one, other])
    assert len(film) == where.shape[0] * where.shape[1] == 16
    for place, frame in enumerate(film):
        assert frame.shape == (200, 604, 3)
        row, column = divmod(place, 4)
        assert (frame[:, :200] == occluded(seen, params, where, row, column)).all()
        for pixels, left in ((one, 202), (other, 404)):
            for cell, (y, x) in enumerate(np.ndindex(4, 4)):
                expected = pixels[y, x] if cell <= place else (128, 128, 128)
                assert (frame[50 * y + 25, left + 50 * x + 25] == expected).all()


def test_a_long_sweep_is_thinned_out_and_keeps_its_ends() -> None:
    seen = np.arange(30 * 30 * 3, dtype=np.uint32).reshape(30, 30, 3).astype(np.uint8)
    where = positions((30, 30), (4, 4), 1)
    maps = [np.full((30, 30, 3), 200, np.uint8)]
    film = frames(seen, OcclusionParams(window=4, stride=1), where, maps, most=50)
    assert len(film) == 50
    assert film[0].shape == (7 * 30, 2 * 7 * 30 + 2, 3)  # enlarged
    assert (film[-1][:, 7 * 30 + 2 :] == 200).all()
    assert (film[0][7:, 7 * 30 + 9 :] == 128).all()
