"""What a network computes on some pictures, at some of its sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vizapp.engine.tap import Tap, check_computed
from vizapp.engine.trace.sites import Site, channels_first
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
