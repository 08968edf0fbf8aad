"""Compare: predictions, occlusion maps, filters, projections and matching units of two networks on one photo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.components.data import percent, photo_data, signed_ramp, uri
from vizapp.errors import plural
from vizapp.media.drawing import lay_over, tint
from vizapp.media.picture import Picture
from vizapp.methods.base import Question, Result
from vizapp.methods.filters import first_convolution
from vizapp.methods.occlusion.panels import ends, full_scale, loss
from vizapp.methods.scores import in_words
from vizapp.ui.app import sidebar
from vizapp.ui.inputs import networks, targets
from vizapp.ui.pages.compare import results
from vizapp.ui.pages.compare.results import Pair
from vizapp.ui.session import access, compute, downloads, messages, progress, reports, state
from vizapp.ui.widgets import charts, kernel_sheets, layout, projection_tiles, topk_bars, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_WHO = ("first", "second")
_OPACITY = 0.8  # of the occlusion maps over the photo
_DISAGREE = "Where the two networks disagree."
_DIFFERENCE = (
    "Red: hiding the square hurts the first network more than the second. Blue: it hurts the second more. Each change is "
    "that of what is explained of the network."
)


@dataclass(frozen=True)
class _Exports:
    """What can be downloaded: pictures by title, arrays by name. `captions`: what a report says of the pictures."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def add(self, number: int, what: str, result: Result, picture: np.ndarray | None = None, caption: str = "") -> None:
        """Add a result of one of the two networks, and how it is drawn."""
        who = _WHO[number]
        if result.provenance is not None:
            reports.offer(result, f"{what.capitalize()}, {who} network")
        self.arrays.update({f"{who}_{what}_{name}": array for name, array in result.arrays.items()})
        if picture is not None:
            self.pictures[f"{what.capitalize()} {who}"] = picture
            self.captions[f"{what.capitalize()} {who}"] = caption


def page() -> None:
    """Draw the page."""
    layout.page_title("Compare", "Two networks, or one network with two sets of weights, on the same photo.")
    if networks.suit_other():
        st.rerun()  # for the address
    asked = layout.answer_and_picture()
    with st.container(key="compare_other", border=True):
        messages.heading("Compared with")
        sidebar.network_choice("compare", state.OTHER, state.OTHER_WEIGHTS, state.OTHER_CHECKPOINT)
    second = networks.other() if asked is not None else None
    if asked is None or second is None:
        return
    pair, picture = (asked[0], targets.like_current(second, asked[1])), asked[1]
    if not all(networks.sites(network) for network in pair):  # cancelled, as a message says
        return
    if pair[0].digest == pair[1].digest:
        messages.info("Both are the same network with the same weights. Choose another network or other weights.")
    exports = _Exports()
    _names(pair)
    rows = _answers(pair, picture, exports)
    place = st.container()
    _filters(pair, exports)
    _projections(pair, picture, exports)
    with place:  # last, because these take longest
        _occlusion(pair, picture, exports)
    _offer(pair, picture, exports, rows)
    _matches(pair, exports)
    name = downloads.file_name("compare", *(network.name for network in pair), picture.name)
    downloads.row("compare", name, exports.pictures, exports.arrays)


def _offer(pair: Pair, picture: Picture, exports: _Exports, rows: list[dict[str, Any]]) -> None:
    """Offer what the page shows of both networks for a report; `rows`: their answers."""
    both = " and ".join(f"{network.name} ({results.weights_of(network)})" for network in pair)
    pictures = {_in_report(title): pixels for title, pixels in exports.pictures.items()}
    captions = {_in_report(title): told for title, told in exports.captions.items()}
    about = Question(pair[0], picture)
    title, facts = f"Two networks on {picture.name}", {"network": both}
    reports.offer_drawn("", title, pictures, rows, facts, about, captions=captions, columns=2)


def _in_report(title: str) -> str:
    what, _, who = title.partition(" ")
    return f"{what}, {who} network" if who else what


def _side_by_side(pair: Pair) -> Iterator[tuple[int, Network]]:
    """Each network with its number, in its column."""
    for number, (column, network) in enumerate(zip(st.columns(2, gap="medium"), pair, strict=True)):
        with column:
            yield number, network


def _units(key: str, data: dict[str, Any], site: str, number: int) -> None:
    """Draw units of a layer of one of the two networks as tiles, of which each opens its card."""
    data |= {"chosen": None, "still": True, "card": True}
    component("sheet")(key=key, data=data, on_card_change=partial(unit_picker.take_card, key, site, bool(number)))


