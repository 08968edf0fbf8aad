"""Maps from the attention of transformers."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vizapp.engine.trace.attention import Attention, attention_up_to
from vizapp.errors import VizError
from vizapp.methods.attribution.kind import Kind
from vizapp.methods.attribution.request import Request, activation


class AttentionKind(Kind):
    """A map from the attention among the same tokens in all blocks up to the unit."""

    @abstractmethod
    def tokens(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """A number for each token, from the attention `[blocks heads queries keys]` and its gradient there."""

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The tokens' numbers on their grid, resized to `[H W]`."""
        found = attention_up_to(
            request.network.module, request.batch, request.site.name,
            lambda kept: activation(kept, request.site, request.unit).sum(),
        )  # fmt: skip
        weights = self._same_tokens(request, found)
        gradients = torch.stack([self._heads(each, each.gradient) for each in found])
        count = weights.shape[-1]
        cells = found[0].cells
        place = None if cells is None else cells.arrangement
        if cells is None or place is None or not place.located:
            raise VizError(
                f"{request.network.name} attends among {count} tokens whose places in the photo are not known; choose another "
                "kind.",
                code="tokens-without-grid",
            )
        height, width = place.grid
        grid = self.tokens(weights, gradients)[place.prefix :][: height * width].view(1, 1, height, width)
        pixels = nn.functional.interpolate(grid.float(), size=request.size, mode="bilinear", align_corners=False)[0, 0]
        special = place.prefix + place.suffix
        note = f"{len(found)} blocks with {weights.shape[1]} heads, {height} x {width} patches"
        note += f"; special tokens left out: {special}." if special else "."
        return pixels, {"note": note}

    def _same_tokens(self, request: Request, found: list[Attention]) -> Tensor:
        """The weights `[blocks heads tokens tokens]`.

        Raises:
            VizError: there is no attention, or not among the same tokens in all blocks.
        """
        name, site = request.network.name, request.site.name
        if not found:
            raise VizError(
                f"{name} has no attention below {site!r}; choose another kind, such as gradcam.", code="no-attention"
            )
        first = tuple(found[0].weights.shape[-3:])
        for each in found:
            shape = tuple(each.weights.shape)
            alone = each.weights.ndim == 3 or shape[:-3].count(1) == len(shape) - 3
            if not alone or shape[-3:] != first or shape[-2] != shape[-1]:
                raise VizError(
                    f"{self.title} is defined for attention among the same tokens in all blocks; {name} has windows or other "
                    f"tokens at {each.name!r} ({' x '.join(map(str, shape))}). Choose another kind, such as gradcam.",
                    code="no-attention",
                )
            if each.cells is not None and found[0].cells is not None and not each.cells.equals(found[0].cells):
                raise VizError(
                    f"{self.title} is defined for attention among the same tokens in all blocks; {name} has them in another "
                    f"order at {each.name!r}. Choose another kind, such as gradcam.",
                    code="no-attention",
                )
        return torch.stack([self._heads(each, each.weights) for each in found])

    @staticmethod
    def _heads(attention: Attention, values: Tensor | None) -> Tensor:
        assert values is not None
        return values.reshape(values.shape[-3:])


class Rollout(AttentionKind):
    """How much of each patch reaches the tokens that the unit reads, if attention alone moved the information."""

    key, title = "rollout", "Attention rollout"
    source = "Abnar & Zuidema 2020, section 3"
    caution = (
        "It asks where the network looks, whatever the unit: all classes get the same map. It ignores what the values and the "
        "layers between do (Abnar 2020, section 3)."
    )

    def tokens(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """The product over blocks of half the mean attention and half the identity, at the tokens that the unit reads."""
        mean = weights.double().mean(1)
        mixed = 0.5 * mean + 0.5 * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        reads = gradients[-1].ne(0).any(-1).any(0)
        rolled = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        for block in mixed:
            rolled = block @ rolled
        return rolled[reads].mean(0)


class LeGrad(AttentionKind):
    """How far more attention to a patch would raise the unit, over all blocks."""

    key, title = "legrad", "LeGrad"
    source = "Bousselham et al. 2024, section 3"
    caution = (
        "It says how the unit would change with the attention, not what a patch contributes; patches that speak against the "
        "unit get zero (Bousselham 2024, section 3)."
    )

    def tokens(self, weights: Tensor, gradients: Tensor) -> Tensor:
        """The gradient above zero, the mean over blocks, heads and queries."""
        return gradients.double().relu().mean((0, 1, 2))

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The map `[H W]`, scaled to 0..1."""
        found, facts = super().pixels(request, size)
        found = found - found.min()
        facts["note"] += " The gradient is that of the unit itself at every block, which is defined for any network."
        return found / found.max().clamp_min(torch.finfo(found.dtype).tiny), facts
