"""Access rules: what users of a shared server may not do."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import streamlit as st

from vizapp.errors import VizError, showable, without_folders
from vizapp.files import local_path
from vizapp.settings import settings

CHECKPOINT_MB = (
    512  # of the largest checkpoint that the owner of the machine uploads; a file is opened by its path at any size
)


def shared() -> bool:
    """Whether the app runs in server mode, where it may have users other than the owner of the machine.

    `VIZAPP_MODE` decides (`server` or `local`). Without it, an app on a loopback address is local. Behind a proxy on the
    same machine the app listens on a loopback address, so `VIZAPP_MODE=server` must be set.
    """
    mode = settings().mode
    return mode == "server" or (mode == "" and not _is_loopback(st.get_option("server.address")))


def _is_loopback(address: str | None) -> bool:
    """Whether the address is a loopback one. No address means all addresses of the machine."""
    if address == "localhost":
        return True
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def root() -> Path | None:
    """The folder that contains every folder and file that a user may open; None: the whole machine.

    Raises:
        VizError: server mode without `VIZAPP_ROOT`, where no folder can be opened.
    """
    given = settings().root
    if given is None and shared():
        raise VizError("Folders of this machine cannot be opened here; upload your photos.", code="no-folders-here")
    return given.resolve() if given is not None else None


def place() -> str:
    """Where the folders and files are that a user may open, in words."""
    return "on this machine" if settings().root is None else "in this server's photo folder"


def discreet(sentence: str) -> str:
    """The sentence without folders of absolute paths where users must not see them, on a server."""
    return without_folders(sentence) if shared() else sentence


def names_folders() -> bool:
    """Whether the user may open folders and files of this machine at all."""
    return settings().root is not None or not shared()


def checkpoint_mb() -> int:
    """The largest upload of a checkpoint in megabytes: `VIZAPP_CHECKPOINT_MB`, else that of photos on a server, or 512."""
    return settings().checkpoint_mb or (settings().upload_mb if shared() else CHECKPOINT_MB)


def _unquoted(path: str) -> str:
    """The path without the quotes in which file managers copy it, unless there is something of that name."""
    text = path.strip()
    quoted = len(text) > 2 and text[0] in "'\"" and text[0] == text[-1]
    return text[1:-1] if quoted and not os.path.exists(text) else path


def allowed(path: str, noun: str = "folder") -> Path:
    """The path that the user entered; with a root the resolved one, relative to it. Without, quotes around it are left out.

    Links are followed before the path is compared with the root. The error does not reveal whether anything exists
    outside of the root.

    Raises:
        VizError: it is not a path, or is outside of the root.
    """
    inside = root()
    if inside is None:
        return local_path(_unquoted(path), noun)
    outside = VizError(
        f"{showable(path)} is outside of the folder that users of this server may open.", code="outside-the-root"
    )
    # `~` is not expanded, because that would reveal user names; two slashes would contact another machine.
    if path.strip().startswith(("~", "//", "\\\\")):
        raise outside
    try:
        found = (inside / local_path(path.strip(), noun)).resolve()
    except (OSError, RuntimeError):  # a link to itself, or a name that is too long
        raise outside from None
    if not found.is_relative_to(inside):
        raise outside
    return found
