"""The parameters of a method as widgets, drawn from its knobs, kept in the session and carried by links."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import streamlit as st

from vizapp import methods
from vizapp.methods.attribution import KINDS
from vizapp.methods.params import knobs
from vizapp.ui.session import state
from vizapp.ui.session.choice import Choice, one_of

# Defaults of a page where they differ from those of Python and the command line. None: what suits network and photo.
_DEFAULTS: dict[str, Any] = dict.fromkeys(("dense.zoom", "probe.photos", "projection.rule", "sanity.rule"))
_DEFAULTS |= {"probe.curve": (5.0, 15.0, 30.0), "trust.kinds": ()}
_NAMES = {key: kind.title for key, kind in KINDS.items()} | {"rms": "RMS", "sites": "Layers"}
FEW = 4  # with more choices, a dropdown replaces the row of buttons


@functools.cache
def choices(method: str) -> dict[str, Choice]:
    """The choices for the parameters of a method, by knob; an address calls them `method.knob`."""
    named = {name: f"{method}.{name}" for name in _knobs(method)}
    return {
        name: Choice(named[name], _DEFAULTS.get(named[name], knob.default), knob.check)
        for name, knob in _knobs(method).items()
    }


@functools.cache
def target(method: str) -> Choice:
    """What a method explains: the network's answer, a class (`state.CLASS`) or a unit (`state.LAYER` and so on)."""
    return Choice(f"{method}.explain", "answer", one_of("answer", "class", "unit"))


def values(method: str, names: Collection[str] | None = None) -> dict[str, Any]:
    """The current values of the parameters `names` (default: all), as `ask` takes them."""
    return {name: state.get(c) for name, c in choices(method).items() if names is None or name in names}


def changed(method: str, names: Collection[str]) -> dict[str, Any]:
    """The values that differ from their defaults."""
    known = choices(method)
    return {name: value for name, value in values(method, names).items() if value != known[name].default}


def draw(
    method: str, names: Collection[str] | None = None, suited: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Draw a widget for each of the parameters `names` (default: all); returns the values, as `ask` takes them.

    `suited`: what widgets show for parameters whose default is what suits network and photo.
    """
    for name, knob in _knobs(method).items():
        if names is None or name in names:
            _widget(knob, choices(method)[name], suited.get(name))
    return values(method, names)


def reset(method: str, names: Collection[str]) -> None:
    """Reset the parameters to their defaults."""
    for name in names:
        choice = choices(method)[name]
        state.put(choice, choice.default)


def label(name: str) -> str:
    """The name of a knob, or of a choice, as words."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def _knobs(method: str) -> dict[str, Any]:
    return {name: knob for name, knob in knobs(methods.method(method).params).items() if knob.read is None}


def _widget(knob: Any, choice: Choice, suited: Any) -> None:
    title = label(knob.name) + (f" ({knob.unit})" if knob.unit else "")
    key = f"form.{choice.name}"
    shown = suited if state.get(choice) is None else None
    how = {"help": f"{knob.help}."} | state.bind(choice, key, shown, every_run=True)
    if knob.choices and len(knob.choices) <= FEW:
        st.segmented_control(title, list(knob.choices), format_func=label, required=True, width="stretch", **how)
    elif knob.choices:
        how |= state.bind(choice, key, shown, every_run=True, options=list(knob.choices))
        st.selectbox(title, format_func=label, **how)
    elif knob.kind is bool:
        st.toggle(title, **how)
    elif knob.kind is tuple:
        how |= state.bind(choice, key, listed(state.get(choice)), every_run=True, read=choice.read)
        st.text_input(title, **how)
    elif knob.kind is str:
        st.text_input(title, **how)
    else:
        low, high = (None if bound is None else knob.kind(bound) for bound in (knob.low, knob.high))
        step = 1 if knob.kind is int else None
        st.number_input(title, low, high, step=step, **how)


def listed(values: Sequence[Any]) -> str:
    """The items of a list, as people write them."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else value for value in values)
