"""Networks that were taught a person's classes: a known network with a new last layer, kept by name in the cache folder.

`own/NAME` is two files in `own` there: `NAME.safetensors` with the new layer, and `NAME.json`, which says what it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from vizapp.errors import VizError, nearest, quoted
from vizapp.files import atomic_write, natural_key, read_file
from vizapp.settings import VERSION, settings
from vizapp.zoo.network import Network
from vizapp.zoo.new_head import LastLayer, with_head
from vizapp.zoo.recipe import Published, Recipe

SOURCE = "own"
_FORMAT = "own 1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Taught:
    """What the JSON file says. `digest`: of the base network's weights; `checksum`: of the file with the new layer.

    `network` and `weights` are what `load` takes for the base network. `path`, `features` and `activations`: see `LastLayer`.
    `c`: inverse strength of the L2 penalty. `accuracy`: mean over the classes on photos that it did not learn from, 0 to 1;
    None if there were none. `learned` and `tested`: numbers of photos. `data`: the name of their folder.
    """

    network: str
    weights: str
    digest: str
    path: str
    features: str
    activations: tuple[str, ...]
    classes: tuple[str, ...]
    c: float
    accuracy: float | None
    learned: int
    tested: int
    seed: int
    data: str
    parameters: int
    checksum: str = ""
    vizapp: str = VERSION
    format: str = _FORMAT

    @property
    def about(self) -> str:
        """What it is, as a sentence."""
        reached = "" if self.accuracy is None else f", {100 * self.accuracy:.1f} % right on {self.tested} others"
        return f"{self.network} with {len(self.classes)} classes of {self.data}, learned from {self.learned} photos{reached}."


def is_own(name: str | Path) -> bool:
    """Whether this is the name of a taught network, whether or not there is one."""
    return isinstance(name, str) and name.strip().startswith(f"{SOURCE}/")


def names() -> list[str]:
    """The names `own/NAME` of all taught networks, in natural order."""
    with suppress(OSError):
        stems = [name.removesuffix(".json") for name in os.listdir(_folder()) if name.endswith(".json")]
        return [f"{SOURCE}/{stem}" for stem in sorted(filter(_NAME.fullmatch, stems), key=natural_key)]
    return []


def check_name(name: str, overwrite: bool) -> str:
    """The name without `own/`, if a network can be kept under it.

    Raises:
        VizError: it has other characters, or there is such a network and `overwrite` is False.
    """
    bare = name.strip().removeprefix(f"{SOURCE}/")
    if _NAME.fullmatch(bare) is None:
        raise VizError(
            f"A network cannot be called {quoted(name)}: use at most 64 letters (a to z), digits, hyphens and underscores.",
            code="bad-network-name",
        )
    if not overwrite and file(bare).exists():
        raise VizError(
            f"There is a network {SOURCE}/{bare} already; take another name, or replace it (replace=True in Python, --replace "
            "on the command line).",
            code="name-taken",
        )
    return bare


def file(name: str) -> Path:
    """The JSON file of a taught network."""
    return _folder() / f"{name.strip().removeprefix(f'{SOURCE}/')}.json"


def keep(name: str, taught: Taught, weight: np.ndarray, bias: np.ndarray) -> None:
    """Write a taught network: `weight` float32 `[classes F]` and `bias` float32 `[classes]` of the new layer.

    Raises:
        VizError: the cache folder cannot be written.
    """
    place = file(name)
    content = write_tensors({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    told = asdict(replace(taught, checksum=hashlib.sha256(content).hexdigest()))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place.with_suffix(".safetensors"), content, sync="file")
        atomic_write(place, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode(), sync="folder")
    except OSError as error:
        raise VizError(f"Cannot write to {place.parent}: {error.strerror or error}.", code="unwritable") from None


def describe(name: str) -> Taught:
    """What a taught network is.

    Raises:
        VizError: there is none of that name, or its file is damaged.
    """
    place = file(name)
    try:
        if _NAME.fullmatch(place.stem) is None:
            raise FileNotFoundError
        found: dict[str, Any] = json.loads(read_file(place))
        if found["format"] != _FORMAT:
            raise ValueError
        return Taught(**found | {key: tuple(found[key]) for key in ("activations", "classes")})
    except FileNotFoundError:
        raise VizError(
            f"There is no network {name.strip()!r}.{nearest(name.strip(), names())} `teach` makes one from a folder of photos.",
            code="no-such-network",
        ) from None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        raise _damaged(name) from None


def recipe(name: str, find: Callable[[str, str], Recipe]) -> Recipe:
    """The recipe of a taught network, for what is told about it; `find` finds that of the base network by name and weights.

    Raises:
        VizError: there is none of that name, or its base network is not there.
    """
    taught = describe(name)
    base = _base(name, taught, lambda: find(taught.network, "default" if taught.weights == "none" else taught.weights))
    inside = Published(file(name).name, path=file(name))
    return replace(
        base, name=name.strip(), categories=taught.classes, published=inside if taught.weights == "none" else base.published,
        parameters=taught.parameters, accuracy=None, paper_accuracy=None, multiply_adds=None, size_mb=None, data="",
        facts={"kind": "classification", "taught": taught.about},
    )  # fmt: skip


def network_of(name: str, load: Callable[[str, str], Network], weights: str = "default") -> Network:
    """A taught network, or with `weights` "none" one with random weights; `load` loads the base network by name and weights.

    Raises:
        VizError: there is none of that name, a file is damaged, or the base network is not there or has other weights now.
    """
    name, taught = name.strip(), describe(name)
    if weights not in ("default", "none"):
        raise VizError(
            f'{name} has no other weights than its own; use weights="default", or "none" for random ones.',
            code="no-such-weights",
        )
    base = _base(name, taught, lambda: load(taught.network, "none" if weights == "none" else taught.weights))
    tensors = _tensors(name, taught)
    if weights == "none":
        random = torch.Generator().manual_seed(0)
        width = tensors["weight"].shape[1]
        tensors = {key: torch.randn(value.shape, generator=random) / width**0.5 for key, value in tensors.items()}
    elif weights_digest(base.module) != taught.digest:
        raise VizError(
            f"{name} was taught on other weights of {taught.network} than those that are here now; teach it again.",
            code="base-changed",
        )
    features = next((site for site in base.sites if site.name == taught.features), None)
    if features is None:
        raise _damaged(name)
    layer = LastLayer(taught.path, features, taught.activations)
    told = f"{file(name).name}, on {taught.network} ({taught.weights})"
    facts = {"kind": "classification", "weights": "random (seed 0), untrained" if weights == "none" else told}
    facts |= {} if weights == "none" else {"taught": taught.about}
    try:
        found = network_with(base, layer, tensors, taught.classes)
    except (AttributeError, RuntimeError, LookupError):
        raise _damaged(name) from None
    return replace(found, name=name, weights=weights, facts=facts)


def network_with(base: Network, layer: LastLayer, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> Network:
    """A network with a new last layer of `weight` `[classes F]` and `bias` `[classes]`; raises as torch does."""
    module = with_head(base.module, layer, tensors["weight"].numpy(), tensors["bias"].numpy())
    facts = {"kind": "classification", "weights": "a last layer of its own"}
    return Network(f"{base.name}, taught", module, base.device, base.preprocessing, classes, "own", facts)


def weights_digest(module: nn.Module) -> str:
    """sha256 (hex) of the names, shapes and numbers of all weights, whatever their layout in memory and their device."""
    answer = hashlib.sha256()
    for key, value in module.state_dict().items():
        if isinstance(value, Tensor):
            answer.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
            answer.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return answer.hexdigest()


def _folder() -> Path:
    return settings().cache / SOURCE


def _base(name: str, taught: Taught, get: Callable[[], Any]) -> Any:
    """What `get` gives of the base network; its errors say whose base it is."""
    try:
        return get()
    except VizError as error:
        raise VizError(
            f"{name.strip()} is built on {taught.network}, which cannot be opened: {error}", code=error.code
        ) from None


def _tensors(name: str, taught: Taught) -> dict[str, Tensor]:
    try:
        content = read_file(file(name).with_suffix(".safetensors"))
        if hashlib.sha256(content).hexdigest() != taught.checksum:
            raise ValueError
        found = read_tensors(content)
        return {key: found[key] for key in ("weight", "bias")}
    except (OSError, ValueError, LookupError, SafetensorError):
        raise _damaged(name) from None


def _damaged(name: str) -> VizError:
    return VizError(
        f"The files of {name.strip()} in {_folder()} are incomplete or damaged; teach it again.", code="taught-damaged"
    )
