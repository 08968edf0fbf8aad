"""Transform: how features and predictions change as the photo is moved, turned, enlarged or spoiled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
import streamlit as st

from vizapp.components.data import photo_uri
from vizapp.media.distortions import resized_photo
from vizapp.media.source import spread
from vizapp.methods.base import Result
from vizapp.methods.transform_film import amount_text
from vizapp.ui.inputs import networks, targets
from vizapp.ui.pages.transform import batch_view, charts, curve_lines, exports, form
from vizapp.ui.pages.transform.curve_runs import CurveRequest, follow
from vizapp.ui.session import compute, messages, progress, reports, state
from vizapp.ui.widgets import layout
from vizapp.ui.widgets.components import component
from vizapp.zoo.network import Network

_MOST_FRAMES = 120
_TOP = 3  # classes beside the photo
_FRAMES = "transform.frames"


def page() -> None:
    """Draw the page."""
    layout.page_title("Transform", "Turn, move, enlarge or spoil the photo: which layers notice, and does the answer?")
    asked = layout.answer_and_picture()
    if asked is None or not networks.sites(asked[0]):
        return
    network, picture = asked
    form.draw(networks.sites(network))
    second = networks.second() if state.get(state.SECOND_NETWORK) else None
    if second is network:
        messages.info("The second network is the first one, with the same weights; choose another.")
        second = None
    if second is not None and not networks.sites(second):
        second = None
    if state.get(state.SEVERAL) == "on":
        aimed, beside = targets.for_several(network), second and targets.for_several(second)
        if aimed is not None and (beside is not None or second is None):
            batch_view.draw(aimed, beside)
    else:
        _one_photo(form.requests(network, second, picture))


def _one_photo(asked: list[CurveRequest]) -> None:
    amount = _amount(asked[0])
    photo = st.container()  # filled last, with the answers that are there by then
    missing = [one for one in asked if one.answer is None]
    going = [one for one in missing if not progress.is_cancelled(one.key)]
    with st.container():
        running = bool(going) and follow(going, lambda: _draw_charts(asked, amount))
    with photo:
        _draw_photo(asked[0], amount)
    if running:
        return
    if state.get(state.AMOUNT) not in (None, amount):  # of a link
        given, shown = (amount_text(asked[0].params.kind, one) for one in (state.get(state.AMOUNT), amount))
        state.note(f"{given} is not among the amounts. Showing the nearest, {shown}.")
        state.put(state.AMOUNT, amount)
        st.rerun()  # for the address
    for sentence in state.take_notes():  # about a run that failed
        messages.warn(sentence)
    cancelled = [one.key for one in asked if one.answer is None]
    if cancelled:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption("Cancelled.")
            progress.start_button("Continue", "transform.go_on", *cancelled)
    _draw_charts(asked, amount, asked[0].params.amounts)
    results = [one.so_far for one in asked]
    if results[0] is not None:
        _facts([result for result in results if result is not None])
        for number, one in enumerate(results):
            if one is not None:
                reports.offer(one, f"Transform, {asked[number].network.name}" if number else "")
        exports.row(asked, [result for result in results if result is not None], amount)


def _amount(asked: CurveRequest) -> float:
    """The chosen amount, or the nearest there is; by default that of the clean photo."""
    amounts, chosen = np.array(asked.params.amounts), state.get(state.AMOUNT)
    return float(amounts[asked.clean if chosen is None else int(np.abs(amounts - chosen).argmin())])


def _draw_photo(asked: CurveRequest, amount: float) -> None:
    """Draw a headline, and the photo with the slider and the answers at each amount."""
    result, kind = asked.so_far, asked.params.kind
    sentence = curve_lines.headline(asked, result, amount, chosen=state.get(state.AMOUNT) is not None)
    st.html(f'<div class="vz-headline">{escape(sentence)}</div>')
    shown = spread(len(asked.params.amounts), _MOST_FRAMES)
    amounts = [asked.params.amounts[n] for n in shown]
    height, width = asked.network.input_size[1:]
    data = {
        "frames": _frames(asked, amounts), "ticks": [amount_text(kind, one) for one in amounts], "size": [height, width],
        "at": int(np.abs(np.array(amounts) - amount).argmin()), "name": form.KINDS[kind],
        "label": f"The photo as the network sees it, {form.KINDS[kind].lower()}",
        "answers": _answers(asked.network, result, amounts),
    }  # fmt: skip
    component("frames")(key=_FRAMES, data=data, on_frame_change=partial(_take, amounts))


def _take(amounts: Sequence[float]) -> None:
    number = state.clicked(_FRAMES, "frame")
    if isinstance(number, int) and 0 <= number < len(amounts):
        state.put(state.AMOUNT, float(amounts[number]))


def _frames(asked: CurveRequest, amounts: Sequence[float]) -> list[str]:
    """The transformed photo at each amount, as data URIs."""
    params = asked.params

    def made() -> list[str]:
        photo = resized_photo(asked.network.preprocessing.view, asked.picture.pixels)
        return [photo_uri(photo.transformed(params.kind, one, params.edge, params.seed)) for one in amounts]

    key = ("transform.frames", asked.picture.digest, repr(asked.network.preprocessing), repr(params), str(len(amounts)))
    return compute.remembered(key, made, size=lambda found: sum(map(len, found)))


def _answers(network: Network, result: Result | None, amounts: Sequence[float]) -> list[list[list[object]]] | None:
    """The most probable classes at each amount; empty where they are not computed yet."""
    if result is None or "probability" not in result.arrays or network.quantity != "probability":
        return None
    known = dict(zip(result.arrays["amounts"].tolist(), result.arrays["probability"], strict=True))
    found: list[list[list[object]]] = []
    for amount in amounts:
        shares = known.get(amount)
        best = [] if shares is None else np.argsort(-shares, kind="stable")[:_TOP].tolist()
        found.append([[network.readable_name(n), round(float(known[amount][n]), 4)] for n in best])
    return found


def _draw_charts(asked: Sequence[CurveRequest], amount: float, amounts: Sequence[float] = ()) -> None:
    """Draw the distances and the probabilities side by side; a click on a curve chooses one of `amounts`."""
    there = [(one, result) for one in asked if (result := one.so_far) is not None]
    if not there:
        return
    kind, first = asked[0].params.kind, asked[0].network
    left, right = layout.columns(1, 1, key="stacking_transform_charts")
    with left:
        messages.heading("Distance of the features from those of the clean photo")
        drawn = charts.figure(curve_lines.distances(there, first), kind, amount, percent=False)
        charts.draw("transform.distances", drawn, amounts)
    lines = curve_lines.probabilities(there, first)
    with right:
        if lines:
            is_share = first.quantity == "probability"
            messages.heading("Probability of the clean photo's classes" if is_share else first.quantity.capitalize())
            charts.draw("transform.probabilities", charts.figure(lines, kind, amount, percent=is_share), amounts)
        else:
            messages.info(f"{first.name} has no classes, so there are distances only.")
    curve_lines.explain(first.quantity if lines else "", several=False)


def _facts(results: Sequence[Result]) -> None:
    facts = results[0].facts
    for name in ("edge", "silent"):
        if name in facts:
            messages.must_know(facts[name])
    with layout.fold():
        for name in ("transform", "canvas", "layers", "seed", "time"):
            if name in facts:
                st.caption(f"**{name.capitalize()}:** {messages.escaped(facts[name])}")
        if len(results) > 1:
            st.caption(f"**Layers of the second network:** {messages.escaped(results[1].facts['layers'])}")


if __name__ == "__main__":
    page()
