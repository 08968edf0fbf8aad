"""Start: a photo, a network, and a card per question, filled one after the other."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.ui.app import sidebar, tour_bar
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import image_picker, images, networks, targets
from vizapp.ui.pages.start.cards import CARDS, Card, Subject
from vizapp.ui.session import messages, state, url
from vizapp.ui.widgets import image_tiles, layout

_PHOTO = 320  # pixels of the longer side


def page() -> None:
    """Draw the page."""
    layout.page_title(
        "See what a convolutional network computes", "One photo, one network, and a card for each question about them."
    )
    with st.container(key="start_choice", horizontal=True, gap="medium"):
        photo = st.container(width=230)
        with st.container():
            image_picker.choose_own("start")
            with st.container(width=438):
                sidebar.network_list("start", state.NETWORK)
            status = st.container()
    with st.container(key="start_cards"):
        places = [_draw_empty(card) for card in CARDS]
    tour_bar.links("start")
    shown: list[Picture] = []
    with photo:
        messages.guard(lambda: shown.append(_photo()))
    with status:
        network = networks.current()
    if network is None or not shown:
        return
    if network.weights == "none":
        with status:
            messages.info("Random weights: this network has learned nothing yet.")
    with status:
        aimed = targets.applied(network, shown[0])
    subject = Subject(network, shown[0], aimed)
    for card, place in zip(CARDS, places, strict=True):
        with place["picture"]:
            messages.guard(partial(_fill, card, place, subject))


def _photo() -> Picture:
    picture = images.current()
    image_tiles.picture("start.photo", shrink(picture.pixels, _PHOTO), picture.name)
    st.caption(messages.escaped(picture.name))
    return picture


def _draw_empty(card: Card) -> dict[str, Any]:
    """Draw a card without its picture; returns the places of its parts."""
    with st.container(border=True, key=f"start_card_{card.key}"):
        place = {"link": st.empty(), "picture": st.container(key=f"start_picture_{card.key}"), "words": st.empty()}
    _link(card, place, {})
    place["words"].caption(pages()[card.page].title)
    return place


def _link(card: Card, place: dict[str, Any], more: dict[str, str]) -> None:
    spec = pages()[card.page]
    place["link"].page_link(spec.page, label=card.question or spec.question, query_params=url.link(more))


def _fill(card: Card, place: dict[str, Any], subject: Subject) -> None:
    """Draw the picture of a card, or a sentence that says why there is none."""
    try:
        answer = card.draw(subject)
    except VizError as error:
        place["words"].caption(messages.escaped(str(error)))
        return
    if answer is not None:
        place["words"].caption(messages.escaped(answer.sentence))
        _link(card, place, answer.link)


if __name__ == "__main__":
    page()
