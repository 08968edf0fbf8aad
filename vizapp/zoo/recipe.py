"""`Recipe`: how to build a network of the zoo and where its weights are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizapp.zoo.preprocessing import Preprocessing

_building = threading.Lock()


@dataclass(frozen=True)
class Published:
    """Where trained weights are: a local file (`path`), or a file to find by name or to download.

    As in torch, `name-0123abcd.pth` contains the first digits of the file's sha256. `hub`: a Hugging Face repository whose
    local cache may contain the file. `package`: the installed package that `path` is in; the file must have the sha256
    `digest`. `fetch`: finds or downloads the file, in place of the rest; `cached` says whether it is on this machine.
    """

    file: str
    url: str = ""
    path: Path | None = None
    hub: str = ""
    package: str = ""
    digest: str = ""
    fetch: Callable[[Callable[[float], None] | None], Path] | None = None
    cached: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Recipe:
    """How to build a network of the zoo, its preprocessing, classes and published weights.

    `build(classes)` returns a module with random weights. `categories`: classes of the published weights; their number is
    the default. `training_only`: key prefixes of heads used only in training. `rename`: converts keys of old checkpoints.
    `adopt`: builds the network from the published weights, if they need it. `open`: builds the network from a file that
    holds both, in place of `build`. `check`: raises if `preprocessing` is not that of the network's library. `finish`:
    called after loading published weights. `channels_last`: whether its convolutions may be laid out so. `accuracy`: top-1
    in percent on `data`; `paper_accuracy`: the paper's, where no weights are published. `size_mb`: 1e6 bytes.
    `multiply_adds`: of one forward pass at the network's input size.
    """

    name: str
    build: Callable[[int], nn.Module]
    preprocessing: Preprocessing
    categories: tuple[str, ...]
    published: Published | None = None
    parameters: int | None = None
    accuracy: float | None = None
    size_mb: float | None = None
    training_only: tuple[str, ...] = ()
    rename: Callable[[str], str] = lambda key: key
    adopt: Callable[[dict[str, Tensor]], nn.Module] | None = None
    open: Callable[[], nn.Module] | None = None
    check: Callable[[], None] = lambda: None
    finish: Callable[[nn.Module], None] = lambda module: None
    channels_last: bool = True
    multiply_adds: int | None = None
    paper_accuracy: float | None = None
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What is known about a network without building it; None if unknown.

    `input_size`: channels, height, width. `published`: whether trained weights exist. `task`: "classification",
    "segmentation", "detection" or "features (no classes)". `file`, `url`, `hub`: those of `Published`, empty where the weights
    are part of the installation. The other fields are those of `Recipe`; torchvision counts `multiply_adds` slightly
    differently for a few networks.
    """

    name: str
    parameters: int | None
    accuracy: float | None
    size_mb: float | None
    input_size: tuple[int, int, int]
    published: bool
    multiply_adds: int | None = field(default=None, compare=False)
    paper_accuracy: float | None = field(default=None, compare=False)
    data: str = field(default="", compare=False)
    task: str = field(default="", compare=False)
    file: str = field(default="", compare=False)
    url: str = field(default="", compare=False)
    hub: str = field(default="", compare=False)

    @property
    def size(self) -> str:
        """The size of its weights in words, such as `98 MB`; empty if unknown."""
        return f"{max(1, round(self.size_mb))} MB" if self.size_mb else ""


class Source(Protocol):
    """A source of networks: the modules `bundled`, `torchvision_zoo` and `timm_zoo`."""

    def names(self) -> list[str]:
        """Names without the source."""

    def recipe(self, name: str, variant: str) -> Recipe | None:
        """The recipe, or None if the source has no network of that name. `variant` names published weights.

        Raises:
            VizError: the network exists but cannot be used, or has no such weights.
        """


class Folder(Protocol):
    """Networks named by a path: the modules `hugging_face`, `onnx_zoo` and `exported`."""

    def handles(self, name: str) -> bool:
        """Whether the name is that of such a network."""

    def recipe(self, name: str, variant: str) -> Recipe:
        """The recipe.

        Raises:
            VizError: the file or folder is damaged, or holds something else.
        """


class _SkipRandomInit(TorchFunctionMode):
    """Skips random initialization, for networks that are loaded from a checkpoint.

    Zeros instead of random numbers save most of the build time of large networks (VGG-16: 1.1 s).
    """

    _drawn = frozenset(
        {torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_}
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._drawn:
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **kwargs)


def build_blank(recipe: Recipe, classes: int) -> nn.Module:
    """The network with zeros instead of random weights, to be loaded from a checkpoint."""
    with _SkipRandomInit():
        return recipe.build(classes)


def build_random(recipe: Recipe, classes: int) -> nn.Module:
    """The network with random weights of seed 0. torch's random state is not changed."""
    with seeded(0):
        return recipe.build(classes)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws of torch on the CPU in this block depend on the seed alone, and change nothing outside of it."""
    with _building:  # all threads share the generator
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(before)
