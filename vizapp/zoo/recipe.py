"""How a network of the zoo is made: one `Recipe` per network is all that the rest of the zoo knows about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
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
    """Where trained weights are: in a file on this machine (`path`), or a file to be found by name or downloaded.

    torch's convention is kept that `name-0123abcd.pth` names the first digits of the file's sha256. `hub` is the name
    of a Hugging Face repository whose local cache may hold the file.
    """

    file: str
    url: str = ""
    path: Path | None = None
    hub: str = ""


@dataclass(frozen=True)
class Recipe:
    """A network of the zoo: how to build it, what it sees, which classes it knows, where its weights are.

    `build(classes)` gives a module with random weights. `categories` are those of the published weights, and their
    number is the default number of classes. `training_only` are prefixes of keys that a checkpoint may hold for heads
    that serve training alone; `rename` turns the keys of an old checkpoint into today's. `adopt`, where given, builds
    the network with the published weights in its own way. `finish` is called on a module that holds the published
    weights. Accuracy is top-1 in percent, size in megabytes (1e6 bytes); `paper_accuracy` is that which the paper reports
    where no weights are published. `multiply_adds` are those of one pass at the network's own input size. `data` is what
    the accuracy was measured on.
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
    finish: Callable[[nn.Module], None] = lambda module: None
    multiply_adds: int | None = None
    paper_accuracy: float | None = None
    data: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What is known about a network without building it; None where it is not known.

    `accuracy` is top-1 in percent as published, `size_mb` that of the weights file, `input_size` channels, height,
    width; `published` says whether trained weights exist. `multiply_adds` are those of one pass (torchvision counts
    a little differently for a few networks), `paper_accuracy` is the paper's where no weights are published, `data` what
    an accuracy was measured on.
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


class Source(Protocol):
    """Where networks come from: `own`, `torchvision_zoo` and `timm_zoo` are such modules."""

    def names(self) -> list[str]:
        """Names without the source."""

    def recipe(self, name: str, variant: str) -> Recipe | None:
        """The recipe, or None if the source has no network of that name. `variant` names published weights.

        Raises:
            VizError: the network exists and cannot be used, or has no such weights; the sentence says why.
        """


class _SkipRandomInit(TorchFunctionMode):
    """Building a network without drawing its first weights, for networks that are filled from a checkpoint.

    Zeros instead of random numbers save most of the time that large networks take to build (VGG-16: 1.1 s).
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
    """The network to be filled from a checkpoint: what would be random is zero."""
    with _SkipRandomInit():
        return recipe.build(classes)


def build_random(recipe: Recipe, classes: int) -> nn.Module:
    """The network with random weights, the same in each call; torch's own random numbers go on undisturbed."""
    with _building:  # the generator belongs to all threads
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(0)
        try:
            return recipe.build(classes)
        finally:
            generator.set_state(before)
