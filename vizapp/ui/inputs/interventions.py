"""The interventions of the session: the same on every page, part of the link, applied to the network that pages are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from vizapp.errors import VizError, plain_name
from vizapp.media.picture import Picture, open_picture
from vizapp.media.samples import open_sample, sample_names
from vizapp.media.sources import BUNDLED
from vizapp.service.jobs import Tick
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.ui.inputs import stored_uploads
from vizapp.ui.session import compute, state, url
from vizapp.zoo.intervention_text import MOST_TOLD, in_words, read_intervention
from vizapp.zoo.interventions import Intervention, intervention_text, under
from vizapp.zoo.network import Network

_MOST = 4  # networks under interventions that are kept: each keeps the network itself


@st.cache_resource(show_spinner=False)
def _changed() -> ByteBoundedCache[tuple[Network, dict[str, str]]]:
    """The last networks under interventions, of all sessions, each with what did not fit it."""
    return ByteBoundedCache(_MOST)


def chosen() -> list[Intervention]:
    """The interventions of the session."""
    return [read_intervention(text) for text in state.get(state.SET)]


def choose(given: Sequence[Intervention]) -> None:
    """Take these in place of the session's."""
    state.put(state.SET, tuple(map(intervention_text, given)))


def restore() -> None:
    """Take none: the network answers as it is."""
    state.put(state.SET, ())


def sentences() -> list[str]:
    """What is changed, a phrase per intervention."""
    return [in_words(replace(one, value=_name(one))) for one in chosen()]


def applied(network: Network) -> Network | None:
    """The network under the session's interventions; those that do not fit it are dropped, with a sentence.

    None where a message explains why there is none.
    """
    texts = state.get(state.SET)
    if not texts:
        return network
    found = compute.compute(
        compute.key_of("interventions", network, set=texts), lambda tick: _under(network, texts, tick),
        size=lambda found: 1, title="Changing the network", device=str(network.device), shelf=_changed(),
    )  # fmt: skip
    if found is None:
        return None
    changed, problems = found
    if problems:
        for text, problem in problems.items():
            state.note(f"The change {plain_name(text, MOST_TOLD)} was dropped. {problem}")
        state.put(state.SET, tuple(text for text in texts if text not in problems))
        st.rerun()
    return changed


def _under(network: Network, texts: Sequence[str], tick: Tick) -> tuple[Network, dict[str, str]]:
    """The network under these interventions, and what is wrong with those that do not fit it."""
    problems = {}
    for text in texts:
        try:
            network = under(network, [_opened(read_intervention(text))], tick=tick)
        except VizError as error:
            problems[text] = str(error)
    return network, problems


def _opened(given: Intervention) -> Intervention:
    """The intervention with its photos opened: an address must not open files of the machine."""
    if given.operation == "freeze":
        return replace(given, value=named_photo(str(given.value)))
    if given.operation == "mean" and isinstance(given.value, str) and given.value not in BUNDLED:
        raise VizError(
            f"Means here are over the folder {' or '.join(BUNDLED)}, not {given.value!r}.", code="no-such-folder"
        )
    return given


def named_photo(name: str) -> Picture:
    """A sample, or an upload that is stored: what an address may name.

    Raises:
        VizError: there is none.
    """
    digest = url.upload_digest(name)
    if digest is not None:
        content, given = stored_uploads.restore(digest, "photo")
        return open_picture(content, name=given)
    if name not in sample_names():
        raise VizError(f"There is no sample photo {name!r}.", code="no-such-sample")
    return open_sample(name)


def _name(given: Intervention) -> object:
    return "an uploaded photo" if given.operation == "freeze" and url.upload_digest(str(given.value)) else given.value
