"""Start: a photo, a network, and a card per question, filled one after the other."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.picture import Picture
from vizapp.media.transforms import shrink
from vizapp.methods.base import Question
from vizapp.ui.app import sidebar, tour_bar
from vizapp.ui.app.pages import pages
from vizapp.ui.inputs import image_picker, images, networks, targets
from vizapp.ui.pages.start.cards import CARDS, Answer, Card, Subject
from vizapp.ui.session import messages, reports, state, url
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
    told: dict[str, Answer] = {}
    for card, place in zip(CARDS, places, strict=True):
        with place["picture"]:
            messages.guard(partial(_fill, card, place, subject, told))
    _offer(subject, told)


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


def _link(card: Card, place: dict[str, Any], more: dict[str, str], question: str = "") -> None:
    label = question or _question(card)
    place["link"].page_link(pages()[card.page].page, label=label, query_params=url.link(more))


def _question(card: Card) -> str:
    return card.question or pages()[card.page].question


def _fill(card: Card, place: dict[str, Any], subject: Subject, told: dict[str, Answer]) -> None:
    """Draw the picture of a card, or a sentence that says why there is none; note the answer by its question."""
    try:
        answer = card.draw(subject)
    except VizError as error:
        told[card.unanswered or _question(card)] = Answer(str(error), {})
        _link(card, place, {}, card.unanswered)
        place["words"].caption(messages.escaped(str(error)))
        return
    if answer is not None:
        told[_question(card)] = answer
        place["words"].caption(messages.escaped(answer.sentence))
        _link(card, place, answer.link)


def _offer(subject: Subject, told: dict[str, Answer]) -> None:
    """Offer the cards for a report: their pictures with the sentences, and a table of those without a picture."""
    pictures = {question: answer.picture for question, answer in told.items() if answer.picture is not None}
    captions = {question: told[question].sentence for question in pictures}
    rows = [
        {"question": question, "answer": f"{answer.words} {answer.sentence}".strip()}
        for question, answer in told.items()
        if question not in pictures
    ]
    asked, title = Question(subject.network, subject.picture), f"All questions about {subject.picture.name}"
    reports.offer_drawn("", title, pictures, rows, asked=asked, captions=captions, columns=4)


if __name__ == "__main__":
    page()
