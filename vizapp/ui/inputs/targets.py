"""What is explained of a network's output: the same on every page that explains answers, and part of the link."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from vizapp.engine.trace.sites import Unit
from vizapp.errors import VizError, plain_name
from vizapp.media.picture import Picture
from vizapp.service.lru_cache import ByteBoundedCache
from vizapp.ui.inputs import images, interventions
from vizapp.ui.session import compute, messages, state
from vizapp.zoo.network import Network, class_unit
from vizapp.zoo.target import Target, toward
from vizapp.zoo.target_text import read_target, target_text

_MOST = 8  # networks toward a target that are kept: each keeps the network itself
_MOST_TOLD = 60


@st.cache_resource(show_spinner=False)
def _aimed() -> ByteBoundedCache[tuple[Network, Unit | None]]:
    """The last networks toward a target, of all sessions, each with the unit of its class."""
    return ByteBoundedCache(_MOST)


def chosen() -> Target | None:
    """The target of the session."""
    text = state.get(state.TARGET)
    return None if text is None else read_target(text, files=False)


def choose(target: Target | None) -> None:
    """Take this target in place of the session's."""
    state.put(state.TARGET, None if target is None else target_text(target))
    state.save(state.DROPPED, None)


def default(network: Network) -> Target | None:
    """What is explained of a network without class scores if nothing is chosen; None if it has these, or nothing fits."""
    if network.task == "embedding":
        return Target(embedding=other_photos()[0])
    return {"class map": Target(region="predicted"), "boxes": Target(box=0)}.get(network.task)


def other_photos() -> list[str]:
    """The sample photos that suit the network, without the current one."""
    return [name for name in images.sample_names() if images.origin() != ("sample", name)]


def applied(network: Network, picture: Picture) -> Network | None:
    """The network toward the session's target; one that does not fit network or photo is dropped, with a sentence.

    None where a message explains why there is none.

    Args:
        network: The network without a target.
        picture: The photo of the question.
    """
    given = chosen()
    _tell_dropped(given)
    target = default(network) if given is None else given
    if target is None:
        return network
    try:
        found = _toward(network, target, picture)
    except VizError as error:
        if given is None:
            messages.warn(f"{error} Choose what is explained.")
            return network
        text = plain_name(state.get(state.TARGET), _MOST_TOLD)
        choose(None)
        state.save(state.DROPPED, (f"The target {text} was dropped. {error}", _subject()))
        st.rerun()
    if found is None:
        return None
    return found[0]


def _subject() -> tuple[object, ...]:
    """What a sentence about a dropped target belongs to: network and photo."""
    return state.get(state.NETWORK), images.origin()


def _tell_dropped(given: Target | None) -> None:
    """Say which target was dropped until another one, another network or another photo is chosen."""
    sentence, subject = state.load(state.DROPPED) or ("", ())
    if sentence and given is None and subject == _subject():
        messages.warn(sentence)


def like_current(network: Network, picture: Picture) -> Network:
    """The network that is compared with the current one, toward the same target; as it is if that does not fit, as is said."""
    target = chosen() or default(network)
    try:
        found = None if target is None else _toward(network, target, picture)
    except VizError as error:
        messages.warn(str(error))
        found = None
    return network if found is None else found[0]


def for_several(network: Network) -> Network | None:
    """The network toward the session's target where several photos are asked about; None where a sentence says why not.

    Where each photo has a region or a box of its own, the whole map stands for the region that nobody chose.
    """
    target, plain = chosen(), network.untargeted
    if plain is None or not network.of_photo:
        return network
    if target is None and plain.task == "class map":
        return toward(plain, Target(region="whole"))[0]
    messages.info(
        f"What is explained ({network.target}) was found on one photo, and another photo has another. Choose a whole map, a "
        "cell or a region to compare several photos."
    )
    return None


def class_of(network: Network, picture: Picture) -> int | None:
    """The class of the session's target or, without one, of the default; None if it has none or does not fit."""
    target = chosen() or default(network.untargeted or network)
    try:
        found = None if target is None else _toward(network, target, picture)
    except VizError:
        return None
    return None if found is None or found[1] is None else found[1].channel


def class_unit_of(network: Network, picture: Picture) -> Unit | None:
    """The unit of that class of the network toward the session's target."""
    class_ = class_of(network, picture)
    return None if class_ is None else class_unit(network, class_)


def explained_class(network: Network, picture: Picture, probabilities: np.ndarray) -> int:
    """The class of a network toward the session's target that is explained unless another one is chosen on the page.

    It is that of the target; otherwise the most probable one.

    Args:
        network: The network, toward the target or without one.
        picture: The photo of the question.
        probabilities: Those of its classes on the photo, `[classes]`.
    """
    class_ = class_of(network, picture)
    return int(probabilities.argmax()) if class_ is None or class_ >= len(probabilities) else class_


def _toward(network: Network, target: Target, picture: Picture) -> tuple[Network, Unit | None] | None:
    return compute.compute(
        compute.key_of("target", network, picture, target=target_text(target)),
        lambda tick: toward(network, _opened(target), picture),
        size=lambda found: 1, title="Finding what is explained", device=str(network.device), shelf=_aimed(), raises=True,
    )  # fmt: skip


def _opened(target: Target) -> Target:
    """The target with its photo opened: an address must not open files of the machine."""
    if target.embedding is None:
        return target
    return replace(target, embedding=interventions.named_photo(str(target.embedding)))
