"""Occlusion: what the answer depends on, found by hiding a part of the picture: a square everywhere in turn, or by hand."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from vizapp.errors import VizError
from vizapp.media.film import to_gif, to_mp4, to_webm
from vizapp.media.transforms import resize
from vizapp.ui import (
    answers,
    downloads,
    drawn,
    frame,
    maps,
    networks,
    notices,
    others,
    panels,
    pictures,
    several,
    square,
    state,
    sweeps,
    units,
)
from vizapp.ui.components import component
from vizapp.ui.downloads import File
from vizapp.ui.panels import Shown
from vizapp.ui.sweeps import Asked, Begun

if TYPE_CHECKING:
    from vizapp.media.picture import Picture
    from vizapp.methods.base import Result
    from vizapp.zoo.network import Network

_WAYS = {"sweep": "Square", "several": "Several photos", "hand": "By hand"}
_VIEWS = {"probability": "Probability", "logit": "Logit", "pixels": "Per pixel"}
_PANELS = "occlusion.panels"


def page() -> None:
    """Draw the page."""
    frame.heading("Occlusion", "Hide a part of the picture and see what the answer depends on.")
    asked = frame.network_and_picture()
    if asked is None:
        return
    network, picture = asked
    way = state.get(state.WAY)
    _controls(network, way)
    if way == "several":
        several.draw(network)
        return
    first = Asked(network, picture, square.params(network, picture), None if way == "hand" else square.unit(network))
    if way == "hand":
        drawn.draw(first)
        return
    second = _second(network, picture)
    _sweep([first] if second is None else [first, second])


def _controls(network: Network, way: str) -> None:
    by_hand, kept = way == "hand", None
    if not by_hand:
        square.checked_site(network)
    if way == "sweep":
        kept = _kept_picture()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="occlusion_controls"):
        units.switch(state.WAY, _WAYS, "occlusion.way")
        if not by_hand:
            square.sliders(network)
        square.filling()
        if not by_hand:
            square.options(network, networks.sites(network))
        if way == "sweep":
            _comparison(kept)
    if not by_hand:
        square.tell_options()


# Two sweeps


def _comparison(kept: Picture | None) -> None:
    """What to compare with, behind a button."""
    names = networks.labels()
    with st.popover("Compare", icon=":material/compare:"):
        same = "The same picture" if kept is None else f"{kept.name}, kept"
        for choice, title, options, none in (
            (state.SECOND_PICTURE, "With another picture", pictures.sample_names(), same),
            (state.SECOND_NETWORK, "With another network", list(names), "The same network"),
        ):
            key, now = f"occlusion.{choice.name}", state.get(choice) or ""
            st.session_state[key] = now  # in every run: see forms
            st.selectbox(
                title, list(dict.fromkeys(("", *options, now))), format_func=partial(_or, none, names), key=key,
                on_change=_take_second, args=(choice, key), filter_mode="contains",
            )  # fmt: skip
        if state.get(state.SECOND_NETWORK):
            units.switch(state.SECOND_WEIGHTS, {"published": "Trained", "random": "Random"}, "occlusion.weights2")
        st.button(
            "Keep the picture in use" if kept is None else "Let go of the kept picture", key="occlusion.keep",
            on_click=_keep if kept is None else _let_go, icon=":material/keep:" if kept is None else ":material/close:",
            help="To compare it with the one you choose next: an upload, or a picture of a folder, too.",
        )  # fmt: skip


def _keep() -> None:
    st.session_state[state.SECOND_ORIGIN] = pictures.origin()
    state.put(state.SECOND_PICTURE, None)


def _let_go() -> None:
    st.session_state.pop(state.SECOND_ORIGIN, None)


def _kept_picture() -> Picture | None:
    """The picture that was kept to compare others with; let go of, with a sentence, when it cannot be opened any more."""
    origin = st.session_state.get(state.SECOND_ORIGIN)
    if origin is None:
        return None
    try:
        return pictures.opened(origin)
    except VizError as error:
        notices.sorry(str(error))
        _let_go()
        return None


def _or(none: str, words: dict[str, str], name: str) -> str:
    return words.get(name, name) or none


def _take_second(choice: state.Choice, key: str) -> None:
    state.put(choice, st.session_state[key] or None)


def _second(network: Network, picture: Picture) -> Asked | None:
    """The second sweep: another network, another picture, or both."""
    named, name = state.get(state.SECOND_NETWORK), state.get(state.SECOND_PICTURE)
    shown = pictures.sample(name) if name else _kept_picture() or picture
    if not named and shown.digest == picture.digest:
        if st.session_state.get(state.SECOND_ORIGIN) is not None and not name:
            notices.hint(f"{picture.name} is kept; choose a picture to compare it with.")
        return None
    other = networks.second() if named else network
    if other is None:
        return None
    if named:
        return Asked(other, shown, square.params_of_second(other, network, shown))
    return Asked(other, shown, square.params(other, shown), square.unit(other))


def _class_of(asked: Asked, first: Asked) -> int | None:
    """The class of (d): the chosen one; for another network the one of the same name. None: the clean prediction."""
    chosen = state.get(state.CLASS)
    if chosen is None or asked.network is first.network:
        return chosen
    name = panels.name_of(first, chosen).lower()
    return next((n for n, other in enumerate(asked.network.categories) if other.lower() == name), None)


# The sweep


def _sweep(asked: list[Asked]) -> None:
    left: list[tuple[Asked, Begun]] = []
    for one in asked:
        if sweeps.finished(one) is None:
            plan = sweeps.plan(one)
            if plan is None:
                return
            left.append((one, plan))
    waiting = [(one, plan) for one, plan in left if not sweeps.may_run(one, plan)]
    if waiting:
        with st.container():
            _offer(waiting)
            _under_way(asked, dict(left))
        return
    going = [(one, plan) for one, plan in left if not state.is_cancelled(one.name)]
    if going and not sweeps.wait(going, answers.QUIET)[0]:
        sweeps.watch(going, lambda: _under_way(asked, dict(left)))
        return
    for sentence in state.take_notes():  # of a sweep that could not be finished
        notices.sorry(sentence)
    _finished(asked, dict(left))


def _offer(waiting: list[tuple[Asked, Begun]]) -> None:
    """How far it is, and a button that starts what will take long."""
    seconds = sum(plan.seconds for _, plan in waiting)
    done, count = (sum(int(f(plan.work.finished)) for _, plan in waiting) for f in (np.sum, np.size))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Run the sweep", key="occlusion.run", type="primary", icon=":material/play_arrow:", on_click=_want,
            args=([one.name for one, _ in waiting],),
        )  # fmt: skip
        st.caption(f"{done} of {count} positions so far; all of them take about {_duration(seconds)}.")


def _want(names: list[str]) -> None:
    for name in names:
        state.want(name)


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _under_way(asked: list[Asked], plans: dict[Asked, Begun]) -> None:
    shown = []
    for one in asked:
        result, class_ = sweeps.finished(one), _class_of(one, asked[0])
        shown.append(
            panels.of_work(one, plans[one].work, class_) if result is None else panels.of_result(one, result, class_)
        )
    _draw(shown, state.get(state.POSITION), coming=True)


def _draw(shown: list[Shown], cell: tuple[int, int] | None, coming: bool = False) -> None:
    """The maps of one or two sweeps, linked."""
    view = state.get(state.SHOWN)
    groups = [panels.group(one, view, cell if n == 0 else None, coming) for n, one in enumerate(shown)]
    component("panels")(key=_PANELS, data={"groups": groups}, on_cell_change=_take_cell)


def _take_cell() -> None:
    cell = st.session_state[_PANELS].cell
    if cell is not None:
        state.put(state.POSITION, (int(cell[0]), int(cell[1])))


def _finished(asked: list[Asked], plans: dict[Asked, Begun]) -> None:
    shown, results = [], []
    for one in asked:
        result = sweeps.finished(one)
        if result is None:
            result = sweeps.kept(one, plans[one])
            _left(one, result)
        if result is None:
            return
        results.append(result)
        shown.append(panels.of_result(one, result, _class_of(one, asked[0])))
    cell = _cell(shown[0].positions.shape)
    with st.container():  # as the part that watches stands in one: the browser then keeps the maps that are there
        _choices(shown[0], results[0])
        _draw(shown, cell)
    _details(shown, results, cell)
    more = others.draw(shown[0])
    _sentences(results)
    _downloads(shown[0], results[0], cell or shown[0].lowest, more)


def _left(one: Asked, result: Result | None) -> None:
    """What was left, and the way on; nothing if it was finished before it could be left."""
    if result is not None and "finished" not in result.facts:
        state.allow(one.name)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption("Cancelled." if result is None else f"Cancelled after {result.facts['finished']}")
        st.button(
            "Go on", key=f"occlusion.go_on.{one.name}", icon=":material/play_arrow:", on_click=state.allow,
            args=(one.name,),
        )  # fmt: skip


def _choices(shown: Shown, result: Result) -> None:
    """The class of (d), from those whose probabilities were kept, and what (d) shows of it."""
    classes, probabilities = result.arrays["classes"], result.arrays["probabilities"]
    peaks = probabilities.reshape(-1, len(classes)).max(0)
    order = np.argsort(-peaks, kind="stable")
    words = {
        int(classes[n]): panels.name_of(shown.asked, int(classes[n]))
        + (" · true class" if int(classes[n]) == shown.true else "")
        + f" · up to {100 * peaks[n]:.1f} %"
        for n in order
    }
    chosen = state.get(state.CLASS)
    if chosen is not None and chosen not in words:
        count = len(shown.asked.network.categories)
        why = f"the network has classes 0 to {count - 1}" if chosen >= count else "it is too improbable everywhere"
        shows = "clean prediction" if shown.true is None else "true class"
        notices.sorry(f"There is no map of class {chosen}: {why}. Showing the {shows}.")
        state.put(state.CLASS, None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="occlusion_choices"):
        st.html('<div class="vz-label">(d) shows</div>', width="content")
        st.selectbox(
            "Class", list(words), format_func=lambda number: words.get(number, str(number)), width=320,
            label_visibility="collapsed", filter_mode="contains",
            **state.shows(state.CLASS, "occlusion.class", shown.class_),
        )  # fmt: skip
        units.switch(state.SHOWN, _VIEWS, "occlusion.shown")
        st.caption(f"{100 * shown.clean:.1f} % without the square")


def _cell(shape: tuple[int, int]) -> tuple[int, int] | None:
    """The chosen position; None when none is chosen or the map has no such cell."""
    chosen = state.get(state.POSITION)
    if chosen is not None and not (chosen[0] < shape[0] and chosen[1] < shape[1]):
        last = f"{shape[0] - 1},{shape[1] - 1}"
        notices.sorry(f"The square has positions 0,0 to {last}, not {chosen[0]},{chosen[1]}. Click one.")
        state.put(state.POSITION, None)
        return None
    return chosen


# One position


def _details(shown: list[Shown], results: list[Result], cell: tuple[int, int] | None) -> None:
    """The picture with the square at the chosen position (or the worst), and the five most probable classes."""
    columns = frame.columns(1, 1) if len(shown) > 1 else [st.container()]
    for number, (one, result) in enumerate(zip(shown, results, strict=True)):
        with columns[number], st.container(key=f"beside_position_{number}"):
            left, right = st.columns([1, 2] if len(shown) == 1 else [1, 1], gap="medium")
            _position(number, one, result, _same_place(cell, shown[0], one) if cell else one.lowest, left, right)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if cell is None:
            st.caption("Click a cell of a map to see the picture with the square there.")
        else:
            st.button(
                f"Where {notices.escaped(shown[0].class_name)} is least probable",
                key="occlusion.lowest",
                on_click=state.put,
                args=(state.POSITION, None),
            )


def _same_place(cell: tuple[int, int], first: Shown, other: Shown) -> tuple[int, int]:
    """The cell of another sweep that lies where this one lies in the first."""
    places = zip(cell, first.positions.shape, other.positions.shape, strict=True)
    row, column = (int((index + 0.5) / count * counted) for index, count, counted in places)
    return row, column


def _position(number: int, shown: Shown, result: Result, cell: tuple[int, int], left: Any, right: Any) -> None:
    row, column = cell
    arrays = result.arrays
    with left:
        data = maps.photo_data(_occluded(shown, cell), f"The picture with the square at {row},{column}")
        data["field"] = shown.positions.boxes[row, column].tolist()
        component("map")(key=f"occlusion.position.{number}", data=data)
    with right:
        chosen = state.get(state.POSITION) is not None
        where = f"Position {row},{column}" + ("" if chosen else f", where {shown.class_name} is least probable")
        notices.hint(where)
        drawn.bars(
            f"occlusion.bars.{number}", shown.asked, arrays["probabilities"][row, column],
            arrays["clean_probabilities"], "was", arrays["classes"],
        )  # fmt: skip


def _occluded(shown: Shown, cell: tuple[int, int]) -> np.ndarray:
    from vizapp.methods.occlusion import occluded

    return occluded(shown.seen, shown.asked.params, shown.positions, *cell)


# Words and files


def _sentences(results: list[Result]) -> None:
    """How it was computed, and what it does not show."""
    words = {
        "true class": "True class",
        "activation": "(b) and (c)",
        "projection": "(c)",
        "precision": "Precision",
        "evaluation": "Computing",
    }
    for name, title in words.items():
        for sentence in {result.facts[name]: None for result in results if name in result.facts}:
            st.caption(f"**{title}:** {notices.escaped(sentence)}")
    notices.head("What it does not show")
    notices.hint(results[0].facts["caution"])


def _downloads(shown: Shown, result: Result, cell: tuple[int, int], more: dict[str, np.ndarray]) -> None:
    """`more`: the arrays of the other pictures of (c), if they are shown."""
    from vizapp.methods.occlusion_others import drawn as drawn_others

    height, width = shown.seen.shape[:2]
    pictures = {"(a)": _occluded(shown, cell)} | {
        f"({letter})": resize(pixels, height, width, "nearest")
        for letter, pixels in panels.pictures(shown, state.get(state.SHOWN)).items()
    }
    pictures |= {"(c) others": drawn_others(more)} if more else {}
    name = downloads.file_name("occlusion", shown.asked.network.name, shown.asked.picture.name)
    files = [
        File(
            "Table CSV", f"{name}.csv", "text/csv", lambda: table_of(shown, result.arrays).to_csv(index=False).encode()
        ),
        File("Film GIF", f"{name}.gif", "image/gif", lambda: to_gif(_film(shown), 25)),
        File("Film WebM", f"{name}.webm", "video/webm", lambda: to_webm(_film(shown), 24)),
        File("Film MP4", f"{name}.mp4", "video/mp4", lambda: to_mp4(_film(shown), 24)),
    ]
    downloads.row("occlusion", name, pictures, result.arrays | more, files)
    notices.hint("Browsers play GIF and WebM; MP4 is for players.")


def _film(shown: Shown) -> list[np.ndarray]:
    from vizapp.methods.occlusion_film import frames

    drawn = panels.pictures(shown, "probability")
    return frames(shown.seen, shown.asked.params, shown.positions, [drawn["d"], drawn["e"]])


def table_of(shown: Shown, arrays: dict[str, np.ndarray]) -> pd.DataFrame:
    """A line per position of the square: where it stands, and what the maps show there, of the class of (d)."""
    rows, columns = np.indices(shown.positions.shape)
    boxes = arrays["positions"].reshape(-1, 4)
    return pd.DataFrame(
        {"row": rows.ravel(), "column": columns.ravel()}
        | {side: boxes[:, n] for n, side in enumerate(("top", "left", "bottom", "right"))}
        | {"class": shown.class_, "class name": shown.class_name}
        | {name: shown.arrays[name].ravel() for name in ("probability", "logit", "activation", "label")}
        | {"label name": [panels.name_of(shown.asked, int(label)) for label in shown.arrays["label"].ravel()]}
    )


if __name__ == "__main__":
    page()