def _names(pair: Pair) -> None:
    for _, network in _side_by_side(pair):
        st.markdown(f"**{messages.escaped(network.name)}**, {messages.escaped(results.weights_of(network))}")
        _, height, width = network.input_size
        count = networks.short_count(network.parameters)
        st.caption(f"{count} parameters · {width} × {height} px · {_output(network)}")


def _output(network: Network) -> str:
    """What the network answers, in short."""
    network = network.untargeted or network
    return plural(len(network.categories), "class", "classes") if network.categories else network.task


# Zeiler & Fergus, Fig. 6 (a) to (c): first-layer filters


def _filters(pair: Pair, exports: _Exports) -> None:
    messages.heading("First-layer filters")
    answers: list[Result | None] = []
    for number, network in _side_by_side(pair):
        result = compute.run("filters", network)
        if result is not None:
            _units(
                f"compare.filters.{number}",
                kernel_sheets.sheet_data(result, "layer"),
                first_convolution(network),
                number,
            )
            st.markdown(messages.escaped(result.facts["diagnosis"]))
            with layout.fold():
                st.caption(messages.escaped(_counts(result)))
            told = f"{result.facts['layer']}: {result.facts['diagnosis']}{_bands(result)}"
            exports.add(number, "filters", result, result.panels[0].pixels, told)
        answers.append(result)
    found = [result for result in answers if result is not None and "bands" in result.facts]
    if len(found) == 2:
        labels = results.labels(pair)
        shares = list(map(_shares, found))
        charts.draw("compare.bands", charts.coverage(dict(zip(labels, shares, strict=True)), kernel_sheets.BANDS))
        messages.info(
            "Share of the filters tuned to low (below 1/6 cycle per pixel), middle and high (from 1/3) frequencies."
        )


def _shares(result: Result) -> np.ndarray:
    """The shares `[3]` of the filters that are tuned to low, middle and high frequencies."""
    return result.arrays["bands"] / max(1, result.arrays["bands"].sum())


def _bands(result: Result) -> str:
    """The same in words; empty where they are unknown."""
    if "bands" not in result.facts:
        return ""
    shares = zip(kernel_sheets.BANDS, _shares(result).tolist(), strict=True)
    return f" Tuned to frequencies that are {', '.join(f'{band.lower()}: {percent(share)}' for band, share in shares)}."


def _counts(result: Result) -> str:
    rows = result.table
    dead, doubled = (sum(row[name] for row in rows) for name in ("dead", "duplicate"))
    return f"{result.facts['layer']}: {dead} dead, {doubled} near-duplicates."


# Fig. 6 (d) and (e): second-layer projections


def _projections(pair: Pair, picture: Picture, exports: _Exports) -> None:
    messages.heading("Second layer: deconvnet projections of the nine strongest units")
    unit_picker.switch(state.PART, projection_tiles.PARTS, "compare.part")
    for number, network in _side_by_side(pair):
        site = results.second_layer(network)
        if site is None:
            messages.info("This network has no second convolution.")
            continue
        result = results.project_second_layer(network, picture, site)
        if result is not None:
            _, down = projection_tiles.tiles(network.seen(picture), result, state.get(state.PART))
            data = projection_tiles.grid_data(down, result, None, (), f"Nine units of {site}")
            _units(f"compare.projections.{number}", data, site, number)
            pixels = projection_tiles.nine(down)
            title, about = f"Projections, {_WHO[number]} network", Question(network, picture)
            told = f"{site}. Each projection has its own scale; mid-grey is zero."
            exports.add(number, "projections", result, pixels, f"The nine strongest units of {told}")
            reports.offer_drawn("projection", title, {"Projections": pixels}, facts=result.facts, asked=about)
            messages.info(told)


def _answers(pair: Pair, picture: Picture, exports: _Exports) -> list[dict[str, Any]]:
    """Draw the most probable classes; returns them as rows."""
    messages.heading("Predictions")
    rows: list[dict[str, Any]] = [{} for _ in range(topk_bars.TOP)]
    for number, network in _side_by_side(pair):
        result = compute.run("predict", network, picture, top=topk_bars.TOP)
        if result is not None:
            site = network.class_site
            opens = None if site is None else partial(unit_picker.open_card, site.name, other=bool(number))
            topk_bars.draw_prediction(f"compare.bars.{number}", network, result, opens=opens)
            exports.add(number, "answer", result)
            for row, told in zip(rows, result.table, strict=False):
                row[f"{_WHO[number]} network"] = network.readable_name(told["class"])
                row[f"{_WHO[number]} probability"] = told["probability"]
    return [row for row in rows if row]


