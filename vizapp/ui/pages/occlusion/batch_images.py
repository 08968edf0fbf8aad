"""Which photos the same square is slid over: the samples, some that were given, or those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vizapp.errors import VizError
from vizapp.ui.inputs import images
from vizapp.ui.inputs.images import Origin
from vizapp.ui.pages.occlusion import form
from vizapp.ui.pages.occlusion.sweep_runs import SweepRequest
from vizapp.ui.session import messages
from vizapp.zoo.network import Network

MOST = 24  # photos


@dataclass(frozen=True)
class Photo:
    """One of the photos: where it comes from (as `images.origin`), what it is called, and its sweep."""

    origin: Origin
    name: str
    asked: SweepRequest


def open_photos(network: Network, chosen: Sequence[tuple[Origin, str]]) -> list[Photo]:
    """The photos that can be opened; a sentence about the others."""
    found, wrong = [], []
    for origin, name in chosen:
        try:
            picture = images.open_from(origin)
        except VizError as error:
            wrong.append(str(error))
            continue
        asked = SweepRequest(network, picture, form.params(network, picture), form.unit(network))
        found.append(Photo(origin, name, asked))
    if wrong:
        messages.warn(f"{messages.plural(len(wrong), 'photo')} cannot be opened. {wrong[0]}")
    if not chosen:
        messages.info(
            "Choose some photos. The same square slides over each, and their maps are shown below one another."
        )
    return found
