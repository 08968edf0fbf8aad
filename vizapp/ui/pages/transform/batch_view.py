"""Curves of several photos: a thin line each, and their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from vizapp.errors import VizError, plural
from vizapp.media.drawing import sheet
from vizapp.methods.base import Result
from vizapp.methods.tables import to_csv
from vizapp.service.lru_cache import Key
from vizapp.ui.inputs import image_picker, images, targets
from vizapp.ui.pages.transform import charts, curve_lines, curve_runs, form
from vizapp.ui.pages.transform.charts import Line
from vizapp.ui.pages.transform.curve_runs import CurveRequest, follow
from vizapp.ui.session import downloads, messages, progress, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import layout
from vizapp.zoo.network import Network

MOST = 24  # photos
Photo = list[CurveRequest]  # the curves of one photo, in one network or two


def draw(network: Network, second: Network | None) -> None:
    """Draw the choice of the photos, and their curves."""
    photos = _open_photos(network, second, image_picker.choose_several("transform", state.PHOTOS, MOST))
    if not photos:
        return
    asked = [one for photo in photos for one in photo]
    missing = [one for one in asked if one.answer is None]
    key = ("transform.several", state.name_of([one.key for one in asked]))
    if missing and progress.is_started(key):
        going = [one for one in missing if not progress.is_cancelled(one.key)]
        if going and follow(going, lambda: _draw_charts(photos, network)):
            return
        state.withdraw("run", key)
        for one in missing:
            state.withdraw("cancel", one.key)
        st.rerun()
    for sentence in state.take_notes():
        messages.warn(sentence)
    if missing:
        _offer(photos, missing, key)
    _draw_charts(photos, network)
    _downloads(network, _there(photos, network))


def _offer(photos: Sequence[Photo], missing: Sequence[CurveRequest], key: Key) -> None:
    """Draw a button that computes what is missing, and how long that takes."""
    waiting = sum(any(one.answer is None for one in photo) for photo in photos)
    label = f"Run {plural(waiting, 'photo' if waiting == len(photos) else 'more photo')}"
    seconds = curve_runs.seconds(missing)
    time = "" if seconds is None else f", about {messages.duration(max(seconds, 1))}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        progress.start_button(label, "transform.several.run", key, type="primary")
        st.caption(f"{plural(sum(len(one.params.amounts) for one in missing), 'picture')} to compute{time}.")


def _open_photos(network: Network, second: Network | None, chosen: Sequence[tuple[images.Origin, str]]) -> list[Photo]:
    """The curves of the photos that can be opened; a message about the others."""
    found, wrong = list[Photo](), list[str]()
    for origin, _ in chosen:
        try:
            picture = images.open_from(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        found.append(form.requests(network, second, picture))
    if wrong:
        messages.warn(f"{plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info("Choose some photos: each gives a thin line, and the thick line is their mean.")
    return found


def _there(photos: Sequence[Photo], network: Network) -> list[tuple[CurveRequest, Result]]:
    """The finished curves of a network."""
    ones = [one for photo in photos for one in photo if one.network is network]
    return [(one, result) for one in ones if (result := one.answer) is not None]


def _draw_charts(photos: Sequence[Photo], first: Network) -> None:
    """Draw the distances and the probabilities of the finished photos."""
    kind, both = photos[0][0].params.kind, dict.fromkeys(one.network for photo in photos for one in photo)
    drawn: list[list[Line]] = [[], []]
    for network in both:
        there = _there(photos, network)
        if there:
            title = f" · {curve_lines.short_name(network)}" if len(both) > 1 else ""
            _add(drawn, there, title, form.scale_of(kind, network, first), dashed=network is not first)
    if not any(drawn):
        return
    finished = sum(all(one.answer is not None for one in photo) for photo in photos)
    if finished < len(photos):
        messages.info(f"{finished} of {plural(len(photos), 'photo')} so far.")
    left, right = layout.columns(1, 1, key="stacking_transform_charts")
    with left:
        messages.heading("Distance of the features from those of the clean photos")
        charts.draw("transform.distances", charts.figure(drawn[0], kind, None, percent=False))
    with right:
        if drawn[1]:
            is_share = first.quantity == "probability"
            messages.heading("Probability of each photo's own class" if is_share else first.quantity.capitalize())
            charts.draw("transform.probabilities", charts.figure(drawn[1], kind, None, percent=is_share))
    curve_lines.explain(first.quantity if drawn[1] else "", several=True)


def _add(
    drawn: list[list[Line]], there: Sequence[tuple[CurveRequest, Result]], title: str, scale: float, dashed: bool
) -> None:
    """Add the lines of a network: of the first one a thin line per photo, and the mean of both.

    Args:
        drawn: The lines of the distances, and those of the probabilities.
        there: The finished curves.
        title: What stands behind the names of the lines.
        scale: What the amounts are divided by.
        dashed: Whether it is the second network.
    """
    params, amounts = there[0][0].params, there[0][1].arrays["amounts"] / scale
    for number, name in enumerate(params.sites):
        of_layer = [result.arrays["distance"][number] for _, result in there]
        drawn[0] += [Line(name, amounts, values, number, thin=True) for values in of_layer if not dashed]
        drawn[0].append(Line(f"{name}{title}", amounts, np.mean(of_layer, 0), number, dashed))
    shares = [values for one in there if (values := _own_class(*one)) is not None]
    if shares:
        drawn[1] += [Line("one photo", amounts, values, 0, thin=True) for values in shares if not dashed]
        drawn[1].append(Line(f"mean{title}", amounts, np.mean(shares, 0), 0, dashed))


def _own_class(asked: CurveRequest, result: Result) -> np.ndarray | None:
    """The probability of the clean photo's class at each amount; None if there are no classes."""
    if "probability" not in result.arrays:
        return None
    target = targets.chosen()
    if target is not None and target.class_ is not None:
        return np.asarray(result.arrays["probability"][:, curve_lines.top_classes(asked, result, 1)[0]])
    clean = result.arrays["amounts"].tolist().index(asked.params.amounts[asked.clean])
    return np.asarray(result.arrays["probability"][:, result.arrays["probability"][clean].argmax()])


def _downloads(network: Network, there: Sequence[tuple[CurveRequest, Result]]) -> None:
    """The arrays of all photos, and a table with a row per photo and amount."""
    if not there:
        return
    name = downloads.file_name("transform", there[0][0].params.kind, network.name, plural(len(there), "photo"))
    each = {f"{array}_each": np.stack([result.arrays[array] for _, result in there]) for array in there[0][1].arrays}
    arrays = {"amounts": each.pop("amounts_each")[0]} | each
    rows = [{"photo": asked.picture.name} | row for asked, result in there for row in result.table]
    table = File("Table CSV", f"{name}.csv", "text/csv", lambda: to_csv(rows).encode())
    for asked, result in there:
        reports.offer(result, f"Transform of {asked.picture.name}")
    photos = sheet([network.seen(asked.picture) for asked, _ in there], 6, gap=2)
    downloads.row("transform_several", name, {"Photos": photos}, arrays, [table])
