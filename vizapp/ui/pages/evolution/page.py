"""During training: the features of a network after each of some epochs, from the checkpoints of its training."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from vizapp.engine.trace.sites import Site
from vizapp.errors import VizError, plain_name
from vizapp.media.source import file_stamp
from vizapp.methods.base import Result
from vizapp.methods.evolution import EvolutionParams, chosen_channels, chosen_site, folder_of
from vizapp.methods.evolution_columns import Columns
from vizapp.methods.params import build
from vizapp.ui.inputs import datasets, image_picker, networks
from vizapp.ui.inputs.datasets import Collection
from vizapp.ui.pages.evolution import exports, player
from vizapp.ui.pages.evolution.series_runs import SeriesRequest
from vizapp.ui.session import access, compute, forms, messages, progress, state
from vizapp.ui.widgets import layout, options, unit_picker
from vizapp.zoo.network import Network
from vizapp.zoo.series import Series, bundled_series, open_series

_KEY, _EXAMPLE = "evolution", "vizapp/lenet5-digits"
_OPTIONS = ("units", "seed", "rule")


@dataclass(frozen=True)
class Subject:
    """What the page is about: a network, the folder of its checkpoints, and whether that is only the example."""

    network: Network
    folder: str
    example: bool = False


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "During training", "How the features of a network grew: what its units looked for after each epoch."
    )
    subject = _subject()
    sites = () if subject is None else networks.sites(subject.network)
    if subject is None or not sites:
        return
    pictures = _photos(subject)
    series = _series(subject)
    site = _controls(subject, sites)
    if pictures is None or series is None:
        return
    try:
        asked = _request(subject, pictures, series, site)
        if (
            not asked.is_whole
            and not progress.is_cancelled(asked.key)
            and asked.follow(lambda: _draw(asked, whole=False))
        ):
            return
        if notes := state.take_notes():  # about a run that failed
            for sentence in notes:
                messages.warn(sentence)
            _offer_another()
        elif not asked.is_whole:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.caption("Not all checkpoints were looked at.")
                progress.start_button("Continue", "evolution.go_on", asked.key)
        _draw(asked, whole=True)
    except VizError as error:
        messages.warn(str(error))
        _offer_another()


def _offer_another() -> None:
    """Draw a button that forgets the given folder, such as one of the checkpoints of the network before."""
    if forms.values(_KEY)["checkpoints"]:
        st.button(
            "Forget this folder", key="evolution.forget", on_click=forms.reset, args=(_KEY, ("checkpoints",)),
        )  # fmt: skip


def _subject() -> Subject | None:
    """The current network and its checkpoints, or the example; None where a message explains why there is neither."""
    network, given = networks.current(), str(forms.values(_KEY)["checkpoints"])
    if network is None or given:
        return None if network is None else Subject(network, given)
    bundled = bundled_series(network.name)
    if bundled is not None:
        return Subject(network, str(bundled))
    example = networks.published(_EXAMPLE)
    return None if example is None else Subject(example, str(folder_of(example, "")), example=True)


def _photos(subject: Subject) -> Collection | None:
    """Draw what is shown, and the choice of the photos; the example has its own."""
    if not subject.example:
        return image_picker.choose_collection(_KEY, subject.network)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="evolution_example"):
        messages.must_know(
            f"An example: a training of {_EXAMPLE}, which comes with vizapp. For {state.get(state.NETWORK)}, give the "
            "folder with the checkpoints of its training, under Checkpoints."
        )
        st.button("Take LeNet-5", key="evolution.example", on_click=state.put, args=(state.NETWORK, _EXAMPLE))
    return datasets.list_collection("digits")


def _series(subject: Subject) -> Series | None:
    """The checkpoints in the folder; None where a message says what is wrong."""
    own = str(forms.values(_KEY)["checkpoints"])
    try:
        folder = access.allowed(subject.folder) if own else subject.folder
        found = compute.compute(
            ("evolution.series", str(folder), file_stamp(access.allowed(own)) if own else "", str(state.load(state.LOOKED, 0))),
            lambda tick: open_series(folder, tick), size=lambda series: 1000 * (1 + len(series.files)),
            title="Looking for checkpoints", raises=True,
        )  # fmt: skip
    except VizError as error:
        messages.warn(str(error))
        _offer_another()
        return None
    return found


def _controls(subject: Subject, sites: tuple[Site, ...]) -> Site:
    """Draw the controls; returns the layer."""
    chosen = None if subject.example else unit_picker.chosen_site(subject.network, state.LAYER)
    site = chosen or chosen_site(subject.network, "")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="evolution_controls"):
        if not subject.example:
            unit_picker.layer_list(_KEY, sites, site)
        seed = forms.choices(_KEY)["seed"]
        st.button(
            "", key="evolution.shuffle", icon=":material/shuffle:", help="Other units of this layer", on_click=state.put,
            args=(seed, state.get(seed) + 1),
        )  # fmt: skip
        if access.names_folders():
            with st.popover("Checkpoints", icon=":material/folder:"):
                forms.draw(_KEY, ("checkpoints",))
                messages.info(
                    f"The path of a folder {access.place()} with one file per epoch: {', '.join(networks.CHECKPOINTS)}; "
                    "or sub-folders as Hugging Face writes them. "
                    "The epoch is read from the name (epoch-012.pt), or from the file."
                )
        options.popover(_KEY, _OPTIONS)
        st.button(
            "Look again", key="evolution.look_again", icon=":material/refresh:", type="tertiary", on_click=_look_again,
            help="Look for new checkpoints, while a training runs",
        )  # fmt: skip
    options.changed_line(_KEY, _OPTIONS)
    return site


def _look_again() -> None:
    state.save(state.LOOKED, state.load(state.LOOKED, 0) + 1)


def _request(subject: Subject, pictures: Collection, series: Series, site: Site) -> SeriesRequest:
    values = forms.values(_KEY) | {"checkpoints": subject.folder, "site": site.name}
    params = build(EvolutionParams, values, _KEY)
    channels = chosen_channels(site, params.units, params.seed)
    maker = Columns(subject.network, pictures.source, site, channels, params.rule)
    return SeriesRequest(maker, series, params, pictures.listing)


def _draw(asked: SeriesRequest, whole: bool) -> None:
    """Draw what is there; the facts and the downloads below it if nothing more is on its way."""
    result = asked.so_far()
    if result is None:
        return
    player.draw(asked, result, whole)
    if whole:
        _facts(asked, result)
        exports.row(asked, result)


def _facts(asked: SeriesRequest, result: Result) -> None:
    facts = result.facts
    for name in ("skipped", "same epoch", "silent", "unreadable", "accuracy"):
        if name in facts:
            messages.must_know(facts[name])
    messages.must_know(
        "A unit whose strongest photo is another one (orange) need not have changed much: two photos can be almost as strong."
    )
    with layout.fold():
        folder = plain_name(asked.series.folder.name)
        st.caption(
            f"**Checkpoints:** {messages.escaped(facts['checkpoints'].replace(str(asked.series.folder), folder))}"
        )
        for name in ("units", "photos", "jumps", "cells", "certificate", "caution"):
            if name in facts:
                st.caption(f"**{name.capitalize()}:** {messages.escaped(facts[name])}")


if __name__ == "__main__":
    page()
