"""Feature visualization by activation maximization: images optimized from noise to excite a unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vizapp.engine.memory.chunks import Tick, check_fits, chunk_size, in_chunks
from vizapp.engine.optimize.folded_norms import FoldedNorm, FoldingTap, fold_norms
from vizapp.engine.optimize.image_parametrization import ImageParam, seed_of
from vizapp.engine.tap import check_computed, check_differentiable, operation_name
from vizapp.engine.trace.sites import Site, Unit, channels_first, kind_of, site_of_all
from vizapp.errors import VizError

Extent = Literal["map", "cell"]
_EPSILON = 1e-12
# Bytes of the widest activation of a batch. Larger batches were slower (CPU: caches) or not faster (GPU).
_BEST_CHUNK = {"cpu": 20 * 2**20, "cuda": 2 * 2**30}
_DRAWS = 10  # attempts with stronger noise for a unit that is inactive on the first
_STRONGER = 100.0  # gives the noise the maximum contrast


@dataclass(frozen=True)
class Target:
    """The objective: a unit or, with `direction`, a weighted sum (channel, weight) of channels of its site.

    A unit with a cell is maximized at that cell, one without as given by `OptimizationConfig.extent`.
    """

    unit: Unit
    direction: tuple[tuple[int, float], ...] = ()

    @property
    def terms(self) -> tuple[tuple[int, float], ...]:
        """The channels and their weights."""
        return self.direction or ((self.unit.channel, 1.0),)


@dataclass(frozen=True)
class OptimizationConfig:
    """Settings of the optimization, which uses Adam.

    In every step the gradient of the activation is scaled to a root mean square of 1 over the pixels that the unit sees.
    So `variation` and `l2` have the same meaning for every unit, and the image of a linear unit ends with a contrast of
    1 / (2 · l2) if that is below the limit of the canvas.
    """

    steps: int = 256
    rate: float = 0.05  # learning rate, decays to zero along half a cosine
    extent: Extent = "map"  # of a unit without a cell: the mean of the "map" or the middle "cell"
    restarts: int = 1  # images per target, from different noise
    diversity: float = 0.0  # weight of the mean cosine between their Gram matrices (Gatys 2015, as in Olah et al. 2017)
    variation: float = 0.0  # weight of the total variation, a mean over the pixels
    l2: float = 0.0  # weight of the squared distance from mid-grey, a mean over the pixels
    seed: int = 0
    snapshots: int = 6


@dataclass(frozen=True)
class MaximizedImages:
    """The optimized images, grouped by target."""

    pictures: Tensor  # [n C H W], from 0 to 1
    activations: Tensor  # [n], of the final images, not transformed
    initial_activations: Tensor  # [n], of the initial images, not transformed
    curve: Tensor  # [steps n], of the transformed image in each step
    snapshots: Tensor  # [k n C H W], intermediate images
    snapshot_steps: tuple[int, ...]  # k, the number of steps before each snapshot


def maximize(
    module: nn.Module,
    normalise: Callable[[Tensor], Tensor],
    targets: Sequence[Target],
    sites: Sequence[Site],
    canvas: ImageParam,
    ascent: OptimizationConfig | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    tick: Tick | None = None,
    pixels: int = 0,
) -> MaximizedImages:
    """Images that maximize each target, optimized together in batches that fit into memory.

    An image depends only on its target, its index among the restarts and the seed. The rest of the batch only changes
    rounding. Each pass ends at the site of the targets.

    Args:
        module: The network.
        normalise: Converts images `[n C H W]` from 0 to 1 to network input.
        targets: Objectives, all of one site.
        sites: The sites of the network up to that site or further, in execution order.
        canvas: Size and parametrization of the images.
        ascent: Settings of the optimization. None: the defaults.
        device: Where the network runs. None: the CPU.
        dtype: Type of the images and their parameters.
        tick: Called with the completed fraction after each step; an exception from it ends the work.
        pixels: Number of pixels of the image on which `sites` were recorded. 0: as many as the canvas has.

    Raises:
        VizError: The targets belong to several sites or to none of `sites`, the network does not compute the site on
            images of this size, or a cell is outside the map.
    """
    ascent, device = ascent or OptimizationConfig(), device or torch.device("cpu")
    index = list(sites).index(site_of_all([target.unit for target in targets], sites))
    texture = _texture(sites[: index + 1]) if ascent.restarts > 1 and ascent.diversity else None
    optimizer = _Optimizer(module, normalise, sites[index], texture, canvas, ascent, device, dtype)
    sizes = [math.prod(site.shape) * dtype.itemsize for site in sites[: index + 1]]
    each = sum(sizes) * canvas.height * canvas.width // (pixels or canvas.height * canvas.width)
    most = max(1, _BEST_CHUNK[device.type] // max(sizes)) if device.type in _BEST_CHUNK else 64
    pictured = f"{ascent.restarts} pictures" if ascent.restarts > 1 else "a picture"
    what, instead = f"{pictured} of {canvas.width} x {canvas.height} pixels", "a smaller size or fewer restarts"
    check_fits(2 * each * ascent.restarts, device, what, instead)
    size = max(1, chunk_size(3 * each, device, most) // ascent.restarts)
    size = math.ceil(len(targets) / math.ceil(len(targets) / size))  # equal batches: one image alone takes longer
    done = 0

    def run(part: Sequence[Target]) -> MaximizedImages:
        nonlocal done

        def step(share: float) -> None:
            if tick is not None:
                tick((done + share * len(part)) / len(targets))

        answer = optimizer.optimize(part, step)
        done += len(part)
        return answer

    parts = list(in_chunks(list(targets), run, size))
    return MaximizedImages(
        torch.cat([part.pictures for part in parts]),
        torch.cat([part.activations for part in parts]),
        torch.cat([part.initial_activations for part in parts]),
        torch.cat([part.curve for part in parts], 1),
        torch.cat([part.snapshots for part in parts], 1),
        parts[0].snapshot_steps,
    )


def _texture(sites: Sequence[Site]) -> Site | None:
    """The last map with enough cells (16) for a Gram matrix."""
    return next((site for site in reversed(sites) if site.is_map and site.shape[1] * site.shape[2] >= 16), None)


class _PreActivationTap(FoldingTap):
    """A tap that also keeps pre-activations, so that an inactive ReLU unit still has a gradient."""

    def __init__(self, module: nn.Module, keep: Collection[str], norms: dict[str, FoldedNorm]) -> None:
        super().__init__(module, keep, norms)
        self.given: dict[str, Tensor] = {}

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and keep the wanted tensors."""
        if name in self._wanted and args and kind_of(operation_name(function)) == "activation":
            self.given[name] = args[0].clone()
        return super().operate(name, function, args, kwargs)


