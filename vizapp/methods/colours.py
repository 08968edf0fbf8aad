"""The cells of a layer as colours: their principal components, what is like a cell, and their parts."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, quoted, read_index
from vizapp.media.drawing import draw_box, lay_over, limits, sheet, veil
from vizapp.media.source import skipped_note, spread
from vizapp.media.stacks import shown_values
from vizapp.media.transforms import resize
from vizapp.methods.activations import OPACITY
from vizapp.methods.base import Job, Method, Panel, Question, Result
from vizapp.methods.cell_features import CellColours, cell_features, check_cells, colour_cells, default_site, likeness
from vizapp.methods.factorization import FEWEST, MOST, Factors, factorise, head_weights
from vizapp.methods.output import Output
from vizapp.methods.params import Params, knob
from vizapp.methods.tables import to_csv
from vizapp.zoo.network import Network

MOST_PHOTOS = 24
CLASSES = 5  # named for each part
_ACROSS = 6  # photos in a row of a panel


def read_cell(value: Any) -> tuple[int, ...]:
    """Row and column from a pair of whole numbers, or from a text such as "3,5"; nothing from None and an empty text.

    Raises:
        VizError: it is neither.
    """
    if value is None or (isinstance(value, (str, tuple, list)) and not value):
        return ()
    try:
        if isinstance(value, str):
            found = tuple(read_index(part.strip()) for part in value.split(","))
        else:
            found = tuple(operator.index(part) for part in value)
    except TypeError:
        found = ()
    if len(found) != 2 or None in found:
        raise VizError(f"cell is {quoted(value)}; it must be a row and a column, such as 3,5.", code="bad-value")
    return tuple(int(part) for part in found if part is not None)


@dataclass(frozen=True)
class ColourParams(Params):
    """Which cells are coloured, what is compared with them, and how many parts they have."""

    parts: int = knob(0, "Number of non-negative parts, 2 to 12; 0: none", low=0, high=MOST)
    cell: tuple[int, ...] = knob(
        (), "ROW,COLUMN of the photo: how like every other cell is to this one", read=read_cell
    )
    foreground: Literal["off", "positive", "negative"] = knob(
        "off", "Show only the cells whose first component is positive, or negative; the others are black"
    )
    seed: int = knob(0, "Random seed of the parts", low=0, high=2**31 - 1)


def colours(question: Question, params: ColourParams, job: Job) -> Result:
    """The cells of a layer in colours: cells that the network sees alike have like colours.

    Three principal components over the cells of the photo, or of the photo and evenly spaced photos of a folder together
    (24 in all at most), are red, green and blue. The layer is that of the unit; without one, the last with at least 12 cells
    a side.

    `arrays` (`[h w]` are of the photo; those with `photos` in front are there with a folder): `colours` uint8 `[h w 3]` or
    `[photos h w 3]`; `components` float32, as `colours`; `axes` `[3 C]`, `mean` `[C]` and `explained` `[3]`, shares of the
    variance; with `foreground` also `shown` bool, as `colours` without its last axis. With a cell: `similarity` float32
    `[h w]`, its cosine with every cell, and `photo_similarity` `[photos h w]`. With k parts: `factors` float32 `[k h w]`,
    `photo_factors` `[photos k h w]`, `vectors` `[k C]`; and where a linear head follows `factor_logits` `[k classes]`, the
    head's weights times the mean vector of each part, without a bias, and `factor_classes` `[k 5]`. `table`: a row per part.

    Raises:
        VizError: a layer without cells, no such cell, no readable photo, or activations that are not finite.
    """
    network = question.network
    site = default_site(network) if question.unit is None else network.site(question.unit.site)
    check_cells(network, site)
    if 0 < params.parts < FEWEST:
        raise VizError(
            f"parts is {params.parts}; it must be 0, or a whole number from {FEWEST} to {MOST}.", code="bad-value"
        )
    cell = _cell(question, params, site)
    crops, facts = _crops(question)
    features = cell_features(network, site, crops, lambda share: job.report(0.05 + 0.55 * share))
    coloured = colour_cells(features, lambda share: job.report(0.6 + 0.1 * share))
    facts = {"layer": f"{site.name} ({' × '.join(map(str, site.shape))})"} | facts | colour_facts(coloured, len(crops))
    if site.layout in ("tokens", "tokens-last"):
        special = site.prefix_tokens + site.suffix_tokens
        facts["tokens"] = f"The patch tokens are laid out as a map; special tokens left out: {special}."
    several, table = question.folder is not None, list[dict[str, Any]]()
    drawn = draw_colours(coloured, params.foreground)
    arrays = {"colours": drawn, "components": coloured.components}
    if params.foreground != "off":
        arrays["shown"] = coloured.shown(params.foreground)
        facts["foreground"] = foreground_fact(params.foreground, arrays["shown"])
    arrays = {name: values if several else values[0] for name, values in arrays.items()}
    arrays |= {"axes": coloured.axes, "mean": coloured.mean, "explained": coloured.explained}
    height, width = crops[0].shape[:2]
    panels = [Panel("photos" if several else "photo", _rows(list(map(shown_values, crops))))]
    panels.append(Panel("colours", _rows([resize(one, height, width, "nearest") for one in drawn])))
    if cell:
        found = likeness(features, 0, cell)
        arrays |= {"similarity": found[0]} | ({"photo_similarity": found} if several else {})
        facts["cell"] = cell_fact(features, cell, found)
        panels.append(Panel("similarity", _rows(over_photos(crops, found, cell)), facts["cell"]))
    if params.parts:
        parts = factorise(features, params.parts, params.seed, lambda share: job.report(0.7 + 0.25 * share))
        weight, reason = head_weights(network, site, crops[0])
        more, table = about_parts(network, parts, weight)
        arrays |= {"factors": parts.maps[0]} | ({"photo_factors": parts.maps} if several else {}) | more
        facts |= part_facts(parts, params.seed, reason)
        for number, row in enumerate(table):
            tiles = over_photos(crops, parts.maps[:, number])
            panels.append(Panel(f"part-{number + 1}", _rows(tiles), row.get("classes", "")))
    documents = {"table.csv": to_csv(table)} if table else {}
    return Result("colours", arrays, tuple(panels), facts, tuple(table), documents=documents)


def _cell(question: Question, params: ColourParams, site: Site) -> tuple[int, int] | None:
    """The cell of the parameters, or of the unit.

    Raises:
        VizError: the layer has no such cell, or they name two.
    """
    own = question.unit.cell if question.unit is not None else None
    if not params.cell:
        return own
    row, column = params.cell
    if own is not None and own != (row, column):
        raise VizError(
            f"The unit is at cell {own[0]},{own[1]}, and cell is {row},{column}; give one of them.",
            code="several-cells",
        )
    height, width = site.shape[1:]
    if not (0 <= row < height and 0 <= column < width):
        raise VizError(
            f"Layer {site.name!r} has cells 0,0 to {height - 1},{width - 1}, not {quoted(row)},{quoted(column)}.",
            code="no-such-cell",
        )
    return row, column


def _crops(question: Question) -> tuple[list[np.ndarray], dict[str, str]]:
    """What the network sees of the photo and of evenly spaced photos of the folder, and facts about them.

    Raises:
        VizError: none of them can be read.
    """
    network, folder = question.network, question.folder
    crops = [] if question.picture is None else [network.crop(question.picture)]
    names = [] if question.picture is None else [question.picture.name]
    facts, wrong = dict[str, str](), list[str]()
    if folder is not None:
        asked = spread(len(folder), MOST_PHOTOS - len(crops))
        for number, picture in folder.open_readable(asked, wrong):
            crops.append(network.crop(picture))
            names.append(folder.path(number))
        part = f"{len(asked)} of {len(folder):,}" if len(asked) < len(folder) else f"all {len(folder)}"
        facts["photos"] = f"{', '.join(names)} ({part} photos of {folder.name})"
        if wrong:
            facts["unreadable"] = skipped_note(wrong)
    if not crops:
        why = f" {wrong[0]}" if wrong else ""
        raise VizError(f"No photo of {folder.name if folder else 'the question'} can be read.{why}", code="no-photo")
    return crops, facts


def draw_colours(coloured: CellColours, foreground: str) -> np.ndarray:
    """The colours uint8 `[photos h w 3]`, black where a cell is not in the foreground."""
    return np.where(coloured.shown(foreground)[..., None], coloured.pixels, 0).astype(np.uint8)


def over_photos(crops: list[np.ndarray], maps: np.ndarray, cell: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Maps `[photos h w]` over the photos, on one scale; of a similarity the `cell` of the first photo is framed."""
    low, high = limits(maps) if cell is None else similarity_limits(maps, cell)
    drawn = [
        lay_over(shown_values(crop), veil(one, low, high), OPACITY, "nearest")
        for crop, one in zip(crops, maps, strict=True)
    ]
    if cell is not None:
        step = [side / count for side, count in zip(crops[0].shape[:2], maps.shape[1:], strict=True)] * 2
        box = [round(place * one) for place, one in zip((*cell, cell[0] + 1, cell[1] + 1), step, strict=True)]
        drawn[0] = draw_box(drawn[0], box, thickness=max(1, len(crops[0]) // 75))
    return drawn


def similarity_limits(maps: np.ndarray, cell: tuple[int, int]) -> tuple[float, float]:
    """The ends of the colours of similarities `[photos h w]`: those of all cells but the chosen one of the first photo."""
    others = maps.copy()
    others[0, cell[0], cell[1]] = np.nan
    return limits(others)


def _rows(tiles: list[np.ndarray]) -> np.ndarray:
    return sheet(tiles, _ACROSS, gap=2)


def colour_facts(coloured: CellColours, photos: int) -> dict[str, str]:
    """What the colours are of, and how much of the variance they show."""
    count = math.prod(coloured.components.shape[:3])
    over = f"{count:,} cell{'' if count == 1 else 's'} of "
    over += "the photo" if photos == 1 else f"{photos} photos together"
    facts = {
        "basis": f"Principal components over {over}; the largest loading of each is positive.",
        "explained": ", ".join(f"{100 * share:.1f} %" for share in coloured.explained)
        + " of the variance are in red, green and blue, each from its 1st to its 99th percentile over these cells.",
    }
    missing = int((coloured.explained == 0).sum())
    if missing == 3:
        facts["constant"] = "All cells are alike, so there is nothing to colour."
        del facts["explained"]
    elif missing:
        facts["constant"] = (
            f"The cells vary in {'1 direction' if missing == 2 else '2 directions'} only; the other colours stand still."
        )
    return facts


def foreground_fact(foreground: str, shown: np.ndarray) -> str:
    """Which cells are shown, and what decides it."""
    return (
        f"{100 * shown.mean():.0f} % of the cells: those whose first component is {foreground}, which all photos together "
        "decide. Its sign is arbitrary, so the object may be on the other side."
    )


def cell_fact(features: np.ndarray, cell: tuple[int, int], found: np.ndarray) -> str:
    """Which cell is compared, and the range of what was found."""
    row, column = cell
    if not features[0, row, column].any():
        return f"Cell {row},{column} is zero in every channel, so no cell is like it."
    return f"Cosine similarity with cell {row},{column}: from {found.min():.2f} to {found.max():.2f}."


def about_parts(
    network: Network, parts: Factors, weight: np.ndarray | None
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The vectors of the parts and their classes by the weights `[classes C]` of the head; and a row per part."""
    sums = parts.maps.sum((0, 2, 3), dtype=np.float64) * parts.vectors.sum(1, dtype=np.float64)
    shares = sums / (sums.sum() or 1)
    table: list[dict[str, Any]] = [{"part": n + 1, "share": float(share)} for n, share in enumerate(shares)]
    if weight is None:
        return {"vectors": parts.vectors}, table
    logits = parts.means() @ weight.T
    best = np.argsort(-logits, 1, kind="stable")[:, :CLASSES]
    for row, classes, values in zip(table, best, logits, strict=True):
        row["classes"] = ", ".join(f"{network.class_name(int(c))} ({values[c]:.3g})" for c in classes)
    return {"vectors": parts.vectors, "factor_logits": logits.astype(np.float32), "factor_classes": best}, table


def part_facts(parts: Factors, seed: int, reason: str) -> dict[str, str]:
    """How well the parts sum to the activations, and where their classes come from."""
    kept = 100 * (1 - parts.error**2)
    facts = {
        "parts": f"{len(parts.vectors)} non-negative parts, seed {seed}, with {kept:.1f} % of the squared activations."
    }
    if parts.negative:
        facts["rectified"] = f"{100 * parts.negative:.1f} % of the activations are negative and were taken as zero."
    unused = int((~parts.vectors.any(1)).sum())
    if unused:
        facts["unused"] = f"{unused} of the parts are zero: fewer are enough."
    facts["classes"] = reason or (
        "The head's weights times the mean vector of each part over all cells; a bias, the same for all parts, is left out."
    )
    return facts


METHOD = Method(
    "colours", "Colours", "Oquab et al. 2023, section 7; Collins et al. 2018", ColourParams, colours,
    optional_inputs=frozenset({"folder", "unit"}), memory_hint="a layer with fewer cells", shows=(Output("colours", "images"),),
)  # fmt: skip
