"""About: the app, its bundled networks, its sources, and its privacy."""

from __future__ import annotations

import streamlit as st

from vizapp.methods import methods, problems
from vizapp.settings import ASSETS
from vizapp.ui.app import tour_bar
from vizapp.ui.session import access, messages
from vizapp.ui.session.glossary import GLOSSARY
from vizapp.ui.widgets import layout

_WHAT = """
Choose a network and a photo, and see how its layers respond. Every visualization follows a published paper, and the
numbers behind it can be downloaded.

The networks are those of torchvision and, if it is installed, of timm; your own checkpoints; and three small
networks that come with the app and need no download.
"""
_PRIVACY = """
Photos and checkpoints stay on the machine that runs the app. Uploads are stored in its cache folder, so that a reload
finds them, and deleted at the next visit after a day without use. Zip files that you upload for a gallery, and the
galleries themselves, stay there{until}. The app downloads only published
weights and torchvision data sets, and only when you choose one that is not on this machine. It sends no statistics.
"""
_ALONE = " until they are deleted"
_FOR_OTHERS = " and, like all results from your uploads, are deleted a few minutes after you leave"


def page() -> None:
    """Draw the page."""
    layout.page_title("About", "See what a convolutional network computes.")
    with st.container(width=720):
        st.markdown(_WHAT)
        st.subheader("Tours", anchor=False)
        for problem in tour_bar.links("about", told=True):
            messages.warn(problem)
        st.subheader("Terms", anchor="terms")
        st.markdown("\n".join(f"- **{term}**: {meaning}" for term, meaning in GLOSSARY.items()))
        st.subheader("Your photos", anchor=False)
        st.markdown(_PRIVACY.format(until=_FOR_OTHERS if access.shared() else _ALONE))
        cards = sorted(ASSETS.glob("*.md"))
        if cards:
            st.subheader("Networks that come with the app", anchor=False)
        for card in cards:
            with st.expander(card.stem):
                st.markdown(card.read_text("utf-8"))
        for problem in problems():
            messages.warn(problem)
        st.subheader("Sources", anchor=False)
        papers = [f"- {method.title}: {messages.linked(method.source)}" for method in methods().values()]
        st.markdown("\n".join([*papers, "- Sample photos: scikit-image and scikit-learn"]))


if __name__ == "__main__":
    page()
