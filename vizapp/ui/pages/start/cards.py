"""The cards of the start page: each answers a question about the photo and the network with a small picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import streamlit as st

from vizapp import methods
from vizapp.components.data import percent
from vizapp.engine.trace.sites import Site, Unit
from vizapp.errors import VizError
from vizapp.gallery.reader import find_galleries, open_gallery, top_image
from vizapp.gallery.search import require_places, search, shipped_classes
from vizapp.media.distortions import resized_photo
from vizapp.media.drawing import boxes, busiest, contrasted, crop_box, diverging, heat, lay_over, sheet, veil
from vizapp.media.picture import Picture
from vizapp.media.transforms import centre_crop, resize, resize_short_side, shrink
from vizapp.methods.activations import strength_order, strongest_cell
from vizapp.methods.base import Result
from vizapp.methods.dense import convolutional, suitable_zoom
from vizapp.methods.filters import kernel_tiles
from vizapp.methods.gallery import revealing_site
from vizapp.methods.output import OPACITY
from vizapp.methods.projection import revealing_rule
from vizapp.methods.scores import in_words, name_in_text
from vizapp.ui.inputs import datasets, networks, targets
from vizapp.ui.session import compute, forms, reports, state
from vizapp.ui.widgets import image_tiles, network_diagram, topk_bars
from vizapp.zoo import class_unit
from vizapp.zoo.labels import readable
from vizapp.zoo.network import Network

_BARS, _ACROSS, _KERNELS_ACROSS = 3, 3, 5
_TILE, _LARGEST = 96, 360  # pixels
_SPAN, _OPAQUE = 0.1, 0.8  # least change of a probability with full colour; opacity of that colour
_ANGLES = tuple(float(angle) for angle in range(0, 360, 30))  # degrees
_EXAMPLE = "dog"  # what the card of the search searches for
_KINDS = {"convolution": "#7d9cc0", "linear": "#a99bc4", "pool": "#8fb59a", "activation": "#d9c48a"}


@dataclass(frozen=True)
class Subject:
    """What the cards are about."""

    network: Network
    picture: Picture
    aimed: Network | None = None  # the network toward what is explained of its output, which has class scores

    @property
    def answer(self) -> Subject:
        """The same about the class scores of what is explained."""
        return self if self.aimed is None else Subject(self.aimed, self.picture)

    @property
    def seen(self) -> np.ndarray:
        """The network's crop of the photo, uint8 `[H W 3]`."""
        return self.network.seen(self.picture)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The layers of the network; empty where a message explains why."""
        return networks.sites(self.network)

    @property
    def maps(self) -> list[Site]:
        """The layers with several cells that lie in the photo."""
        return [site for site in self.sites if site.is_map and site.located and site.shape[1] * site.shape[2] > 1]

    def ask(self, method: str, unit: Unit | None = None, title: str | None = "", **params: Any) -> Result | None:
        """The result of a method; None if it was cancelled. The method's page asks with the same key.

        `title`: what a report calls it, if not as its method; None if the card does not show it.

        Raises:
            VizError: the method does not fit the network or the photo.
        """
        asked = methods.method(method)
        network, picture = self.network, self.picture if "picture" in asked.inputs else None
        result = compute.compute(
            compute.key_of(method, network, picture, None, unit, **params),
            lambda tick: methods.ask(method, network, picture=picture, unit=unit, tick=tick, **params),
            device=str(network.device), raises=True,
        )  # fmt: skip
        if result is not None and title is not None:
            reports.offer(result, title)
        return result


@dataclass(frozen=True)
class Answer:
    """What a card says below its picture, what its link adds to the address of the page, and what a report shows of it.

    `picture`: uint8 `[H W 3]`. `words`: what stands in place of one.
    """

    sentence: str
    link: dict[str, str]
    picture: np.ndarray | None = None
    words: str = ""


@dataclass(frozen=True)
class Card:
    """A card: the key of its page, and what draws its picture (None where a message explains why there is none).

    `question` and `name`: of a second card of a page. `unanswered`: its question where the network has no answer.
    """

    page: str
    draw: Callable[[Subject], Answer | None]
    question: str = ""
    name: str = ""
    unanswered: str = ""

    @property
    def key(self) -> str:
        """Its name in the keys of widgets."""
        return self.name or self.page


def _picture(page: str, pixels: np.ndarray, label: str) -> np.ndarray:
    """Draw the picture of a page's card, uint8 `[H W 3]`, that `label` describes; returns it as it is drawn."""
    pixels = pixels.repeat(scale := max(1, _TILE // max(pixels.shape[:2])), 0).repeat(scale, 1)
    image_tiles.picture(f"start.{page}", pixels := shrink(pixels, _LARGEST), label)
    return pixels


def _in_words(rows: Iterable[tuple[str, float, str]]) -> str:
    """Bars in words, for reports."""
    named = (f"{name} {percent(share)}" + (f" ({note})" if note else "") for name, share, note in rows)
    return f"{', '.join(named)}."


def _defaults(method: str) -> dict[str, Any]:
    """The parameters of a method as its page asks before anything is changed."""
    return {name: choice.default for name, choice in forms.choices(method).items()}


def _link(unit: Unit, **more: str) -> dict[str, str]:
    """The choices of a unit in an address."""
    cell = {} if unit.cell is None else {"cell": f"{unit.cell[0]},{unit.cell[1]}"}
    return {"layer": unit.site, "channel": str(unit.channel)} | cell | more


def _square(pixels: np.ndarray) -> np.ndarray:
    """The square in the middle of uint8 `[H W 3]`."""
    side = min(*pixels.shape[:2], _LARGEST)
    return centre_crop(resize_short_side(pixels, side), side, side)


def _predict(about: Subject) -> Answer | None:
    result = about.ask("predict")
    if result is None:
        return None
    if about.network.task != "classes":
        panel = next((one for one in result.panels if one.title != "seen"), None)
        drawn = None if panel is None else _picture("predict", panel.pixels, panel.caption)
        return Answer(f"{result.facts['answer']}.", {}, drawn)
    told = replace(result, table=result.table[:_BARS])
    topk_bars.draw_prediction("start.bars", about.network, told)
    rows = ((about.network.readable_name(row["class"]), float(row["probability"]), "") for row in told.table)
    return Answer(f"The most probable of {len(result.arrays['logits']):,} classes.", {}, words=_in_words(rows))


def _attribution(about: Subject) -> Answer | None:
    about = about.answer
    told = about.ask("predict")
    if told is None:
        return None
    number = targets.explained_class(about.network, about.picture, told.arrays["probabilities"])
    params = _defaults("attribution") | {"kind": "gradcam"}
    result = about.ask("attribution", class_unit(about.network, number), **params)
    if result is None:
        return None
    name, values = name_in_text(about.network, number), result.arrays["attribution"]
    drawn = _picture(
        "attribution",
        lay_over(about.seen, veil(values, 0, float(values.max()) or 1), OPACITY),
        f"Grad-CAM of {name} over the photo",
    )
    rough = ", a rough guide for this network" if "rough" in result.facts else ""
    return Answer(f"Bright: speaks for {name} (Grad-CAM{rough}).", {"attribution.kind": "gradcam"}, drawn)


def _feature_maps(about: Subject) -> Answer | None:
    """Three layers from early to late, of each the strongest channels."""
    maps = [site for site in about.maps if site.kind == "activation"] or about.maps
    if not maps:
        raise VizError(f"{about.network.name} has no layer with a map.", code="no-feature-map")
    rows = list(dict.fromkeys((maps[0], maps[len(maps) // 2], maps[-1])))
    tiles = []
    for site in rows:
        layer = about.ask("activations", Unit(site.name, 0), f"Feature maps of {site.name}")
        if layer is None:
            return None
        values = layer.arrays["activations"]
        order = strength_order(values)[:_ACROSS]
        tiles += [resize(heat(values[channel]), _TILE, _TILE, "nearest") for channel in order]
    drawn = _picture(
        "feature_maps",
        sheet(tiles, min(_ACROSS, len(tiles)), gap=3),
        "Feature maps of an early, a middle and a late layer",
    )
    return Answer(f"Top to bottom: {', '.join(site.name for site in rows)}.", {state.STAGES.name: "all"}, drawn)


def _projection(about: Subject) -> Answer | None:
    """The strongest unit of the last convolution, by the rule that suits the network."""
    site = next((site for site in reversed(about.maps) if site.kind == "convolution"), None)
    if site is None:
        raise VizError(f"{about.network.name} has no convolution with a map.", code="no-convolution")
    layer = about.ask("activations", Unit(site.name, 0), title=None)
    if layer is None:
        return None
    values = layer.arrays["activations"]
    channel = int(strength_order(values)[0])
    unit = Unit(site.name, channel, strongest_cell(values[channel]))
    rule = revealing_rule(about.network)
    result = about.ask("projection", unit, **_defaults("projection") | {"rule": rule})
    if result is None:
        return None
    values = result.arrays["projection"]
    pixels = crop_box(contrasted(values), busiest(values, min(values.shape[:2]) // 2))
    drawn = _picture("projection", pixels, f"Projection of unit {channel} of {site.name}, enlarged")
    return Answer(f"Unit {channel} of {site.name}, {rule} rule, enlarged.", _link(unit, mode="one"), drawn)


def _gallery(about: Subject) -> Answer | None:
    """The top photos of the most selective unit of a layer that sees parts, in a gallery that is there already."""
    network = about.network
    collection = datasets.list_collection(datasets.chosen_text(network))
    if collection is None:
        return None
    galleries = (open_gallery(folder) for folder in find_galleries(network))
    found = next((one for one in galleries if one.manifest["data"]["listing"] == collection.listing), None)
    sites = [] if found is None else [site for site in about.maps if site.name in found.sites]
    if found is None or not sites:
        raise VizError("Not built yet for this network: open the page and press Build.", code="gallery-not-built")
    site = revealing_site(network, sites).name
    units = found.units_of(site)
    channel = int(np.where(units["dead"], -np.inf, units["selectivity"]).argmax())
    items = top_image(network, collection.source, found.rows(site, channel)[: _ACROSS**2])
    drawn = _picture(
        "gallery",
        sheet([shrink(item.patch, _TILE) for item in items], _ACROSS, gap=2),
        f"The top photos of unit {channel}",
    )
    data = {} if state.get(state.DATA) is None else {state.DATA.name: collection.text}
    return Answer(f"Unit {channel} of {site}.", _link(Unit(site, channel), **data), drawn)


def _search(about: Subject) -> Answer | None:
    """The units with most dogs among the photos that excite them most, as an example of the search."""
    known = shipped_classes(about.network.digest)
    if known is None:
        raise VizError("Open the page with a folder of photos that have classes.", code="no-classes")
    table = search(known, require_places(known.meant([_EXAMPLE]), known.labels))
    hidden = {site.name for site in about.sites if not about.network.class_names(site)}
    best = table[table["site"].isin(hidden)][:2]  # their names need two lines
    rows = [(f"{row.site} · {row.channel}", row.hits / row.of, f"{row.hits} of {row.of}") for row in best.itertuples()]
    topk_bars.draw("start.search", rows)
    sentence, found = f"Dogs among the {known.top.shape[1]} photos that excite a unit most.", _in_words(rows)
    return Answer(sentence, {state.SEARCH.name: _EXAMPLE}, words=found)


def _dense(about: Subject) -> Answer | None:
    network, picture = about.network, about.picture
    plan = compute.compute(
        compute.key_of("dense.plan", network), lambda tick: convolutional(network), size=lambda plan: 10_000,
        device=str(network.device), raises=True,
    )  # fmt: skip
    if plan is None:
        return None
    result = about.ask("dense", zoom=suitable_zoom(plan, picture), check=0)
    if result is None:
        return None
    drawn = _picture("dense", _square(result.panels[0].pixels), "The class at each place of the photo, as colours")
    shares = [f"{readable(str(row['name']))}: {percent(row['share'])}" for row in result.table[:2]]
    return Answer(f"{', '.join(shares)} of the places.", {}, drawn)


def _filters(about: Subject) -> Answer | None:
    site = next((site for site in about.sites if site.kind == "convolution"), None)
    if site is None:
        raise VizError(f"{about.network.name} has no convolution.", code="no-convolution")
    result = about.ask("filters", Unit(site.name, 0))
    if result is None:
        return None
    kernels = result.arrays["kernels"]
    norms = np.array([row["norm"] for row in result.table])
    strongest = np.argsort(-norms, kind="stable")[: _KERNELS_ACROSS**2]
    tiles = kernel_tiles(kernels[strongest], "filter")
    enlarge = max(1, _TILE // max(tiles[0].shape[:2]) // 2)
    drawn = _picture(
        "filters", sheet(tiles, _KERNELS_ACROSS, gap=4, enlarge=enlarge), "The strongest kernels of the first layer"
    )
    link = {"layer": site.name, "channel": str(strongest[0])}
    return Answer(f"The strongest of {len(kernels)} kernels of {site.name}.", link, drawn)


def _occlusion(about: Subject) -> Answer | None:
    """The change of the prediction's probability with a grey square over each of about 7 × 7 places."""
    about = about.answer
    side = min(about.network.input_size[1:])
    unit = targets.class_unit_of(about.network, about.picture)
    result = about.ask("occlusion", unit, window=side // 4, stride=side // 7, site="")
    if result is None:
        return None
    name = name_in_text(about.network, int(result.arrays["class"]))
    drop = np.nan_to_num(float(result.arrays["clean_probability"]) - result.arrays["probability"])
    drop /= max(_SPAN, float(np.abs(drop).max()))  # now from -1 to 1
    height, width = about.seen.shape[:2]
    colours = resize(diverging(drop, 1), height, width)
    share = resize(np.rint(255 * np.abs(drop)).astype(np.uint8), height, width)[..., None] / 255 * _OPAQUE
    mixed = np.rint((1 - share) * about.seen + share * colours).astype(np.uint8)
    drawn = _picture("occlusion", mixed, f"Where a square lowers {name}")
    return Answer(
        f"Red: hiding it lowers {name}; blue: hiding it raises it.",  # without numbers: the page has other squares
        {"way": "sweep"},
        drawn,
    )


def _transform(about: Subject) -> Answer | None:
    """The photo turned by the angle at which its answer is least probable."""
    about = about.answer
    if not about.network.heads:
        raise VizError("Open the page to see how far its features move.", code="no-class-scores")
    result = about.ask("transform", **_defaults("transform") | {"kind": "rotate", "amounts": _ANGLES})
    if result is None:
        return None
    number = targets.explained_class(about.network, about.picture, result.arrays["probability"][0])
    chances = result.arrays["probability"][:, number]
    worst = 1 + int(chances[1:].argmin())
    turned = resized_photo(about.network.preprocessing.view, about.picture.pixels).transformed("rotate", _ANGLES[worst])
    name, angle = about.network.readable_name(number), f"{_ANGLES[worst]:g}"
    drawn = _picture("transform", turned, f"The photo turned by {angle} degrees")
    change = " → ".join(in_words(about.network, float(chances[n])) for n in (0, worst))
    return Answer(f"{name}: {change}, turned by {angle}°.", {"transform.kind": "rotate", "amount": angle}, drawn)


def _compare(about: Subject) -> Answer | None:
    """What is explained of both networks, by default their first answers."""
    networks.suit_other()
    other = networks.other()
    if other is None:
        return None
    rows, told = [], []
    for network in (about.answer.network, targets.like_current(other, about.picture)):
        result = Subject(network, about.picture).ask("predict", title=f"Prediction of {_who(network)}")
        if result is None:
            return None
        if network.quantity != "probability":
            raise VizError("Open the page to compare the two networks.", code="no-class-scores")
        number, share = result.table[0]["class"], result.table[0]["probability"]
        if (class_ := targets.class_of(network, about.picture)) is not None:
            number, share = class_, result.arrays["probabilities"][class_]
        told.append(_who(network))
        rows.append((network.readable_name(number), float(share), told[-1]))
    topk_bars.draw("start.answers", rows)
    return Answer(" against ".join(told) + ".", {}, words=_in_words(rows))


def _who(network: Network) -> str:
    return network.name.partition("/")[2] + (" with random weights" if network.weights == "none" else "")


def _architecture(about: Subject) -> Answer | None:
    sites = about.sites
    if not sites:
        return None
    blocks = network_diagram.drawing(sites, None)["blocks"]
    st.html(_blocks(blocks))
    module = about.network.module
    parameters = sum(parameter.numel() for parameter in module.parameters())
    weighted = sum(site.kind in ("convolution", "linear") for site in sites)
    return Answer(f"{weighted} layers with {networks.short_count(parameters)} weights.", {}, _blocks_drawn(blocks))


def _blocks(blocks: Sequence[dict[str, Any]]) -> str:
    """HTML of the layers as boxes: as high and as wide as in the diagram of the other pages, without names."""
    bars = "".join(
        f'<i style="height: {100 * _height(block):.0f}%; flex: {block["width"]:.0f}; background: {_colour(block)}"></i>'
        for block in blocks
    )
    return f'<div class="vz-blocks" role="img" aria-label="The layers as boxes">{bars}</div>'


def _blocks_drawn(blocks: Sequence[dict[str, Any]]) -> np.ndarray:
    """The same as a picture."""
    colours, widths = (
        [list(bytes.fromhex(_colour(block)[1:])) for block in blocks],
        [block["width"] for block in blocks],
    )
    return boxes(list(map(_height, blocks)), widths, colours, (_LARGEST, _LARGEST), middle=True)


def _height(block: dict[str, Any]) -> float:
    return max(block["height"], 0.04)


def _colour(block: dict[str, Any]) -> str:
    return _KINDS.get(block["kind"], "#a3a8ae")


CARDS = (
    Card("predict", _predict),
    Card("attribution", _attribution),
    Card("feature_maps", _feature_maps),
    Card("projection", _projection),
    Card("gallery", _gallery),
    Card("gallery", _search, "Which units fire for dogs?", "search", "Which units fire for a class?"),
    Card("filters", _filters),
    Card("architecture", _architecture),
    Card("dense", _dense),
    Card("occlusion", _occlusion),
    Card("transform", _transform),
    Card("compare", _compare),
)
