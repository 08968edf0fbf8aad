"""Parts of values are the window on the clean map, for any geometry: against a slow paste of one occluder after the other."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vizapp.engine.occlusion.cell_index import Occluders
from vizapp.engine.occlusion.incremental_plan import CleanMaps, DirtyRegion, IncrementalPlan, Pads

KINDS = {(2, 3): (5,), (1, 2): (5,), (3, 4): (2, 3)}  # axes of the cells, and the shape of one


def starts(data, count: int, least: int, most: int) -> tuple[int, ...]:
    return tuple(data.draw(st.lists(st.integers(least, most), min_size=count, max_size=count)))


def direction(data, length: int, before: int, after: int) -> tuple[int, tuple[int, ...], int, tuple[int, ...]]:
    """Along rows or columns: size and starts of the windows, size of the parts and their starts on the padded map."""
    count, window = data.draw(st.integers(1, 3)), data.draw(st.integers(1, length))
    begins = starts(data, count, 0, length - window)
    whole = before + length + after
    if data.draw(st.booleans()):  # all windows at the same cell of their parts
        first, last = min(begins) + before, max(begins) + before
        offset = data.draw(st.integers(last - whole + 1, first))
        part = data.draw(st.integers(1, whole - (last - offset)))
        return window, begins, part, tuple(begin + before - offset for begin in begins)
    part = data.draw(st.integers(1, whole))
    return window, begins, part, starts(data, count, 0, whole - part)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(KINDS)), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_a_part_is_the_window_on_the_clean_map(
    data, axes: tuple[int, int], height: int, width: int, pictures: int
) -> None:
    left, right, top, bottom = pads = data.draw(st.tuples(*[st.integers(0, 2)] * 4)) if axes == (2, 3) else (0, 0, 0, 0)
    h, tops, rows, part_tops = direction(data, height, top, bottom)
    w, lefts, columns, part_lefts = direction(data, width, left, right)
    noise, fill = np.random.default_rng(0), 7.0
    clean = noise.standard_normal((pictures, height, width, *KINDS[axes]))
    count = data.draw(st.integers(1, 6))
    chosen = Occluders(*(np.array(starts(data, count, 0, most - 1)) for most in (len(tops), len(lefts), pictures)))
    windows = noise.standard_normal((count, h, w, *KINDS[axes]))

    region = DirtyRegion(axes, (height, width), (h, w), tops, lefts)
    found = part_of(region, clean, windows, chosen, (part_tops, part_lefts, (rows, columns), pads, fill))

    around = [(0, 0), (top, bottom), (left, right), *[(0, 0)] * len(KINDS[axes])]
    for n, (r, c, p) in enumerate(zip(chosen.rows, chosen.columns, chosen.pictures, strict=True)):
        whole = np.pad(clean, around, constant_values=fill)[p]
        y, x = tops[r] + top, lefts[c] + left
        whole[y : y + h, x : x + w] = windows[n]
        y, x = part_tops[r], part_lefts[c]
        np.testing.assert_array_equal(found[n], whole[y : y + rows, x : x + columns])


def part_of(
    region: DirtyRegion, clean: np.ndarray, windows: np.ndarray, chosen: Occluders,
    part: tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], Pads, float],
) -> np.ndarray:  # fmt: skip
    """What a plan gives, with the cells' axes first."""
    maps = torch.from_numpy(clean).movedim((1, 2), region.axes)
    plan = IncrementalPlan(
        [],
        [(1, *maps.shape[1:])],
        range(len(region.tops)),
        range(len(region.lefts)),
        regions={0: region},
    )
    get = plan.block(0, *part)
    state = plan.begin(chosen, CleanMaps({0: maps}), maps.device)
    state.values[0] = torch.from_numpy(windows).movedim((1, 2), region.axes)
    return get(state).movedim(region.axes, (1, 2)).numpy()
