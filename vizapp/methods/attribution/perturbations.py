"""Maps from what the unit answers when parts of the photo are hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vizapp.engine.occlusion.sweep import Sweep
from vizapp.methods.attribution.kind import Kind
from vizapp.methods.attribution.masked import MaskedPasses
from vizapp.methods.attribution.request import Request, UnitOf
from vizapp.methods.occlusion.occluder import filling, per_pixel, positions

GRID = 7  # cells of a mask along each side
KEPT = 0.5  # probability that a cell is shown
MASKS = 1000  # where the user gives no number
_TOGETHER = 64  # masks that are summed at once: an even number, for pairs


class RandomMasks:
    """Masks `[H W]` with numbers from 0 to 1: grids of cells that are shown or hidden at random, resized and shifted at random.

    Each mask with an odd number shows what the one before it hides. So every pixel is shown equally often, and what the unit
    answers to all masks alike adds no noise to a map (antithetic sampling).

    `size`: height and width. All is drawn at the start, so that masks do not depend on how many are made at once.
    """

    def __init__(self, size: tuple[int, int], count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._size, pairs = size, math.ceil(count / 2)
        grids = (torch.rand(pairs, GRID, GRID, generator=generator) < KEPT).float()
        self._grids = torch.stack([grids, 1 - grids], 1).flatten(0, 1)
        cells = [math.ceil(side / GRID) for side in size]
        self._shifts = [torch.randint(cell, (pairs,), generator=generator).repeat_interleave(2) for cell in cells]
        one_by_one = torch.eye(GRID)[None]  # what each cell of a side gives, resized to one cell more
        self._resized = [
            nn.functional.interpolate(one_by_one, (GRID + 1) * cell, mode="linear")[0].T.contiguous() for cell in cells
        ]

    def of(self, numbers: Sequence[int] | Tensor) -> Tensor:
        """The masks of these numbers `[n H W]`."""
        which = torch.as_tensor(numbers)
        rows, columns = (
            resized[shifts[which][:, None] + torch.arange(side)]
            for resized, shifts, side in zip(self._resized, self._shifts, self._size, strict=True)
        )
        return rows @ self._grids[which] @ columns.mT


class Rise(Kind):
    """The mean activation of the unit over random masks, each weighted by how much of the pixel it shows."""

    perturbs = True
    key, title = "rise", "RISE"
    source = "Petsiuk et al. 2018, section 3"
    caution = (
        "Half-hidden photos look like nothing that the network was trained on, so a score may fall because of the mask itself "
        "(Hooker 2018). With few masks the map is noisy, and nothing smaller than a cell of the masks shows."
    )
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The sum over masks of activation times mask, divided by their number and by the share that is shown."""
        count = request.params.masks or MASKS
        masks = RandomMasks(request.size, count, request.params.seed)
        passes = MaskedPasses(request, lambda numbers: masks.of(numbers).to(request.batch.device), count)
        values = torch.cat([values for values, _ in passes.answers()]).double()
        total, of_pairs, squares = torch.zeros(3, *request.size, dtype=torch.float64, device=values.device)
        for numbers in torch.arange(count).split(_TOGETHER):
            shown = values[numbers, None, None] * masks.of(numbers).to(values) / KEPT
            total += shown.sum(0)
            pairs = shown[: len(shown) // 2 * 2].unflatten(0, (-1, 2)).mean(1)
            of_pairs += pairs.sum(0)
            squares += pairs.square().sum(0)
        found, count_of_pairs = total / count, max(1, count // 2)
        variance = (squares / count_of_pairs - (of_pairs / count_of_pairs).square()).clamp_min(0)
        error = (variance / max(1, count_of_pairs - 1)).sqrt()
        fill = request.network.preprocessing.zero_colour
        facts = {
            "note": f"{count} masks with {GRID} x {GRID} cells, hidden parts filled with {fill}. "
            f"The mean activation is {float(values.mean()):.4g}.",
            "error": f"Standard error of a pixel: {float(error.mean()):.2g} on average; the map spans "
            f"{float(found.min()):.4g} to {float(found.max()):.4g}.",
        }
        return found, facts | passes.facts


class OcclusionMap(Kind):
    """How much hiding a pixel lowers the unit: the mean over the grey squares that cover it."""

    perturbs = True
    key, title = "occlusion", "Occlusion"
    source = "Zeiler & Fergus 2013, section 4.2"
    caution = (
        "A square adds edges of its own and may hide several things at once; the network was not trained on such photos "
        "(Hooker 2018)."
    )
    signed = True

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The drop `[H W]`, from a sweep with a square of a seventh of the shorter side, in steps of half of that."""
        network, height_width = request.network, request.size
        side = max(1, round(min(height_width) / GRID))
        stride = max(1, side // 2)
        boxes = positions(height_width, (side, side), stride).boxes

        grey = network.batch([filling(network.preprocessing.values(request.batch), "grey")])
        where = [tuple(box) for box in boxes.reshape(-1, 4).tolist()]
        drops = np.zeros(len(where))
        with torch.no_grad():
            model = UnitOf(network.module, request.site, request.unit)
            sweep = Sweep(network.module, model, request.batch, grey, where, footprint=network.footprint)
            done = 0
            for answers in sweep.batches():
                lowered = sweep.clean_scores[0].double() - answers.scores[:, 0].double()
                drops[list(answers.positions)] = lowered.cpu().numpy()
                done += len(answers.positions)
                request.job.report(0.1 + 0.9 * done / len(where))
        facts = {"note": f"A grey square of {side} pixels at {len(where)} places, {stride} pixels apart."} | sweep.facts
        return torch.from_numpy(per_pixel(drops.reshape(boxes.shape[:2]), boxes, height_width)), facts
