"""Settings, read from environment variables that begin with `VIZAPP_`."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vizapp.errors import VizError
from vizapp.files import local_path

VERSION = "0.1.0"
_PACKAGE = Path(__file__).resolve().parent
# The folder of `streamlit_app.py`, `.streamlit` and `assets`: the checkout, or `share` in an installed package.
TOP = share if (share := _PACKAGE / "share").is_dir() else _PACKAGE.parent
ASSETS = TOP / "assets"

_SITE = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]+)?")


@dataclass(frozen=True)
class Settings:
    """The current settings. Names give the units of sizes."""

    device: str
    cache: Path
    weights: Path | None
    tours: Path | None
    upload_mb: int
    checkpoint_mb: int | None
    picture_megapixels: int
    network_gb: float
    answer_mb: int
    memory_gb: float | None
    session_mb: int
    mode: str
    root: Path | None
    frames: tuple[str, ...]
    log: str


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1
    if not (value > 0 and math.isfinite(value)):
        raise VizError(f"{name} is {text!r}; it must be a positive number.", code="bad-setting")
    return value


def _whole(name: str, default: int) -> int:
    value = int(_number(name, default))
    if value < 1:
        raise VizError(f"{name} is {os.environ[name]!r}; it must be at least 1.", code="bad-setting")
    return value


def _sites(name: str) -> tuple[str, ...]:
    sites = os.environ.get(name, "").split()
    for site in sites:
        if not _SITE.fullmatch(site):
            raise VizError(f"{name} names {site!r}; write sites as in https://huggingface.co.", code="bad-setting")
    return tuple(sites)


def settings() -> Settings:
    """The settings from the current environment.

    `VIZAPP_MODE` (`server` or `local`; default: by the app's address), `VIZAPP_ROOT` (users may open only folders inside),
    `VIZAPP_FRAMES` (other sites that may show the app in a frame), `VIZAPP_SESSION_MB` (uploads kept per session, 200),
    `VIZAPP_LOG` (file for a line per answer; `-`: standard error), `VIZAPP_DEVICE` (auto, cpu, cuda:0 …), `VIZAPP_CACHE`
    (folder), `VIZAPP_WEIGHTS` (folder of weight files, searched before downloading), `VIZAPP_TOURS` (folder of tours),
    `VIZAPP_UPLOAD_MB` (25), `VIZAPP_CHECKPOINT_MB` (512; in server mode as `VIZAPP_UPLOAD_MB`),
    `VIZAPP_PICTURE_MEGAPIXELS` (100), `VIZAPP_NETWORK_GB` (memory for the app's cached networks, 4), `VIZAPP_ANSWER_MB` (for
    its cached answers, 768), `VIZAPP_MEMORY_GB` (limit of the process).

    Raises:
        VizError: a value is not a positive number, or not at least 1 for whole numbers, or the mode or the
            form of a site is unknown.
    """
    mode, root = os.environ.get("VIZAPP_MODE", ""), os.environ.get("VIZAPP_ROOT")
    if mode not in ("", "local", "server"):
        raise VizError(f"VIZAPP_MODE is {mode!r}; it must be local or server.", code="bad-setting")
    weights, tours = os.environ.get("VIZAPP_WEIGHTS"), os.environ.get("VIZAPP_TOURS")
    cache = (
        os.environ.get("VIZAPP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vizapp"
    )
    return Settings(
        device=os.environ.get("VIZAPP_DEVICE") or "auto",
        cache=local_path(cache, "cache folder (VIZAPP_CACHE)"),
        weights=local_path(weights, "folder of weights (VIZAPP_WEIGHTS)") if weights else None,
        tours=local_path(tours, "folder of tours (VIZAPP_TOURS)") if tours else None,
        upload_mb=_whole("VIZAPP_UPLOAD_MB", 25),
        checkpoint_mb=_whole("VIZAPP_CHECKPOINT_MB", 1) if os.environ.get("VIZAPP_CHECKPOINT_MB") else None,
        picture_megapixels=_whole("VIZAPP_PICTURE_MEGAPIXELS", 100),
        network_gb=_number("VIZAPP_NETWORK_GB", 4),
        answer_mb=_whole("VIZAPP_ANSWER_MB", 768),
        memory_gb=_number("VIZAPP_MEMORY_GB", 1) if os.environ.get("VIZAPP_MEMORY_GB") else None,
        session_mb=_whole("VIZAPP_SESSION_MB", 200),
        mode=mode,
        root=local_path(root, "root folder (VIZAPP_ROOT)") if root else None,
        frames=_sites("VIZAPP_FRAMES"),
        log=os.environ.get("VIZAPP_LOG", ""),
    )
