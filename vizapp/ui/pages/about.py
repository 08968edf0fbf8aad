"""About: what this is, what comes with it, where its definitions are from, what happens to pictures."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from vizapp.methods import methods, problems
from vizapp.ui.session import access, messages
from vizapp.ui.widgets import layout

_ASSETS = Path(__file__).resolve().parents[3] / "assets"
_WHAT = """
vizapp shows what a convolutional network computes. Pick a network, give it a picture, and look at what its layers
answer: every picture here is defined by a paper, and the numbers behind it can be downloaded.

Networks of torchvision, of timm where it is installed, your own checkpoints, and two small networks that come with
the app and need no download.
"""
_PRIVACY = """
Pictures and checkpoints stay on the machine that runs the app, and are gone when it stops; zip files given for a gallery,
and the galleries, stay in its cache folder{until}. The only things ever fetched are a network's published weights and a data
set of torchvision, when you pick one that is not on this machine. No statistics are sent.
"""
_ALONE = " until somebody deletes them"
_FOR_OTHERS = ". What you upload to this server, and what was made of it, is deleted minutes after you leave"


def page() -> None:
    """Draw the page."""
    layout.page_title("About", "A window into convolutional networks.")
    with st.container(width=720):
        st.markdown(_WHAT)
        st.subheader("Your pictures", anchor=False)
        st.markdown(_PRIVACY.format(until=_FOR_OTHERS if access.shared() else _ALONE))
        cards = sorted(_ASSETS.glob("*.md"))
        if cards:
            st.subheader("Networks that come with the app", anchor=False)
        for card in cards:
            with st.expander(card.stem):
                st.markdown(card.read_text("utf-8"))
        for problem in problems():
            messages.warn(problem)
        st.subheader("Sources", anchor=False)
        papers = [f"- {method.title}: {messages.linked(method.source)}" for method in methods().values()]
        st.markdown("\n".join([*papers, "- Sample pictures: scikit-image and scikit-learn"]))


if __name__ == "__main__":
    page()
