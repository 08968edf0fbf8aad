"""For one person or for many: what strangers on a shared server may not do, and where the line is drawn."""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path

import streamlit as st

from vizapp.errors import VizError
from vizapp.media.picture import local_path, showable
from vizapp.settings import settings


def shared() -> bool:
    """Whether others than the machine's owner may be using the app: "server mode".

    `VIZAPP_MODE` says so (`server`, `local`); without it, every address but a loopback one is for others. An app behind
    a proxy on the same machine listens on a loopback address and must be told.
    """
    mode = settings().mode
    return mode == "server" or (mode == "" and not _is_loopback(st.get_option("server.address")))


def _is_loopback(address: str | None) -> bool:
    """No address at all means every one that the machine has."""
    if address == "localhost":
        return True
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def root() -> Path | None:
    """The folder that all folders and files which a person names must lie in; None: anywhere on this machine.

    Raises:
        VizError: in server mode without `VIZAPP_ROOT`: no folder can be named.
    """
    given = settings().root
    if given is None and shared():
        raise VizError("Folders of this machine cannot be opened here; upload your pictures.", code="no-folders-here")
    return given.resolve() if given is not None else None


def place() -> str:
    """Where folders and files that a person names lie, in words."""
    return "on this machine" if settings().root is None else "in this server's pictures"


def discreet(sentence: str) -> str:
    """The sentence as strangers may read it: without where things lie on this machine."""
    if not shared():
        return sentence
    here = settings()
    places: list[tuple[Path | str | None, str]] = [
        (here.cache, "the cache folder"), (here.weights, "the folder of weights"), (here.root, "the pictures"),
        (here.root and here.root.resolve(), "the pictures"), (Path.home(), "the home folder"),
        (tempfile.gettempdir(), "the temporary folder"),
    ]  # fmt: skip
    words = {str(folder): word for folder, word in places if folder is not None and len(str(folder)) > 1}
    for folder in sorted(words, key=len, reverse=True):
        sentence = sentence.replace(folder, words[folder])
    return sentence


def names_folders() -> bool:
    """Whether a person may name folders and files of this machine at all."""
    return settings().root is not None or not shared()


def allowed(path: str, noun: str = "folder") -> Path:
    """The path that a person named, as it is on this machine; with a root, taken from there.

    Links are followed before the path is compared with the root, and nothing is told about what lies outside.

    Raises:
        VizError: it is no path, or lies outside of the root.
    """
    inside = root()
    if inside is None:
        return local_path(path, noun)
    outside = VizError(
        f"{showable(path)} does not lie in the folder that is open to visitors of this server.", code="outside-the-root"
    )
    # Not expanded: that would tell which users there are. Not looked for: two slashes begin the name of another machine.
    if path.strip().startswith(("~", "//", "\\\\")):
        raise outside
    try:
        found = (inside / local_path(path.strip(), noun)).resolve()
    except (OSError, RuntimeError):  # a link that leads to itself, a name that is too long
        raise outside from None
    if not found.is_relative_to(inside):
        raise outside
    return found
