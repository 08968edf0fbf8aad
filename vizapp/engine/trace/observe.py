"""What a network computes on some pictures, at some of its sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vizapp.engine.tap import Tap, check_computed
from vizapp.engine.trace.sites import Site, channels_first, special_tokens
from vizapp.errors import VizError


def observe(module: nn.Module, batch: Tensor, sites: Sequence[Site]) -> dict[str, Tensor]:
    """The activations of `batch` `[N C H W]` at the sites, by name: `[N C h w]`, or `[N C]` for vectors.

    One pass, which ends after the last of the sites. Not in inference mode: some networks cache tensors, and a tensor made
    in inference mode cannot take part in a gradient later.

    Raises:
        VizError: the pass does not produce one of the sites, or not one result per picture.
    """
    with torch.no_grad(), Tap(module, {site.name for site in sites}) as tap:
        module(batch.clone())  # a network may write into its input
    return kept_by_picture(tap, sites, len(batch))


def observe_with_tokens(module: nn.Module, batch: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """The activations of `batch` at a site as `observe` gives them, and those of its special tokens `[N C t]`.

    Raises:
        VizError: as `observe`.
    """
    with torch.no_grad(), Tap(module, {site.name}) as tap:
        module(batch.clone())
    maps = kept_by_picture(tap, [site], len(batch))[site.name]
    return maps, special_tokens(tap.kept[site.name], site)


def kept_by_picture(tap: Tap, sites: Sequence[Site], pictures: int) -> dict[str, Tensor]:
    """The activations that a tap kept of a batch of so many pictures, by name: `[N C h w]`, or `[N C]` for vectors.

    Raises:
        VizError: as `observe`.
    """
    check_computed([site.name for site in sites], tap.kept)
    for site in sites:
        shape = tap.kept[site.name].shape
        if shape[0] != pictures or len(shape) != site.rank or shape[-1] == 0:
            raise VizError(
                f"The output of layer {site.name!r} depends on what the network finds in the input (boxes, say), so it has "
                "no channels to show; pick an earlier layer.",
                code="layer-without-channels",
            )
    return {site.name: channels_first(tap.kept[site.name], site) for site in sites}


class Observer(Protocol):
    """Looks at some sites during a pass, and reduces what it sees."""

    @property
    def sites(self) -> Collection[str]:
        """The names of the sites."""
        ...

    def keep(self, name: str, tensor: Tensor) -> bool:
        """Reduce the activation of a site, which a later operation may overwrite; whether it has the expected shape."""
        ...


class SharedTap(Tap):
    """Shows the activations of one pass to several observers. `kept` says which sites all of them have accepted.

    Args:
        module: The network.
        observers: Who looks.
        stop: Whether the pass may end after the last of their sites.
    """

    def __init__(self, module: nn.Module, observers: Sequence[Observer], stop: bool = True) -> None:
        super().__init__(module, {name for one in observers for name in one.sites}, stop)
        self._observers = tuple(observers)
        self._accepted = torch.empty(0)

    def keep(self, name: str, tensor: Tensor) -> None:
        """Show the activation to the observers of its site."""
        if all(one.keep(name, tensor) for one in self._observers if name in one.sites):
            self.kept[name] = self._accepted


def observe_together(
    module: nn.Module, run: Callable[[Tensor], Any], batch: Tensor, observers: Sequence[Observer], stop: bool
) -> Any:
    """What `run` returns for `batch` `[N C H W]`, without gradients, while the observers look; None if the pass was ended.

    Args:
        module: The network, which `run` calls.
        run: Takes a copy of the batch, because a network may write into its input.
        batch: The pictures.
        observers: Who looks.
        stop: Whether the pass may end after the last of their sites.

    Raises:
        VizError: The pass does not compute one of the sites with the expected shape.
    """
    found = None
    with torch.no_grad(), SharedTap(module, observers, stop) as tap:
        found = run(batch.clone())
    check_computed([name for one in observers for name in one.sites], tap.kept)
    return found
