"""Small drawings of what each page does, in the colours of its maps, for the explanations."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np

from vizapp.media.drawing import COLOURS, diverging, heat, signed, veil

_INK = {"light": "#22262b", "dark": "#e4e5e3"}
_ACCENT, _GREY, _FLAT = "#c8410b", "#a3a8ae", 'stroke="none"'
_WIDTH, _HEIGHT, _SIDE, _TOP = 360, 116, 78, 8  # pixels
_BUMP = np.exp(
    -((np.mgrid[-1:1:7j, -1:1:7j] - np.array([0.2, -0.1])[:, None, None]) ** 2).sum(0) * 3
)  # where something is


def schematic(page: str, theme: str) -> str:
    """HTML of the drawing of a page, as an image; of a method without one, a photo and its map.

    `theme`: "light" or "dark".
    """
    ink = _INK.get(theme, _INK["light"])
    words, body = _DRAWINGS.get(page, _map_of_method)()
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" fill="none" stroke="{ink}" '
        f'font-family="sans-serif" font-size="11.5" stroke-width="1.3">{body}</svg>'
    )
    source = base64.b64encode(svg.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{source}" alt="{words}" style="width: 100%; max-width: {_WIDTH}px">'


def _box(x: float, y: float, width: float, height: float, fill: str = "none", more: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" {more}/>'


def _rgb(colour: np.ndarray) -> str:
    return f"rgb({','.join(map(str, colour.tolist()))})"


def _text(x: float, words: str, y: float = 106, anchor: str = "middle") -> str:
    # Mid-grey letters are legible on white and on black.
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" stroke="none" fill="#7f858c">{words}</text>'


def _arrow(x: float, length: float = 26, y: float = _TOP + _SIDE / 2) -> str:
    return f'<path d="M{x} {y}h{length}m-6 -5l6 5l-6 5"/>'


def _photo(x: float, side: float = _SIDE, y: float = _TOP) -> str:
    """The head of a cat in a frame."""
    head = '<path d="M24 40l-4 -18l14 8q6 -2 12 0l14 -8l-4 18q2 22 -16 24q-18 -2 -16 -24z" fill="#c99a86" stroke-width="1"/>'
    eyes = '<path d="M32 42h4M44 42h4M38 52h4" stroke-width="2.4"/>'
    return f'<g transform="translate({x} {y}) scale({side / 80})">{_box(0, 0, 80, 80, "#7d9cc044")}{head}{eyes}</g>'


def _map(x: float, pixels: np.ndarray, side: float = _SIDE, y: float = _TOP, high: float = 0) -> str:
    """Colours, uint8 `[h w 3]`, or `[h w 4]` with opacity, as cells, which are square or `high` high."""
    step = side / max(pixels.shape[:2])
    return "".join(
        _box(
            x + column * step,
            y + row * step,
            step,
            high or step,
            _rgb(colour[:3]),
            f'{_FLAT} fill-opacity="{_opacity(colour):.2f}"',
        )
        for row, line in enumerate(pixels)
        for column, colour in enumerate(line)
    )


def _opacity(colour: np.ndarray) -> float:
    return float(colour[3]) / 255 if len(colour) == 4 else 1.0


def _ramp(x: float, pixels: np.ndarray, low: str, high: str) -> str:
    """A scale of colours, uint8 `[1 n 3]`, with the words at its ends."""
    cells = _map(x, pixels, 4 * pixels.shape[1], 54, 9)
    return cells + _text(x, low, 80, "start") + _text(x + 4 * pixels.shape[1], high, 46, "end")


def _words(**places: int) -> str:
    """Words below a drawing, by their middle."""
    return "".join(_text(x, words.replace("_", " ")) for words, x in places.items())


def _unit(x: float) -> str:
    return f'<circle cx="{x}" cy="47" r="11" fill="{_ACCENT}" stroke="none"/>'


def _start() -> tuple[str, str]:
    cards = "".join(_box(130 + 56 * n, y, 46, 34, more='rx="4"') for n in range(4) for y in (8, 52))
    return "One photo, and a card for each question", _photo(20) + _arrow(102, 20) + cards + _words(
        one_photo=59, many_questions=237
    )


def _predict() -> tuple[str, str]:
    bars = ((150, _ACCENT), (60, _GREY), (24, _GREY))
    drawn = "".join(_box(150, 14 + 24 * n, width, 12, colour, _FLAT) for n, (width, colour) in enumerate(bars))
    frame = _box(28, 16, 62, 62, more=f'stroke="{_ACCENT}" stroke-width="2.5"')
    words = _words(crop_in_the_frame=59, probability_of_each_class=225)
    return "A framed crop of the photo, and bars of probability", _photo(20) + frame + _arrow(108) + drawn + words


def _feature_maps() -> tuple[str, str]:
    fine = np.kron(_BUMP, np.ones((2, 2))) * (1 + 0.5 * np.sin(np.arange(14) * 2))[None]
    maps = "".join(_map(132 + 72 * n, heat(one), 60, 16) for n, one in enumerate((fine, _BUMP, _BUMP[1::2, 1::2])))
    words = _words(photo=59, early=162, late=306) + _text(234, "bright = strong", 92)
    return "The photo, and maps of early and late layers", _photo(20) + _arrow(102, 20) + maps + words


def _projection() -> tuple[str, str]:
    waves = np.sin(np.mgrid[0:14, 0:14].sum(0) * 1.1) * np.kron(_BUMP, np.ones((2, 2)))
    way = _photo(20) + _arrow(108, 40) + _unit(170) + _arrow(192, 40) + _map(244, signed(waves))
    return "From the photo to a unit, and back to the pixels", way + _words(photo=59, unit=170) + _text(
        283, "mid-grey = zero"
    )


def _gallery() -> tuple[str, str]:
    nine = "".join(_photo(150 + 28 * (n % 3), 24, 8 + 27 * (n // 3)) for n in range(9))
    words = _words(one_unit=50, its_nine_strongest_patches=192)
    return "A unit, and the nine patches that excite it most", _unit(50) + _arrow(84, 44) + nine + words


def _occlusion() -> tuple[str, str]:
    change = np.where(_BUMP > 0.12, _BUMP, 0)
    change[5:, :2] = -0.4
    square = _box(42, 34, 24, 24, "#808080", _FLAT)
    frame = _box(142, _TOP, _SIDE, _SIDE)
    ramp = _ramp(250, diverging(np.linspace(-1, 1, 24)[None]), "hiding helps", "hiding hurts")
    drawn = _photo(20) + square + _arrow(106, 24) + _map(142, diverging(change, 1)) + frame + ramp
    return "A square on the photo, and a map: red where hiding hurts, blue where it helps", drawn + _words(
        a_square_slides=59, map=181
    )


def _correspondence() -> tuple[str, str]:
    photos = "".join(
        _photo(20 + 72 * n, 60, 16) + _box(42 + 72 * n + shift, 46, 18, 14, "#808080", _FLAT)
        for n, shift in enumerate((0, 2, -2))
    )
    lines = f'<path d="M256 62l40 -4l40 -18" stroke="{_ACCENT}" stroke-width="2.5"/><path d="M256 22l40 -4l40 -6"/>'
    words = _words(the_same_part_hidden=122, alike_by_layer=296)
    return "Three photos with the same part hidden, and how alike each layer changes", photos + lines + words


def _neighbours() -> tuple[str, str]:
    near = "".join(_photo(142 + 34 * n, 30, 33) for n in range(3))
    places = (
        (272, 30, 0),
        (284, 22, 0),
        (290, 36, 0),
        (330, 64, 1),
        (342, 56, 1),
        (322, 74, 1),
        (338, 28, 2),
        (350, 20, 2),
    )
    points = "".join(f'<circle cx="{x}" cy="{y}" r="4" fill="{_rgb(COLOURS[n])}" {_FLAT}/>' for x, y, n in places)
    words = _words(photo=59, the_nearest=191, all_as_points=312)
    return "The photo, the three nearest photos, and all photos as points", _photo(20) + _arrow(
        108, 26
    ) + near + points + words


def _colours() -> tuple[str, str]:
    down, across = np.mgrid[0:1:7j, 0:1:7j]
    cells = np.dstack([255 * _BUMP, 200 * across, 90 + 120 * down]).clip(0, 255).astype(np.uint8)
    drawn = (
        _photo(20) + _arrow(106, 24) + _map(142, cells) + _arrow(228, 24) + _photo(264) + _map(264, veil(_BUMP, 0, 1))
    )
    words = _words(photo=59, cells_as_colours=181, like_one_cell=303)
    return "The photo, its cells as colours, and what is like one of them", drawn + words


def _dense() -> tuple[str, str]:
    labels = COLOURS[np.where(_BUMP > 0.35, 0, np.where(np.arange(7)[:, None] > 4, 2, 1))]
    drawn = _photo(20) + _arrow(106, 24) + _map(142, labels)
    for n in range(3):
        drawn += _box(24 + 18 * n, 14 + 9 * n, 34, 34, more=f'stroke="{_ACCENT}"')
        drawn += _box(250, 26 + 22 * n, 11, 11, _rgb(COLOURS[n]), _FLAT) + _text(
            270, f"class {'ABC'[n]}", 36 + 22 * n, "start"
        )
    return "Crops of the photo, and the class of each as a colour", drawn + _words(every_crop=59, its_class=181)


def _transform() -> tuple[str, str]:
    turned = f'<g transform="rotate(-35 181 47)">{_photo(153, 56, 19)}</g>'
    curves = (
        f'<path d="M262 12v70h84" stroke="{_GREY}"/><path d="M262 82C266 30 276 28 346 26" stroke="{_ACCENT}"/>'
        '<path d="M262 82C296 80 320 62 346 46"/>'
    )
    words = _words(photo=59, turned=181, early_and_late_layer=290)
    return "The photo, turned, and how far two layers move", _photo(20) + _arrow(108, 26) + turned + curves + words


def _evaluate() -> tuple[str, str]:
    photos = "".join(_photo(20 + 8 * n, 62, 8 + 8 * n) for n in range(3))
    matrix = _map(142, heat(np.eye(6) + 0.4 * np.eye(6, k=2) + 0.1))
    curve = f'<path d="M250 8v78h90"/><path d="M250 86L334 8" stroke="{_GREY}"/>'
    steps = f'<path d="M252 82L276 72L300 58L330 34" stroke="{_ACCENT}" stroke-width="2.4"/>'
    words = _words(labelled_photos=62, confusions=181, reliability=292)
    return "Photos, a matrix of confusions, and a curve below a diagonal", photos + matrix + curve + steps + words


def _filters() -> tuple[str, str]:
    y, x = np.mgrid[-1:1:7j, -1:1:7j]
    kernels = [signed(np.sin(4 * (x * np.cos(a) + y * np.sin(a)))) for a in np.linspace(0, np.pi, 4, endpoint=False)]
    drawn = "".join(_map(20 + 84 * n, kernel, 66, 14) for n, kernel in enumerate(kernels))
    return "Four kernels: stripes of four directions", drawn + _text(180, "each looks for one pattern; mid-grey = zero")


def _compare() -> tuple[str, str]:
    two = _map(150, heat(_BUMP), 60, 18) + _map(240, heat(np.roll(_BUMP, 2, 1)), 60, 18)
    words = _words(same_photo=59, network_1=180, network_2=270)
    return "The same photo in two networks, with a map of each", _photo(20) + _arrow(108, 26) + two + words


def _architecture() -> tuple[str, str]:
    layers = {76: "#7d9cc0", 70: "#d9c48a", 54: "#7d9cc0", 40: "#8fb59a", 28: "#7d9cc0", 14: "#a99bc4"}
    blocks = [
        _box(30 + 52 * n, 47 - high / 2, 26, high, layers[high], f'{_FLAT} rx="3"') for n, high in enumerate(layers)
    ]
    words = _text(180, "height: size of the map; colour: kind of layer")
    return "Layers as blocks that get smaller", f'<path d="M20 47h320"/>{"".join(blocks)}{words}'


def _attribution() -> tuple[str, str]:
    maps = ((_BUMP, 0), (np.roll(_BUMP, (2, -2), (0, 1)), 1))
    drawn = "".join(_photo(142, 36, 8 + 42 * n) + _map(142, veil(one, 0, 1), 36, 8 + 42 * n) for one, n in maps)
    curves = (
        f'<path d="M222 10v74h120" stroke="{_GREY}"/><path d="M222 16C236 66 252 80 342 82" stroke="{_ACCENT}"/>'
        '<path d="M222 16C270 20 306 40 342 82"/>'
    )
    words = _words(photo=59, maps=160, score_while_it_is_deleted=282)
    return "The photo, two maps of it, and two curves that fall", _photo(20) + _arrow(108, 26) + drawn + curves + words


def _sanity() -> tuple[str, str]:
    noise = np.random.default_rng(1).uniform(0, 0.8, _BUMP.shape)
    two = _map(150, heat(_BUMP), 60, 18) + _map(240, heat(noise), 60, 18)
    words = _words(photo=59, trained=180, randomized=270)
    return "The map of a trained network, and of one with random weights", _photo(20) + _arrow(108, 26) + two + words


def _knockout() -> tuple[str, str]:
    units = "".join(
        f'<circle cx="162" cy="{17 + 20 * n}" r="7" fill="{_GREY if n != 2 else "none"}"/>' for n in range(4)
    )
    cross = f'<path d="M153 48l18 18m0 -18l-18 18" stroke="{_ACCENT}" stroke-width="2.5"/>'
    widths = ((-64, _ACCENT), (-38, _GREY), (-16, _GREY), (22, _GREY))
    bars = "".join(
        _box(300 + min(w, 0), 12 + 20 * n, abs(w), 10, colour, _FLAT) for n, (w, colour) in enumerate(widths)
    )
    drawn = _photo(20) + _arrow(108, 30) + units + cross + _arrow(186, 30) + '<path d="M300 6v82"/>' + bars
    return "A unit of a layer is crossed out, and bars show what the class loses", drawn + _words(
        photo=59, one_unit_silenced=162, loss_of_the_class=290
    )


def _evolution() -> tuple[str, str]:
    drawn = "".join(
        _map(
            20 + 112 * n,
            signed(blur * np.sin(4 * np.mgrid[-1:1:7j, -1:1:7j][0] + n * np.mgrid[-1:1:7j, -1:1:7j][1]), 1.0),
        )
        for n, blur in enumerate((0.25, 0.6, 1.0))
    )
    arrows = _arrow(102, 24) + _arrow(214, 24)
    return "The picture of a unit after an early, a later and the last epoch", drawn + arrows + _words(
        early=59, later=171, last=283
    )


def _probe() -> tuple[str, str]:
    blocks = "".join(
        _box(110 + 24 * n, 47 - high / 2, 14, high, "#7d9cc0", _FLAT) for n, high in enumerate((62, 44, 26))
    )
    axes = f'<path d="M212 12v70h134" stroke="{_GREY}"/>'
    lines = f'<path d="M216 62L256 40L296 26L342 18" stroke="{_ACCENT}" stroke-width="2.5"/><path d="M216 64L342 70"/>'
    words = _words(photos_with_classes=59, layers=142, right_answers_by_layer=280)
    return "Photos, layers, and how often the features of each are right", _photo(20) + blocks + axes + lines + words


def _map_of_method() -> tuple[str, str]:
    ramp = _ramp(250, heat(np.linspace(0, 1, 24)[None]), "low", "high")
    return "The photo, and a map", _photo(20) + _arrow(106, 24) + _map(142, heat(_BUMP)) + ramp + _words(
        photo=59, map=181
    )


_DRAWINGS: dict[str, Callable[[], tuple[str, str]]] = {
    "start": _start, "predict": _predict, "feature_maps": _feature_maps, "projection": _projection, "gallery": _gallery,
    "neighbours": _neighbours, "colours": _colours,
    "occlusion": _occlusion, "transform": _transform, "knockout": _knockout, "dense": _dense, "filters": _filters,
    "compare": _compare, "architecture": _architecture, "attribution": _attribution,
    "sanity": _sanity, "correspondence": _correspondence, "evolution": _evolution,
    "evaluate": _evaluate, "probe": _probe,
}  # fmt: skip
