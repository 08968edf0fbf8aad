"""Files of a repository on the Hugging Face hub, from its local cache or downloaded into it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from vizapp.errors import VizError, plain_name

Tick = Callable[[float], None]


@cache
def _library() -> Any:
    import huggingface_hub  # optional: it comes with timm and transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    return huggingface_hub


def split_name(name: str) -> tuple[str, str | None]:
    """The repository and the revision of `owner/name` or `owner/name@revision`."""
    repository, _, revision = name.partition("@")
    return repository.strip(), revision.strip() or None


def hub_file(name: str, file: str, tick: Tick | None = None) -> Path | None:
    """The file of a repository `owner/name[@revision]`; None if the repository has no such file.

    The cache, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and tokens are those of the library huggingface_hub.
    `tick` is called with the progress from 0 to 1 and may raise to cancel.

    Raises:
        VizError: there is no such repository, it cannot be reached, or huggingface_hub is not installed.
    """
    found = _look_up(name, file)
    if found is not None:
        return found if isinstance(found, Path) else None
    huggingface_hub, (repository, revision) = _library(), split_name(name)
    errors = huggingface_hub.errors
    endpoint = os.environ.get("HF_ENDPOINT") or None
    options: dict[str, Any] = {"tqdm_class": _progress(tick)} if tick is not None else {}
    try:
        with contextlib.suppress(errors.HfHubHTTPError, errors.FileMetadataError):  # reported below
            url = huggingface_hub.hf_hub_url(repository, file, revision=revision, endpoint=endpoint)
            huggingface_hub.get_hf_file_metadata(
                url, endpoint=endpoint
            )  # without the library's tries for half a minute
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision, endpoint=endpoint, **options))
    except errors.RemoteEntryNotFoundError:
        return None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        what = "is not public" if isinstance(error, errors.GatedRepoError) else "does not exist or is not public"
        raise VizError(
            f"The repository {plain_name(name)!r} {what} on the Hugging Face hub.", code="no-such-network"
        ) from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, *_no_connection()) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VizError(
            f"{file} of {plain_name(name)} is not on this machine and could not be downloaded: {plain_name(reason)}.",
            code="download-failed",
        ) from None


def cached_file(name: str, file: str) -> Path | None:
    """The file in the local cache, or None.

    Raises:
        VizError: that is no name of a repository, or huggingface_hub is not installed.
    """
    found = _look_up(name, file)
    return found if isinstance(found, Path) else None


def _look_up(name: str, file: str) -> Path | Literal["no such file"] | None:
    """The file in the local cache, or that the repository has none; None if the cache does not know."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise VizError(f"{plain_name(name)} requires huggingface_hub: pip install transformers.", code="not-installed")
    huggingface_hub, (repository, revision) = _library(), split_name(name)
    try:
        found = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
    except huggingface_hub.errors.HFValidationError:
        raise VizError(
            f"{plain_name(name)!r} is no name of a repository; use owner/name.", code="no-such-network"
        ) from None
    return Path(found) if isinstance(found, str) else None if found is None else "no such file"


def _no_connection() -> tuple[type[Exception], ...]:
    """The errors of the library's HTTP client, which has changed between its versions."""
    kinds = []
    for library in ("httpx2", "httpx", "requests"):
        if library in sys.modules:
            client = sys.modules[library]
            kinds.append(getattr(client, "RequestError", None) or client.RequestException)
    return tuple(kinds)


def _progress(tick: Tick) -> type[Any]:
    """A progress bar that calls `tick` and draws nothing."""

    class Progress(_library().utils.tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # of huggingface_hub's own bars
            super().__init__(*arguments, **options | {"disable": True})
            self.of, self.done = options.get("total") or 0, options.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.done += n or 0
            if self.of:
                tick(min(1.0, self.done / self.of))

    return Progress