def _occlusion(pair: Pair, picture: Picture, exports: _Exports) -> None:
    messages.heading("Occlusion: where hiding a square changes what is explained")
    found = [results.occlude(network, picture) for network in pair]
    lost = [loss(result.arrays) for result in found if result is not None]
    scale = max(map(full_scale, lost), default=1.0)  # one scale for both
    for number, network in _side_by_side(pair):
        result = found[number]
        if result is not None:
            values, clean = result.arrays["probability"], float(result.arrays["clean_probability"])
            whole, low, high = (in_words(network, float(one)) for one in (clean, values.min(), values.max()))
            seen, name = network.seen(picture), network.readable_name(int(result.arrays["class"]))
            pixels = _draw_loss(
                f"compare.occlusion.{number}", network, seen, loss(result.arrays), scale, "Occlusion map"
            )
            told = f"{name}: {whole} unhidden, {low} to {high} with a square hidden. Red: hiding hurts. Blue: hiding helps."
            st.caption(messages.escaped(told))
            exports.add(number, "occlusion", result, pixels, f"{told} {_full_colour(network, scale)}")
    if len(lost) == 2:
        clean_values = [(r.arrays["probability"], float(r.arrays["clean_probability"])) for r in found if r is not None]
        difference = results.difference(clean_values[0], clean_values[1])
        exports.arrays["difference"] = difference
        left, right = st.columns(2, gap="medium")
        with left:
            seen = pair[0].seen(picture)
            widest = full_scale(difference)
            exports.pictures["Difference"] = _draw_loss(
                "compare.difference", pair[0], seen, difference, widest, "Difference of the occlusion maps"
            )
            exports.captions["Difference"] = f"{_DISAGREE} {_DIFFERENCE} {_full_colour(pair[0], widest)}"
        with right:
            st.caption(f"**{_DISAGREE}** {_DIFFERENCE}")


def _full_colour(network: Network, scale: float) -> str:
    """What the ends of the colours are, for reports."""
    helps, hurts = ends(network.quantity, scale)
    return f"Full colour: {hurts} or {helps}."


def _draw_loss(key: str, network: Network, seen: np.ndarray, lost: np.ndarray, scale: float, label: str) -> np.ndarray:
    """Draw differences `[h w]` of probabilities, matches or cosines over the photo, red above 0; returns that as a picture."""
    colours = tint(lost, scale)
    data = photo_data(seen, label) | {
        "heat": uri(colours), "opacity": _OPACITY, "ramp": signed_ramp(),
        "ends": ends(network.quantity, scale), "signed": True,
    }  # fmt: skip
    component("map")(key=key, data=data)
    grey = seen.mean(2, keepdims=True).round().astype(np.uint8).repeat(3, 2)  # as the component draws it
    return lay_over(grey, colours, _OPACITY, "nearest")


def _matches(pair: Pair, exports: _Exports) -> None:
    messages.heading("Matching units")
    sites: list[str] = []
    for number, network in _side_by_side(pair):
        choice = (state.MATCH, state.SECOND_MATCH)[number]
        names = [site.name for site in networks.sites(network)]
        chosen = unit_picker.chosen_site(network, choice)
        name = chosen.name if chosen is not None else results.second_layer(network) or names[0]
        sites.append(
            st.selectbox(
                f"Layer of the {_WHO[number]} network",
                **state.bind(choice, f"compare.layer.{number}", name, options=names),
            )
        )
    if not access.names_folders():
        messages.info("Matching needs a folder of photos, and this server opens no folders.")
        return
    path = st.text_input(
        f"Path of a folder of photos {access.place()}", key="compare.folder", persist_state="session"
    ).strip()
    key = ("compare.match", pair[0].digest, pair[1].digest, *sites, path)
    progress.start_button("Match", "compare.match", key, icon="join_inner", disabled=not path)
    if not path or not progress.is_started(key):
        messages.info(
            "Finds units with similar responses to a folder of photos, by the correlation of their mean activations."
        )
        return
    result = results.match(pair, (sites[0], sites[1]), path)
    if result is not None:
        reports.offer(result, "Matching units")
        exports.arrays.update(result.arrays)
        table = pd.DataFrame(result.table)
        st.dataframe(
            table, hide_index=True, height=320, key="compare.matches", selection_mode="single-cell",
            on_select=partial(_open_match, sites, table),
            column_config={
                "first": "First network's unit", "second": "Second network's unit",
                "correlation": st.column_config.NumberColumn("Correlation", format="%.3f"),
            },
        )  # fmt: skip
        messages.info(f"Over {result.facts['pictures']}. Click the number of a unit for its card.")


def _open_match(sites: list[str], table: pd.DataFrame) -> None:
    """Open the card of the unit whose number was clicked."""
    for row, column in state.load("compare.matches")["selection"]["cells"]:
        other = column == "second"
        unit_picker.open_card(sites[other], int(table.loc[row, "second" if other else "first"]), other)


if __name__ == "__main__":
    page()
