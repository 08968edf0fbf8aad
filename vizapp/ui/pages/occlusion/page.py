"""Occlusion: hide parts of the picture, with a sliding square or by hand, to see what the prediction depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import plural
from vizapp.methods.base import Result
from vizapp.methods.occlusion import panel_data
from vizapp.methods.occlusion.panel_data import Cell
from vizapp.methods.scores import in_words
from vizapp.ui.inputs import networks, targets
from vizapp.ui.pages.occlusion import (
    batch_view,
    compare_with,
    exports,
    form,
    map_panels,
    mask_editor,
    other_images,
    position,
    sweep_runs,
)
from vizapp.ui.pages.occlusion.map_panels import SweepView
from vizapp.ui.pages.occlusion.sweep_runs import RunningSweep, SweepRequest
from vizapp.ui.session import messages, progress, reports, state
from vizapp.ui.widgets import image_tiles, layout, live, options, unit_picker
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_WAYS = {"sweep": "Square", "several": "Several photos", "hand": "By hand"}
_VIEWS = {"probability": "Probability", "logit": "Logit", "pixels": "Per pixel"}
_PANELS = "occlusion.panels"


def page() -> None:
    """Draw the page."""
    layout.page_title("Occlusion", "Hide parts of the photo to see what the prediction depends on.")
    asked = layout.answer_and_picture()
    if asked is None:
        return
    network, picture = asked
    if live.draw(network):
        return
    way = state.get(state.WAY)
    sites = networks.sites(network) if way != "hand" else ()
    if way != "hand" and not sites:  # cancelled, as a message says
        return
    _controls(network, sites, way)
    if way == "several":
        aimed = targets.for_several(network)
        if aimed is not None:
            batch_view.draw(aimed)
        return
    first = SweepRequest(network, picture, form.params(network, picture), None if way == "hand" else form.unit(network))
    if way == "hand":
        mask_editor.draw(first)
        return
    _withdraw_stride(network)
    if state.get(state.STRIDE) is not None or state.get(state.POSITION) is not None:  # a position has a stride
        st.empty()  # where `first_stride` draws its progress, so that all below keeps its place
    else:
        stride = sweep_runs.first_stride(first)
        if stride is None:
            return
        if stride != first.params.stride:
            state.put(state.STRIDE, stride)
            state.save(state.FIRST_STRIDE, (network.digest, stride))
            st.rerun()  # for the controls above
    second = compare_with.second_request(network, picture)
    _sweep([first] if second is None else [first, second])


def _withdraw_stride(network: Network) -> None:
    """Take back a stride that nobody chose and that suited what was explained before."""
    of_network, stride = state.load(state.FIRST_STRIDE) or ("", None)
    if stride is not None and of_network != network.digest:
        state.save(state.FIRST_STRIDE, None)
        if state.get(state.STRIDE) == stride:
            state.put(state.STRIDE, None)
            st.rerun()


def _controls(network: Network, sites: tuple[Site, ...], way: str) -> None:
    by_hand, kept = way == "hand", None
    if not by_hand:
        form.checked_site(network)
    if way == "sweep":
        kept = compare_with.kept_picture()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="occlusion_controls"):
        unit_picker.switch(state.WAY, _WAYS, "occlusion.way")
        if not by_hand:
            form.draw_square(network)
        form.filling()
        if not by_hand:
            form.draw_options(network, sites)
        if way == "sweep":
            compare_with.draw(kept)
    if not by_hand:
        options.changed_line("occlusion", form.OPTIONS)


def _sweep(asked: list[SweepRequest]) -> None:
    there: dict[SweepRequest, Result] = {}  # held here: the cache may evict one while the page waits for the other
    plans: dict[SweepRequest, RunningSweep] = {}
    for one in asked:
        result = sweep_runs.answer_of(one)
        if result is not None:
            st.empty()  # where `plan` draws its progress, so that the maps keep their position and thus their focus
            there[one] = result
            continue
        plan = sweep_runs.plan(one)
        if plan is None:
            return
        plans[one] = plan
    waiting = {one: plan for one, plan in plans.items() if not sweep_runs.may_run(one, plan)}
    if waiting:
        with st.container():
            _offer(waiting)
            _draw_partial(asked, there, plans)
        return
    going = {one: plan for one, plan in plans.items() if not progress.is_cancelled(one.key)}
    if going and sweep_runs.follow(going, lambda: _draw_partial(asked, there, plans)):
        return
    _draw_finished(asked, there, plans)


def _offer(waiting: dict[SweepRequest, RunningSweep]) -> None:
    """Draw the progress, and a button that starts a long sweep."""
    seconds = sum(plan.seconds for plan in waiting.values())
    done, count = (sum(int(f(plan.work.finished)) for plan in waiting.values()) for f in (np.sum, np.size))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        progress.start_button("Run the sweep", "occlusion.run", *(one.key for one in waiting), type="primary")
        st.caption(f"{done} of {count} positions so far. The rest takes about {messages.duration(max(seconds, 1))}.")


def _draw_partial(
    asked: list[SweepRequest], there: dict[SweepRequest, Result], plans: dict[SweepRequest, RunningSweep]
) -> None:
    shown = []
    for one in asked:
        result, class_ = there.get(one) or sweep_runs.answer_of(one), compare_with.class_of(one, asked[0])
        shown.append(
            map_panels.of_work(one, plans[one].work, class_)
            if result is None
            else map_panels.of_result(one, result, class_)
        )
    st.container()  # where the choices will be
    _draw(shown, state.get(state.POSITION))


def _draw(shown: list[SweepView], cell: Cell | None, results: Sequence[Result] = ()) -> None:
    """Draw one or two sweeps: a headline and a large map over the photo, beside them the position, and the linked maps.

    `results` are missing while a sweep runs.
    """
    view = state.get(state.SHOWN)
    scale = panel_data.scale_of(shown, view)
    take = partial(unit_picker.take_click, state.POSITION)
    marks = [position.same_place(cell, shown[0], one) if cell else one.extreme if one.arrays else None for one in shown]
    if len(shown) == 1:
        position.headline(shown[0], marks[0], view, chosen=cell is not None)
    columns = layout.columns(*((1, 1) if len(shown) > 1 else (6, 7)))
    for number, (one, marked) in enumerate(zip(shown, marks, strict=True)):
        key = f"occlusion.large.{number}"
        with columns[number]:
            if len(shown) > 1:
                image_tiles.title(f"{one.asked.network.name} · {one.asked.picture.name}")
                position.headline(one, marked, view, chosen=cell is not None)
            component("panels")(
                key=key, data={"groups": [panel_data.large(one, view, marked, scale, shown[0].positions.shape)]},
                on_cell_change=partial(take, key, "cell"),
            )  # fmt: skip
        if results and marked:
            with columns[-1] if len(shown) == 1 else columns[number]:
                position.draw(number, one, results[number], marked)
    groups = [
        panel_data.group(one, view, cell if n == 0 else None, not results, scale=scale) for n, one in enumerate(shown)
    ]
    component("panels")(key=_PANELS, data={"groups": groups}, on_cell_change=partial(take, _PANELS, "cell"))


def _draw_finished(
    asked: list[SweepRequest], there: dict[SweepRequest, Result], plans: dict[SweepRequest, RunningSweep]
) -> None:
    shown, results = [], []
    with st.container():  # the fragment that follows a sweep has one too, so that the browser keeps maps and focus
        with st.container():
            for sentence in state.take_notes():  # about a sweep that failed
                messages.warn(sentence)
            for one in asked:
                result = there.get(one) or sweep_runs.answer_of(one)
                if result is None:
                    result = sweep_runs.partial_result(one, plans[one])
                    _offer_to_continue(one, result)
                if result is None:
                    return
                results.append(result)
                shown.append(map_panels.of_result(one, result, compare_with.class_of(one, asked[0])))
            cell = unit_picker.cell(shown[0].positions.shape, state.POSITION, "The square has positions")
        _choices(shown[0], results[0])
        _draw(shown, cell, results)
    _offer_finer(asked[0], shown[0], results[0])
    more = other_images.draw(shown[0])
    _sentences(results)
    for view, result in zip(shown, results, strict=True):
        second = "" if view is shown[0] else f"Occlusion of {view.asked.picture.name} with {view.asked.network.name}"
        reports.offer(result, second)
    exports.row(shown[0], results[0], cell or shown[0].extreme, more)


def _offer_finer(asked: SweepRequest, shown: SweepView, result: Result) -> None:
    """Draw the number of positions, and a button that halves the stride."""
    stride, (rows, columns) = asked.params.stride, shown.positions.shape
    if stride == 1 or "finished" in result.facts:
        return
    finer = replace(asked, params=replace(asked.params, stride=stride // 2))
    pace = sweep_runs.pace(asked)
    time = f" takes about {messages.duration(max(1, sweep_runs.seconds_at(pace, asked, stride // 2)))}" if pace else ""

    def start() -> None:
        state.put(state.STRIDE, stride // 2)
        progress.start(finer.key)

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button("Finer", key="occlusion.finer", icon=":material/grid_on:", on_click=start)
        every = f"one every {plural(stride, 'pixel')}"
        st.caption(f"{rows} × {columns} positions, {every}. One every {plural(stride // 2, 'pixel')}{time}.")


def _offer_to_continue(one: SweepRequest, result: Result | None) -> None:
    """Draw a line about a cancelled sweep and a button to continue; nothing if it finished before it was cancelled."""
    if result is not None and "finished" not in result.facts:
        state.withdraw("cancel", one.key)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption("Cancelled." if result is None else f"Cancelled after {result.facts['finished']}")
        progress.start_button("Continue", f"occlusion.go_on.{state.name_of(one.key)}", one.key)


def _choices(shown: SweepView, result: Result) -> None:
    """Draw the class of (d), one of those whose probabilities were kept, and the quantity of (d)."""
    classes, probabilities = result.arrays["classes"], result.arrays["probabilities"]
    peaks = dict(zip(classes.tolist(), probabilities.reshape(-1, len(classes)).max(0).tolist(), strict=True))
    chosen = compare_with.class_of(shown.asked, shown.asked)
    if chosen is not None and chosen not in peaks:
        count = len(shown.asked.network.categories)
        why = f"the network has classes 0 to {count - 1}" if chosen >= count else "it is too improbable everywhere"
        shows = "clean prediction" if shown.true is None else "true class"
        messages.warn(f"There is no map of class {chosen}: {why}. Showing the {shows}.")
        state.put(state.CLASS, None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="occlusion_choices"):
        unit_picker.class_list(
            "occlusion.class", shown.asked.network, sorted(peaks, key=lambda number: -peaks[number]), shown.class_,
            width=320, label_visibility="collapsed", filter_mode="contains",
        )  # fmt: skip
        quantity = shown.asked.network.quantity
        views = _VIEWS if quantity == "probability" else {"probability": quantity.capitalize(), "pixels": "Per pixel"}
        unit_picker.switch(
            state.SHOWN,
            views,
            "occlusion.shown",
            value=state.get(state.SHOWN) if state.get(state.SHOWN) in views else "probability",
        )
        true = "true class, " if shown.class_ == shown.true else ""
        clean, most = (in_words(shown.asked.network, share) for share in (shown.clean, peaks[shown.class_]))
        st.caption(f"{true}{clean} unhidden, at most {most} at a position")


def _sentences(results: list[Result]) -> None:
    """Draw how it was computed, and its limits."""
    words = {
        "true class": "True class",
        "activation": "Activation",
        "projection": "Projection",
        "precision": "Precision",
        "evaluation": "Computing",
    }
    with layout.fold():
        for name, title in words.items():
            for sentence in {result.facts[name]: None for result in results if name in result.facts}:
                st.caption(f"**{title}:** {messages.escaped(sentence)}")
    messages.heading("What it does not show")
    messages.must_know(results[0].facts["caution"])


if __name__ == "__main__":
    page()
