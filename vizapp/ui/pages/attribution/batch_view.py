"""Several photos: the mean of each number with its interval, for each kind of map."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError, plural
from vizapp.media.drawing import sheet
from vizapp.media.picture import Picture
from vizapp.methods.attribution import KINDS
from vizapp.methods.base import Question
from vizapp.methods.tables import frame_to_csv
from vizapp.ui.inputs import image_picker, images
from vizapp.ui.pages.attribution import cards, form
from vizapp.ui.pages.attribution.batch_runs import Means, SeveralRequest, means
from vizapp.ui.pages.attribution.verdict import BASELINES, MEASURES, Verdict, is_told
from vizapp.ui.session import downloads, forms, messages, progress, reports, state
from vizapp.ui.session.downloads import File
from vizapp.ui.widgets import charts, layout
from vizapp.zoo.network import Network

MOST = 50  # photos
_TAKEN = "attribution.folder"  # the folder that was taken from beside the page


def draw(network: Network, unit: Unit | None) -> None:
    """Draw the choice of the photos, and the numbers over all of them. `unit`: None explains the answer of each photo."""
    _take_folder()
    photos = _open(image_picker.choose_several("attribution", state.PHOTOS, MOST))
    asked = SeveralRequest(network, photos, unit, form.kinds(), form.measures(), forms.values("trust")["seed"])
    if not photos or not asked.measures:
        return
    missing = len(asked.keys) - len(asked.there())
    if missing and progress.is_started(asked.key):
        if asked.follow(lambda: _draw(asked, whole=False)):
            return
        st.rerun()
    for sentence in state.take_notes():
        messages.warn(sentence)
    if missing:
        _offer(asked, missing)
    now = means(asked)
    if now.kinds:
        _draw(asked, whole=not missing)
        _downloads(asked, now)


def _take_folder() -> None:
    """Begin with the photos of the folder that is open beside the page; another choice stays until another folder is opened."""
    origin = images.origin()
    if origin[0] == "folder" and state.load(_TAKEN) != origin[1]:
        state.save(_TAKEN, origin[1])
        if state.get(state.PHOTOS) == state.PHOTOS.default:
            state.put(state.PHOTOS, origin[1])
            st.rerun()  # the address was written before


def _open(chosen: Sequence[tuple[images.Origin, str]]) -> list[Picture]:
    """The photos that can be opened; a message about the others."""
    found, wrong = list[Picture](), list[str]()
    for origin, _ in chosen:
        try:
            found.append(images.open_from(origin))
        except VizError as error:
            wrong.append(str(error))
    if wrong:
        messages.warn(f"{plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info("Choose some photos: each map is measured on all of them.")
    return found


def _offer(asked: SeveralRequest, missing: int) -> None:
    """Draw a button that measures what is missing."""
    whole = len(asked.keys)
    label = f"Measure {plural(len(asked.photos), 'photo')}" if missing == whole else "Continue"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        progress.start_button(label, "attribution.several.run", asked.key, type="primary")
        done = (
            f"{whole - missing} of {whole} are finished." if missing < whole else "You can cancel, and continue later."
        )
        st.caption(f"{plural(len(asked.kinds), 'map')} of each photo: {whole} in all, some seconds each. {done}")


def _draw(asked: SeveralRequest, whole: bool) -> None:
    """Draw a headline, the chart of one measure, and the table of all. `whole`: whether all photos are measured."""
    now = means(asked)
    if not now.kinds:
        return
    scores = {
        kind: dict(zip(asked.measures, row.tolist(), strict=True))
        for kind, row in zip(now.kinds, now.mean, strict=True)
    }
    count = int(np.isfinite(now.per_photo).any((1, 2)).sum())
    told = [name for name in asked.measures if is_told(scores, name)]

    def beats(kind: str, other: str, measure: str) -> bool:
        return now.beats(kind, other, asked.measures.index(measure), measure)

    judged = Verdict(scores, now.kinds, told, now.weak, beats)
    where = (
        f"over {plural(count, 'photo')}" if whole else f"so far, over {count} of {plural(len(asked.photos), 'photo')}"
    )
    few = f"{plural(count, 'photo')} {'are' if count > 1 else 'is'} too few to tell which map to trust."
    sentence = judged.headline(where, few)
    if sentence:
        st.html(f'<div class="vz-headline">{escape(sentence)}</div>')
    if now.weak:
        messages.must_know(cards.WEAK.replace("The blurred photo keeps", "The blurred photos keep"))
    form.orders(told)
    by = str(state.get(state.BY))
    order = judged.ordered(by if by in told else "all")
    first = (judged.counted or told)[0]
    shown = by if by in told else first
    left, right = layout.columns(5, 6, key="stacking_several")
    with left:
        messages.heading(f"{MEASURES[shown].arrow}, mean and 95 % interval")
        charts.draw("attribution.means", figure(now, order, asked.measures.index(shown)))
        messages.info(MEASURES[shown].sentence)
    with right:
        messages.heading("All numbers, from the best")
        st.html(_table(asked, now, order, told, first))
        by_first = MEASURES[first].title if first == "road" else MEASURES[first].title.lower()
        messages.info(
            f"± is half of the 95 % interval of the mean over the photos. Beats random: on so many photos, by {by_first}; "
            "about half of them tells nothing."
        )
    cards.missing(now.missing)


def figure(now: Means, order: Sequence[str], column: int) -> go.Figure:
    """A point with its interval per kind, from the best on top; the random map is a line that is to be beaten."""
    drawn = go.Figure()
    for plain in (False, True):
        kinds = [kind for kind in order if (kind in BASELINES) == plain]
        rows = [now.kinds.index(kind) for kind in kinds]
        mean = now.mean[rows, column]
        drawn.add_scatter(
            x=mean, y=[KINDS[kind].title for kind in kinds], mode="markers",
            marker={"size": 9, "symbol": "circle-open" if plain else "circle"},
            error_x={"type": "data", "array": now.high[rows, column] - mean, "thickness": 1.6, "width": 4},
            hovertemplate="%{y}: %{x:.3f} ± %{error_x.array:.3f}<extra></extra>",
        )  # fmt: skip
    if "random" in now.kinds:
        chance = float(now.mean[now.kinds.index("random"), column])
        drawn.add_vline(x=chance, line={"width": 1, "dash": "dash", "color": "#7f858c"})
    drawn.update_layout(
        height=60 + 32 * len(order), margin={"l": 8, "r": 8, "t": 8, "b": 32}, showlegend=False, xaxis={"zeroline": False},
        yaxis={"categoryorder": "array", "categoryarray": [KINDS[kind].title for kind in order][::-1], "automargin": True},
    )  # fmt: skip
    return drawn


def _table(asked: SeveralRequest, now: Means, order: Sequence[str], told: Sequence[str], first: str) -> str:
    """HTML with a row per kind: its means with intervals, and on how many photos it beats the random map by `first`."""
    heads = [MEASURES[name].arrow for name in told] + ["Beats random"] * ("random" in now.kinds)
    rows = []
    for kind in order:
        at, cells = now.kinds.index(kind), []
        for column in map(asked.measures.index, told):
            mean, half = now.mean[at, column], now.high[at, column] - now.mean[at, column]
            interval = "" if np.isnan(half) else f" <small>± {half:.3f}</small>"
            cells.append("–" if np.isnan(mean) else f"{mean:.3f}{interval}".replace("-", "−"))
        if "random" in now.kinds:
            beats = now.better(kind, asked.measures.index(first), first)
            cells.append("" if beats is None else "{} of {}".format(*beats))
        rows.append(f"<tr><th>{escape(KINDS[kind].title)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    top = "".join(f"<th>{head}</th>" for head in ("Map", *heads))
    return f'<div class="vz-numbers"><table><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _downloads(asked: SeveralRequest, now: Means) -> None:
    name = downloads.file_name("attribution", asked.network.name, plural(len(asked.photos), "photo"))
    rows = [
        {"photo": photo.name, "map": kind} | dict(zip(asked.measures, now.per_photo[number, at].tolist(), strict=True))
        for number, photo in enumerate(asked.photos)
        for at, kind in enumerate(now.kinds)
    ]
    csv = File("Numbers CSV", f"{name}.csv", "text/csv", lambda: frame_to_csv(pd.DataFrame(rows)))
    arrays = {
        "kinds": np.array(now.kinds), "measures": np.array(asked.measures), "per_photo": now.per_photo, "scores": now.mean,
        "low": now.low, "high": now.high,
    }  # fmt: skip
    photos = sheet([asked.network.seen(photo) for photo in asked.photos], 6, gap=2)
    table = [
        {"map": KINDS[kind].title} | dict(zip(asked.measures, row.tolist(), strict=True))
        for kind, row in zip(now.kinds, now.mean, strict=True)
    ]
    title = f"Attribution maps compared on {plural(len(asked.photos), 'photo')}"
    reports.offer_drawn("trust", title, {"Photos": photos}, table, asked=Question(asked.network))
    downloads.row("attribution_several", name, {"Photos": photos}, arrays, [csv])
