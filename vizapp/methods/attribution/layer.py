"""The layer that a CAM explains: the last feature maps through which all that the unit sees of the photo passes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vizapp.engine.memory.chunks import is_out_of_memory
from vizapp.engine.tap import check_differentiable
from vizapp.engine.trace.flow import gradients_at, sites_on_every_path
from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import Site, channels_first
from vizapp.errors import VizError
from vizapp.methods.attribution.request import Request, activation

_CANDIDATES = 16  # layers that are tried, last first; the patches of the last few may not reach the class token


@dataclass(frozen=True)
class RecordedLayer:
    """A layer's maps `[1 C h w]` on the input of a request, and the gradient of the unit there, if there is one."""

    request: Request
    site: Site
    maps: Tensor
    gradient: Tensor | None


def explained_layer(request: Request) -> RecordedLayer:
    """The layer that the user chose, or the last feature maps on all paths from the input to the unit, with its gradient.

    Raises:
        VizError: the chosen layer cannot be explained, or none has a gradient.
    """
    if (found := _recorded(request)) is not None:
        return found
    name, module = request.site.name, request.model()
    check_differentiable(module(request.batch.clone().requires_grad_()))
    if request.params.layer:
        text = f"the gradient of {name!r} is zero everywhere at {request.params.layer}, or there is none; choose another layer."
    elif not _carrying(request, module.module):
        text = f"no feature map below {name!r} carries all that it sees of the photo; choose a later unit, or another kind."
    else:
        text = f"the gradient of {name!r} is zero at all feature maps below it, so they have no weights; choose another unit."
    raise VizError(f"{request.params.kind} shows nothing here: {text}", code="no-feature-map")


def layer_without_gradient(request: Request) -> RecordedLayer:
    """As `explained_layer`, but where autograd finds no layer, the chosen one or the last feature maps up to the unit.

    Raises:
        VizError: the chosen layer cannot be explained, or there are no feature maps.
    """
    try:
        if (found := _recorded(request)) is not None:
            return found
    except RuntimeError as error:  # of a network that overwrites what autograd needs
        if is_out_of_memory(error):
            raise
    site = checked(request) if request.params.layer else request.network.last_feature_map(request.site)
    if site is None or not _shows_places(site):
        raise VizError(
            f"{request.network.name} has no feature maps below {request.site.name!r}; choose another unit or kind.",
            code="no-feature-map",
        )
    return RecordedLayer(request, site, observe(request.network.module, request.batch, [site])[site.name], None)


def _recorded(request: Request) -> RecordedLayer | None:
    module, unit = request.model().module, request.unit
    sites = [checked(request)] if request.params.layer else _carrying(request, module)
    kept, gradients = gradients_at(
        module, request.batch, lambda kept: activation(kept, request.site, unit).sum(),
        {request.site.name, *(site.name for site in sites)},
    )  # fmt: skip
    for site in reversed(sites):
        gradient = gradients.get(site.name)
        if gradient is not None and channels_first(gradient, site).any():
            return RecordedLayer(request, site, channels_first(kept[site.name], site), channels_first(gradient, site))
    return None


def _carrying(request: Request, module: nn.Module) -> list[Site]:
    """The maps below the unit that carry all that it sees of the picture, in running order; the last few.

    Class maps are left out: the mean of the gradient there is the same for all cells and regions, so it says nothing of them.
    """
    below = request.network.sites[: request.network.sites.index(request.site)]
    maps = {site.name: site for site in below if _shows_places(site) and site.kind not in {"reshape", "identity"}}
    names = sites_on_every_path(module, request.batch, request.site.name, list(maps))
    whole = request.network.untargeted or request.network
    scores = whole.class_maps[0].head.layers if whole.task == "class map" else ()
    return [maps[name] for name in names if name not in scores][-_CANDIDATES:] or [maps[name] for name in names[-1:]]


def _shows_places(site: Site) -> bool:
    return site.is_map and site.located and site.shape[1] * site.shape[2] > 1


def checked(request: Request) -> Site:
    """The layer that the user chose.

    Raises:
        VizError: it is no map, or runs after the unit.
    """
    site, sites = request.network.site(request.params.layer), request.network.sites
    if sites.index(site) >= sites.index(request.site):
        raise VizError(f"{site.name} does not run below the unit; choose an earlier layer.", code="not-below-unit")
    if not _shows_places(site):
        raise VizError(
            f"This kind needs a layer whose cells are positions in the photo; {site.name} gives "
            f"{' x '.join(map(str, site.shape))}. Leave layer empty for the last map.",
            code="no-feature-map",
        )
    return site
