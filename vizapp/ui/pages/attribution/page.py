"""Attribution: maps of what mattered side by side, and numbers that say which of them to trust."""

from __future__ import annotations

from html import escape

import streamlit as st

from vizapp.components.data import photo_uri
from vizapp.methods.trust.deletion import pixel_ranks
from vizapp.methods.trust.pointing import TOLERANCE, points_at
from vizapp.ui.inputs import targets
from vizapp.ui.pages.attribution import batch_view, cards, curves, exports, form
from vizapp.ui.pages.attribution.cards import MapsView
from vizapp.ui.pages.attribution.map_runs import Found, MapsRequest, found
from vizapp.ui.pages.attribution.verdict import MEASURES, Verdict, is_told
from vizapp.ui.session import forms, messages, progress, state
from vizapp.ui.widgets import layout, live
from vizapp.ui.widgets.components import component

_BOX = "attribution.box"


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "Attribution", "Maps of what mattered, side by side, and a test of which one to trust for this photo."
    )
    asked = layout.answer_and_picture()
    if asked is None:
        return
    network, picture = asked
    if live.draw(network):
        return
    unit = form.draw(network, picture)
    if unit is None:
        return
    if state.get(state.SEVERAL) == "on":
        aimed = targets.for_several(network)
        if aimed is not None:
            batch_view.draw(aimed, None if form.explains_answer(network) else unit)
        return
    _one_photo(MapsRequest(network, picture, unit, form.kinds(), form.measures(), forms.values("trust")["seed"]))


def _one_photo(asked: MapsRequest) -> None:
    if not asked.is_whole and not progress.is_cancelled(asked.key) and asked.follow(lambda: _draw(asked, whole=False)):
        return
    for sentence in state.take_notes():
        messages.warn(sentence)
    if not asked.is_whole:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption("Cancelled.")
            progress.start_button("Continue", "attribution.go_on", asked.key)
    _draw(asked, whole=True)


def _draw(asked: MapsRequest, whole: bool) -> None:
    """Draw what is there: the cards, the curves, the box; and if nothing more is on its way the table and the files."""
    now, box = found(asked), _box(asked)
    measures = [name for name in asked.measures if is_told(now.scores, name)]
    if box is not None:
        measures.append("pointing")
        for kind, values in now.maps.items():
            now.scores.setdefault(kind, {})["pointing"] = points_at(pixel_ranks(values, asked.seed), box)
    kinds = [kind for kind in asked.kinds if kind not in now.missing]
    by = str(state.get(state.BY))
    judged = Verdict(now.scores, kinds, measures, now.is_weak)
    order = judged.ordered(by if by in measures else "all") if whole else kinds
    chosen = state.get(state.KIND)
    if chosen not in kinds:
        chosen = next((kind for kind in order if kind in now.maps), "")
    slots = [st.container() for _ in range(4)]  # a large message that comes late moves nothing that is below it
    shown = MapsView(asked, now, order, chosen, judged, asked.is_whole)
    with slots[0]:
        if shown.whole and (sentence := judged.headline()):
            st.html(f'<div class="vz-headline">{escape(sentence)}</div>')
        form.orders(measures)
        if judged.weak:
            messages.must_know(cards.WEAK)
        messages.must_know(cards.RULE)
    with slots[1]:
        cards.draw(shown)
    with slots[2]:
        cards.missing(now.missing)
        if along := [name for name in asked.measures if any(name in known for known in now.curves.values())]:
            curves.draw(shown, by if by in along else along[0])
    if not whole:
        return
    if state.get(state.PRESENT) != "on":
        with slots[3]:
            left, right = layout.columns(4, 7, key="stacking_attribution")
        with left:
            _draw_box(asked, box)
        with right:
            _table(shown)
    _facts(now, chosen)
    exports.row(shown)


# The pointing game


def _box(asked: MapsRequest) -> tuple[int, int, int, int] | None:
    """The box that was drawn, in pixels of what the network sees; None without one, or if it lies outside."""
    values = state.get(forms.choices("trust")["box"])
    height, width = asked.network.input_size[1:]
    if len(values) != 4:
        return None
    top, left, bottom, right = (int(value) for value in values)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        messages.warn(
            f"The box {top},{left},{bottom},{right} reaches outside the {height} × {width} pixels that the network sees."
        )
        state.put(forms.choices("trust")["box"], ())
        return None
    return top, left, bottom, right


def _draw_box(asked: MapsRequest, box: tuple[int, int, int, int] | None) -> None:
    messages.heading("Pointing game: draw a box around the object")
    seen = asked.network.seen(asked.picture)
    data = {
        "photo": photo_uri(seen), "size": list(seen.shape[:2]), "box": None if box is None else list(box),
        "name": asked.picture.name,
    }  # fmt: skip
    component("box")(key=_BOX, data=data, on_box_change=_take_box)
    messages.info(f"A map hits if its strongest place lies in the box, or at most {TOLERANCE} pixels beside it.")


def _take_box() -> None:
    given = state.clicked(_BOX, "box")
    if isinstance(given, list) and len(given) in (0, 4):
        state.put(forms.choices("trust")["box"], tuple(float(value) for value in given))


def _table(shown: MapsView) -> None:
    messages.heading("All numbers: a click on a column sorts")
    number = st.column_config.NumberColumn
    frame = exports.table(shown.found, [kind for kind in shown.order if kind in shown.found.maps], shown.measures)
    st.dataframe(
        frame, hide_index=True, key="attribution.table", height=min(35 * (len(frame) + 1) + 3, 460),
        column_config={"map": "Map"} | {
            name: number(MEASURES[name].arrow, help=MEASURES[name].sentence, format="%.3f") for name in shown.measures
        },
    )  # fmt: skip


def _facts(now: Found, chosen: str) -> None:
    told = now.facts.get(chosen, {})
    for name in ("caution", "rough"):
        if name in told:
            messages.must_know(told[name])
    with layout.fold():
        for name, fact in told.items():
            if name not in ("caution", "rough", "network", "picture", "kinds", "measures"):
                messages.info(f"{forms.label(name)}: {fact}")


if __name__ == "__main__":
    page()
