"""The options of a method: a popover with a reset button, and a line that lists the changed ones."""

from __future__ import annotations

from collections.abc import Callable, Collection

import streamlit as st

from vizapp.ui.session import forms, messages, state
from vizapp.ui.session.choice import Choice


def popover(
    method: str,
    names: Collection[str],
    title: str = "Options",
    draw_more: Callable[[], None] | None = None,
    more: Collection[Choice] = (),
) -> None:
    """Draw a button that opens the options.

    Args:
        method: Key of the method. The reset button's widget key is `<method>.reset`.
        names: Parameters of the method that are drawn, in the order of its form.
        title: Text on the button.
        draw_more: Draws further widgets, above the parameters.
        more: Choices that those widgets change; they are reset with the parameters.
    """
    with st.popover(title, icon=":material/tune:"):
        if draw_more is not None:
            draw_more()
        forms.draw(method, names)
        changed = bool(forms.changed(method, names)) or any(state.get(choice) != choice.default for choice in more)
        st.button(
            "Reset to defaults", key=f"{method}.reset", type="tertiary", on_click=_reset, args=(method, names, more),
            disabled=not changed,
        )  # fmt: skip


def changed_line(method: str, names: Collection[str]) -> None:
    """List the options that differ from their defaults, if there are any."""
    changed = forms.changed(method, names)
    if changed:
        messages.info("Options: " + ", ".join(f"{forms.label(n).lower()} {_word(v)}" for n, v in changed.items()) + ".")


def _reset(method: str, names: Collection[str], more: Collection[Choice]) -> None:
    forms.reset(method, names)
    for choice in more:
        state.put(choice, choice.default)


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return forms.listed(value)
    return ("off", "on")[value] if isinstance(value, bool) else str(value)
