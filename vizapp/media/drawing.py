"""Draw arrays as pictures: colour maps, contact sheets, overlays, boxes and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from vizapp.media.transforms import Method, resize

GREY = 128  # NaN, and zero in signed maps
# The palette of Okabe & Ito 2008, distinguishable with colour-vision deficiency, and three more colours.
COLOURS = np.array(
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167],
     [148, 103, 189], [140, 86, 75], [188, 189, 34]],
    np.uint8,
)  # fmt: skip


_SATURATED = 99.5  # percentile with full contrast
_MOST_OF, _SMALL = 0.85, 32  # of a projection: the share to show, and the side up to which it is shown whole
_RED_BLUE = np.array(
    [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [255, 255, 255], [253, 219, 199],
     [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]]
)  # fmt: skip


def to_png(pixels: np.ndarray) -> bytes:
    """A PNG file with exactly these pixels: uint8 `[H W 3]` RGB, `[H W 4]` with opacity, or `[H W]` grey."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1])
    _check(pixels, (2, 3))
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(".png", bgr)[1])


def to_jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    """A JPEG file of a picture uint8 `[H W 3]`, a tenth of the size of a PNG file: for many pictures at once."""
    _check(pixels, (3,))
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def limits(values: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest finite value; (0, 1) if there is none, and never equal."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Uint8 `[h w 3]` of numbers `[h w]`: dark to bright, perceptually uniform (matplotlib's "inferno").

    Values up to `low` are darkest, from `high` on brightest; by default the smallest and largest finite value. A constant
    map is dark, unless it lies above a given `low`. NaN is grey.
    """
    if values.ndim != 2:
        raise ValueError(f"heat takes [h w], not {list(values.shape)}")
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low = float(low if low is not None else finite.min(initial=np.inf))
    high = float(high if high is not None else finite.max(initial=-np.inf))
    # Without a range (constant values, none finite, equal limits) a number is either dark or bright.
    share = np.clip((numbers - low) / (high - low), 0, 1) if high > low else numbers > low
    level = np.rint(np.nan_to_num(share) * 255).astype(np.uint8)
    colours = _inferno()[level]
    colours[np.isnan(numbers)] = GREY
    return colours


def veil(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`heat` as uint8 `[h w 4]` whose opacity grows with the value, so that a photo below stays visible where it is low."""
    share = np.clip(
        (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1
    )
    opacity = np.where(np.isnan(values), GREY, np.rint(255 * share)).astype(np.uint8)
    return np.dstack([heat(values, low, high), opacity])


def signed(values: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Uint8 `[H W 3]` of signed numbers `[H W 3]` or `[H W]`: 0 is mid-grey 128, plus and minus `scale` are 255 and 1.

    `scale` is by default the largest finite magnitude. NaN is mid-grey. Of other numbers of channels `[H W C]` the mean of
    their magnitudes is drawn.
    """
    if values.ndim not in (2, 3):
        raise ValueError(f"signed takes [H W] or [H W C], not {list(values.shape)}")
    if values.shape[2:] not in ((), (3,)):
        values = np.abs(values).mean(2)
    grey = np.rint(GREY + 127 * np.nan_to_num(_divide_by_scale(values, scale))).astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[:, :, None], 3, axis=2)


def contrast_limit(values: np.ndarray) -> float:
    """The magnitude for full contrast: the 99.5th percentile of those that are finite and not 0 (0 if there are none), because
    a few pixels are often far above all others."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(sizes, _SATURATED)) if sizes.size else 0.0


def contrasted(values: np.ndarray) -> np.ndarray:
    """`signed` with full contrast from `contrast_limit` on, as projections are drawn."""
    return signed(values, contrast_limit(values))


def busiest(values: np.ndarray, side: int) -> tuple[int, int, int, int]:
    """The square (top, left, bottom, right) of that side in which signed `[H W 3]` have most of their magnitude."""
    sums = np.pad(np.abs(np.nan_to_num(values)).sum(2), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return int(top), int(left), int(top) + side, int(left) + side


def narrow(values: Sequence[np.ndarray]) -> list[tuple[int, int, int, int]]:
    """Squares of one size that show projections, each `[H W 3]` of one shape, without their empty surroundings.

    Each square has at least 85 % of the magnitude of its projection. It is the whole where that needs more than half of the
    shorter side, and where the whole has 32 pixels or fewer.
    """
    height, width = values[0].shape[:2]
    short = min(height, width)
    for side in (short // 4, short // 3, short // 2) if short > _SMALL else ():
        boxes = [busiest(one, side) for one in values]
        sizes = [(np.abs(np.nan_to_num(one)), box) for one, box in zip(values, boxes, strict=True)]
        if all(size[box[0] : box[2], box[1] : box[3]].sum() >= _MOST_OF * size.sum() for size, box in sizes):
            return boxes
    return [(0, 0, height, width)] * len(values)


def diverging(values: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Uint8 `[h w 3]` of signed numbers `[h w]`: 0 is white, minus `scale` blue, plus `scale` red (ColorBrewer's RdBu).

    `scale` is by default the largest finite magnitude. NaN is mid-grey.
    """
    if values.ndim != 2:
        raise ValueError(f"diverging takes [h w], not {list(values.shape)}")
    share = _divide_by_scale(values, scale)
    places = np.linspace(-1, 1, len(_RED_BLUE))
    colours = np.stack([np.interp(share, places, channel) for channel in _RED_BLUE.T], -1)
    colours[np.isnan(share)] = GREY
    return np.rint(colours).astype(np.uint8)


def tint(values: np.ndarray, scale: float) -> np.ndarray:
    """Uint8 `[h w 4]` of signed numbers `[h w]`, to lay over a photo: red above 0, blue below, the more opaque the larger.

    Full opacity is at plus and minus `scale`; 0 and NaN are transparent.
    """
    share = np.nan_to_num(_divide_by_scale(values, scale))
    colours = np.where(share[..., None] > 0, _RED_BLUE[-2], _RED_BLUE[1])
    return np.concatenate([colours, 255 * np.abs(share[..., None]) ** 0.7], -1).round().astype(np.uint8)


def _divide_by_scale(values: np.ndarray, scale: float | None) -> np.ndarray:
    """The values clipped to ±`scale` and divided by it; default is the largest finite magnitude. NaN stays NaN."""
    numbers = values.astype(np.float64)
    if scale is None:
        scale = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0))
    return np.clip(numbers, -scale, scale) / scale if scale > 0 else np.where(np.isnan(numbers), np.nan, 0.0)


def sheet(
    tiles: Sequence[np.ndarray], columns: int, gap: int = 1, background: int = 255, enlarge: int = 1
) -> np.ndarray:
    """A contact sheet, uint8 `[H W 3]`, filled row by row from the top left.

    Args:
        tiles: uint8 `[h w 3]` each; smaller tiles are centred in their cell.
        columns: tiles per row.
        gap: pixels between tiles.
        background: grey level of the gaps and of unused cells.
        enlarge: each pixel of a tile becomes `enlarge` × `enlarge` pixels.
    """
    if not tiles or columns < 1 or enlarge < 1 or gap < 0:
        raise ValueError(f"a sheet of {len(tiles)} tiles in {columns} columns, {enlarge} times, gap {gap}")
    for tile in tiles:
        _check(tile, (3,))
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    tall, wide = (enlarge * max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    whole = np.full((rows * (tall + gap) - gap, columns * (wide + gap) - gap, 3), background, np.uint8)
    for place, tile in enumerate(tiles):
        large = tile.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        top = place // columns * (tall + gap) + (tall - large.shape[0]) // 2
        left = place % columns * (wide + gap) + (wide - large.shape[1]) // 2
        whole[top : top + large.shape[0], left : left + large.shape[1]] = large
    return whole


def boxes(
    heights: Sequence[float],
    widths: Sequence[float],
    colours: Sequence[Sequence[int]],
    size: tuple[int, int],
    middle: bool,
) -> np.ndarray:
    """Boxes beside each other on white, uint8 `[H W 3]`, with gaps where there is room.

    Args:
        heights: Of each, from 0 to 1, which is the whole height; a box is at least a pixel high.
        widths: Their proportions.
        colours: RGB of each.
        size: Height and width of the picture.
        middle: Whether they are in the middle of the height, instead of on the ground.
    """
    picture = np.full((*size, 3), 255, np.uint8)
    ends = np.rint(np.cumsum([0.0, *widths]) / max(sum(widths), 1e-9) * size[1]).astype(int)
    for height, left, right, colour in zip(heights, ends[:-1], ends[1:], colours, strict=True):
        tall = max(1, round(min(height, 1.0) * size[0]))
        top = (size[0] - tall) // (2 if middle else 1)
        picture[top : top + tall, left : max(right - 1, left + 1)] = colour
    return picture


def overlay(photo: np.ndarray, heat: np.ndarray, opacity: float = 0.5, method: Method = "bilinear") -> np.ndarray:
    """The photo, uint8 `[H W 3]`, under a map, uint8 `[h w 3]`, resized to it; `opacity` of the map from 0 to 1."""
    _check(photo, (3,))
    _check(heat, (3,))
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity} is not from 0 to 1")
    over = resize(heat, photo.shape[0], photo.shape[1], method)
    return cv2.addWeighted(photo, 1 - opacity, over, opacity, 0).astype(np.uint8, copy=False)


def lay_over(photo: np.ndarray, veiled: np.ndarray, opacity: float, method: Method = "bilinear") -> np.ndarray:
    """The photo, uint8 `[H W 3]`, under a map with an opacity of its own (`veil`), uint8 `[h w 4]`, resized to it."""
    _check(photo, (3,))
    over = resize(veiled, photo.shape[0], photo.shape[1], method).astype(np.float32)
    share = opacity / 255 * over[..., 3:]
    return np.rint(photo + share * (over[..., :3] - photo)).astype(np.uint8)


def paste(photo: np.ndarray, colours: np.ndarray, box: tuple[int, int, int, int], opacity: float = 0.5) -> np.ndarray:
    """The photo, uint8 `[H W 3]`, with a map, uint8 `[h w 3]`, over its region `box` = (top, left, bottom, right)."""
    top, left, bottom, right = box
    drawn = photo.copy()
    inside = drawn[max(top, 0) : bottom, max(left, 0) : right]
    if inside.size:
        whole = resize(colours, max(1, bottom - top), max(1, right - left), "nearest")
        y, x = max(-top, 0), max(-left, 0)
        inside[:] = overlay(
            inside, np.ascontiguousarray(whole[y : y + inside.shape[0], x : x + inside.shape[1]]), opacity, "nearest"
        )
    return drawn


def categorical(numbers: np.ndarray, count: int) -> np.ndarray:
    """Uint8 `[h w 3]` of whole numbers `[h w]`: one colour for each of 0 … `count` - 1 (at most ten), grey for the rest."""
    table = np.full((max(count, int(numbers.max(initial=0))) + 1, 3), GREY, np.uint8)
    table[: min(count, len(COLOURS))] = COLOURS[:count]
    return table[numbers]


def draw_box(
    pixels: np.ndarray, box: Sequence[int], colour: tuple[int, int, int] = (255, 96, 0), thickness: int = 2
) -> np.ndarray:
    """A copy of uint8 `[H W 3]` with a frame on the inner edge of `box` = (top, left, bottom, right).

    Bottom and right are exclusive, as in slices. Boxes are clipped to the picture; one that is entirely outside is not
    drawn.
    """
    _check(pixels, (3,))
    if thickness < 1:
        raise ValueError(f"a frame is at least 1 pixel thick, not {thickness}")
    height, width = pixels.shape[:2]
    top, left = max(int(box[0]), 0), max(int(box[1]), 0)
    bottom, right = min(int(box[2]), height), min(int(box[3]), width)
    drawn = pixels.copy()
    if top >= bottom or left >= right:
        return drawn
    inside = drawn[top:bottom, left:right]
    kept = inside[thickness:-thickness, thickness:-thickness].copy()
    inside[:] = colour
    inside[thickness:-thickness, thickness:-thickness] = kept
    return drawn


def exceeds(box: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether the box is taller or wider than a picture of that shape, `(H, W, …)`."""
    top, left, bottom, right = box
    return bottom - top > shape[0] or right - left > shape[1]


def crop_box(values: np.ndarray, box: Sequence[int], outside: float = GREY) -> np.ndarray:
    """The box's crop of `[H W …]` of any type, filled with `outside` beyond the border.

    If the box is larger than the picture, the whole picture is returned.
    """
    if exceeds(box, values.shape):
        return values
    top, left, bottom, right = box
    patch = np.full((bottom - top, right - left, *values.shape[2:]), outside, values.dtype)
    inside = values[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    row, column = max(-top, 0), max(-left, 0)
    patch[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return patch


@cache
def _inferno() -> np.ndarray:
    """The 256 colours of the map, uint8 `[256 3]` RGB."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    table = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[:, 0]
    table.setflags(write=False)
    return table


def _check(pixels: np.ndarray, dimensions: tuple[int, ...]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim not in dimensions or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"pixels are uint8 [H W 3], not {pixels.dtype} {list(pixels.shape)}")