@dataclass(frozen=True)
class _Optimizer:
    module: nn.Module
    normalise: Callable[[Tensor], Tensor]
    site: Site
    texture: Site | None
    canvas: ImageParam
    ascent: OptimizationConfig
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def wanted(self) -> list[str]:
        return [site.name for site in (self.site, self.texture) if site is not None]

    @cached_property
    def norms(self) -> dict[str, FoldedNorm]:
        shape = (1, self.canvas.channels, self.canvas.height, self.canvas.width)
        grey = torch.full(shape, 0.5, dtype=self.dtype, device=self.device)
        return fold_norms(self.module, self.normalise(grey).to(self.dtype, copy=True), self.wanted)

    def optimize(self, targets: Sequence[Target], tick: Tick) -> MaximizedImages:
        """The images of these targets, in one batch."""
        ascent, canvas = self.ascent, self.canvas
        pictured = [target for target in targets for _ in range(ascent.restarts)]
        seeds = [seed_of(ascent.seed, target, again) for target in targets for again in range(ascent.restarts)]
        parameters, seen, begun = self._start(seeds, pictured)
        shakes = canvas.sample_transforms(seeds, ascent.steps)
        optimiser = torch.optim.Adam([parameters], lr=ascent.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, ascent.steps)
        kept = sorted({round(ascent.steps * (i + 1) / ascent.snapshots) for i in range(ascent.snapshots - 1)} - {0})
        curve, stages = [], []
        with torch.enable_grad():
            for step in range(ascent.steps):
                optimiser.zero_grad()
                painted = canvas.render(parameters, seen)
                excited, upward = self._ascent_direction(painted.detach(), shakes[step], pictured)
                seen = torch.maximum(seen, (upward != 0).to(seen).mean((1, 2, 3)))
                self._loss(painted, upward / _root_mean_square(upward)).backward()
                optimiser.step()
                schedule.step()
                curve.append(excited)
                if step + 1 in kept:
                    stages.append(canvas.render(parameters, seen).detach())
                tick((step + 1) / ascent.steps)
        with torch.no_grad():
            pictures = canvas.render(parameters, seen)
            reached, _, _ = self._activations(pictures, pictured)
        stacked = torch.stack(stages) if stages else pictures.new_zeros(0, *pictures.shape)
        return MaximizedImages(pictures, reached, begun, torch.stack(curve), stacked, tuple(kept))

    def _start(self, seeds: list[int], targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
        """Initial parameters `[n …]`, the known fraction `[n]` of the image that each unit sees, its activation `[n]`.

        An inactive unit has no gradient. For such units stronger noise is tried several times.
        """
        dtype = torch.promote_types(
            self.dtype, torch.float32
        )  # Fourier transforms and Adam need more than half precision
        parameters = self.canvas.start(seeds, self.device, dtype)
        seen = torch.zeros(len(targets), device=self.device, dtype=dtype)
        begun, silent = torch.zeros_like(seen), list(range(len(targets)))
        for draw in range(_DRAWS):
            if draw:
                again = [seed_of(seeds[i], draw - 1) for i in silent]
                parameters[silent] = _STRONGER * self.canvas.start(again, self.device, dtype)
                seen[silent] = 1
            pictures = self.canvas.render(parameters[silent], seen[silent])
            with torch.no_grad():
                begun[silent], climbed, _ = self._activations(pictures, [targets[i] for i in silent])
            silent = [i for i, value in zip(silent, climbed.tolist(), strict=True) if value == 0]
            if not silent:
                break
        return parameters.requires_grad_(), seen, begun

    def _ascent_direction(self, painted: Tensor, draws: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """The activation `[n]` of the transformed images, and the ascent direction `[n C H W]`."""
        painted.requires_grad_()
        excited, climbed, gram = self._activations(self.canvas.transform(painted, draws), targets)
        gain = climbed / climbed.detach().abs().clamp_min(_EPSILON)
        if gram is not None:
            gain = gain - self.ascent.diversity * _gram_similarity(gram, self.ascent.restarts)
        check_differentiable(gain)
        (upward,) = torch.autograd.grad(gain.sum(), painted)
        return excited.detach(), upward

    def _loss(self, painted: Tensor, upward: Tensor) -> Tensor:
        """The loss for Adam: the negative activation to first order, plus the regularizers."""
        loss = -(painted * upward).mean((1, 2, 3))
        if self.ascent.l2:
            loss = loss + self.ascent.l2 * (painted - 0.5).square().mean((1, 2, 3))
        if self.ascent.variation:
            loss = loss + self.ascent.variation * _variation(painted)
        return loss.sum()

    def _activations(self, pictures: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Activations `[n]`, values to maximize `[n]`, and Gram matrices `[n F]`.

        The value to maximize is the activation; for an inactive ReLU unit it is the largest pre-activation.
        """
        with _PreActivationTap(self.module, self.wanted, self.norms) as tap:
            self.module(self.normalise(pictures).to(self.dtype, copy=True))  # the network may write into its input
        check_computed(self.wanted, tap.kept)
        tap.kept = {name: kept.to(pictures.dtype) for name, kept in tap.kept.items()}
        excited = self._reduce_maps(self._select_channels(tap.kept[self.site.name], targets), targets)
        given = tap.given.get(self.site.name)
        climbed = excited
        if given is not None:
            below = self._reduce_maps(self._select_channels(given.to(pictures.dtype), targets), targets, Tensor.max)
            climbed = torch.where(excited.detach() > 0, excited, below)
        gram = _gram(channels_first(tap.kept[self.texture.name], self.texture)) if self.texture else None
        return excited, climbed, gram

    def _select_channels(self, activation: Tensor, targets: Sequence[Target]) -> Tensor:
        """The channel, or weighted sum of channels, of each target: `[n h w]`, or `[n]` for vectors."""
        values = channels_first(activation, self.site)
        most = max(len(target.terms) for target in targets)
        padded = [target.terms + ((0, 0.0),) * (most - len(target.terms)) for target in targets]
        channels = torch.tensor([[channel for channel, _ in terms] for terms in padded], device=values.device)
        weights = torch.tensor([[weight for _, weight in terms] for terms in padded], device=values.device)
        number = torch.arange(len(targets), device=values.device)
        chosen = values[number[:, None], channels]  # [n terms h w] or [n terms]
        return (chosen * weights.to(values.dtype).view(*weights.shape, *(1,) * (chosen.ndim - 2))).sum(1)

    def _reduce_maps(
        self, values: Tensor, targets: Sequence[Target], over: Callable[[Tensor], Tensor] = Tensor.mean
    ) -> Tensor:
        """One value `[n]` per map of `[n h w]`: at the cell of its target, or `over` the map, depending on the extent."""
        if values.ndim == 1:
            return values
        cells = [target.unit.cell for target in targets]
        return torch.stack([self._reduce_map(one, cell, over) for one, cell in zip(values, cells, strict=True)])

    def _reduce_map(self, values: Tensor, cell: tuple[int, int] | None, over: Callable[[Tensor], Tensor]) -> Tensor:
        height, width = values.shape
        if cell is None:
            if self.ascent.extent == "map":
                return over(values)
            cell = (height // 2, width // 2)
        if cell[0] >= height or cell[1] >= width:
            raise VizError(
                f"On a picture of this size layer {self.site.name!r} has cells 0,0 to {height - 1},{width - 1}, but not "
                f"{cell[0]},{cell[1]}. Choose a larger size.",
                code="no-such-cell",
            )
        return values[cell]


def _root_mean_square(upward: Tensor) -> Tensor:
    """The root mean square `[n 1 1 1]` of the non-zero values of `[n C H W]`: the pixels that the unit sees."""
    reached = (upward != 0).sum((1, 2, 3), keepdim=True).clamp_min(1)
    return (upward.square().sum((1, 2, 3), keepdim=True) / reached).sqrt().clamp_min(_EPSILON)


def _variation(pictures: Tensor) -> Tensor:
    """Total variation `[n]` of `[n C H W]`: mean absolute difference of neighbouring pixels, smoothed near zero."""
    down, across = pictures.diff(dim=2), pictures.diff(dim=3)
    return sum((d.square() + 1e-8).sqrt().sum((1, 2, 3)) for d in (down, across)) / pictures[0].numel()  # type: ignore[return-value]


def _gram(activation: Tensor) -> Tensor:
    """The Gram matrices `[n C·C]` of `[n C h w]`, normalized to length 1."""
    flat = activation.flatten(2)
    return F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)


def _gram_similarity(gram: Tensor, restarts: int) -> Tensor:
    """Mean cosine `[n]` between the Gram matrix of each image and those of the other restarts of its target."""
    groups = gram.unflatten(0, (-1, restarts))
    cosines = groups @ groups.transpose(1, 2)  # [targets restarts restarts]
    return ((cosines.sum(2) - cosines.diagonal(dim1=1, dim2=2)) / (restarts - 1)).flatten()
