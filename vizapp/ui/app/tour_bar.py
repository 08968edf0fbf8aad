"""The bar of a tour at the bottom of the window, and the choices that a step sets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import streamlit as st

from vizapp.errors import VizError
from vizapp.settings import ASSETS
from vizapp.ui.app import tours
from vizapp.ui.app.pages import PageSpec, pages
from vizapp.ui.app.tours import Tour
from vizapp.ui.session import messages, state, url
from vizapp.ui.widgets.components import component

Known = Callable[[Mapping[str, str]], dict[str, Collection[str]]]
_KEPT = (state.TOUR, state.STEP, state.AUTOPLAY)


def follow(known: Known, specs: Mapping[st.Page, PageSpec]) -> Tour | None:
    """Set what the current step names, once, and turn to its page; returns the tour, if there is one.

    Args:
        known: The valid values of some choices for a link, as `url.read_address` takes them.
        specs: The pages.

    Raises:
        VizError: there is no such tour, or its file has an error. The tour is left.
    """
    name = state.get(state.TOUR)
    if name is None:
        state.clear(state.AT_STEP)
        return None
    number, tour = state.get(state.STEP) or 1, None
    try:
        tour = tours.open_tour(name)
    finally:
        if tour is None:
            leave()
    if number > len(tour.steps):
        state.note(f"The tour {tour.title!r} has {len(tour.steps)} steps and no step {number}. This is the first.")
        number = 1
    state.put(state.STEP, number)  # so that the address names it, and Back leads to it
    if state.load(state.AT_STEP) == (name, number):
        return tour
    step = tour.steps[number - 1]
    page, spec = next((page, spec) for page, spec in specs.items() if spec.key == step.page)
    state.reset(_KEPT)
    state.save(state.PRESENT.key, "on")
    url.read_link(step.query, known(step.query), spec.carried, f"Step {number}: the")
    state.save(state.AT_STEP, (name, number))
    if step.page != state.page():
        here = st.query_params.to_dict()  # the browser hears of a new query before it hears of the new page
        state.save(state.ADDRESS, here)
        st.switch_page(page, query_params=here)
    return tour


def draw(tour: Tour | None) -> None:
    """Draw the bar, and hide all of the page but its pictures and legends."""
    st.html(ASSETS / "tour.css" if tour is not None else "<style></style>")
    if tour is None:
        return
    steps = [{"title": step.title, "text": step.text, "seconds": step.seconds} for step in tour.steps]
    data = {
        "title": tour.title, "steps": steps, "step": state.get(state.STEP), "on": state.get(state.AUTOPLAY) != "off",
        "always": state.get(state.AUTOPLAY) == "always",
    }  # fmt: skip
    with st.bottom:
        component("tour")(
            key="tour", data=data, on_step_change=_move, on_play_change=_play, on_leave_change=leave
        )  # fmt: skip


def links(page: str, told: bool = False) -> list[str]:
    """Draw the links that begin the tours; returns what is wrong with the files of others.

    Args:
        page: Prefix of the keys.
        told: Whether each tour is on a line of its own, with its sentence.
    """
    problems = []
    with st.container(horizontal=not told, vertical_alignment="center", gap="small", key=f"{page}_tours"):
        if not told:
            st.html('<div class="vz-label">Tours</div>', width="content")
        for name in tours.files():
            try:
                tour = tours.open_tour(name)
            except VizError as error:
                problems.append(str(error))
                continue
            st.page_link(
                pages()[tour.steps[0].page].page, label=messages.escaped(tour.title), icon=":material/tour:",
                query_params={state.TOUR.name: name},
            )  # fmt: skip
            if told and tour.about:
                st.caption(messages.escaped(tour.about))
    return problems


def leave() -> None:
    """Leave the tour and the presentation: the page stays as it is."""
    state.put(state.PRESENT, "off")
    for choice in _KEPT:
        state.put(choice, choice.default)


def _move() -> None:
    number = state.clicked("tour", "step")
    if isinstance(number, int) and number > 0:
        state.put(state.STEP, number)
        state.clear(state.AT_STEP)  # also where one is: the step is as it was at first


def _play() -> None:
    state.put(state.AUTOPLAY, "on" if state.clicked("tour", "play") else "off")
