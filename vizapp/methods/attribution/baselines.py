"""Maps that know nothing of the network: what a map has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vizapp.methods.attribution.kind import Kind
from vizapp.methods.attribution.request import Request


class RandomMap(Kind):
    """Independent uniform numbers from 0 to 1."""

    key, title = "random", "Random"
    source = "Hooker et al. 2018, section 3"
    caution = "It is noise. A map with numbers that are no better tells nothing (Hooker 2018)."

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The numbers `[H W]`, drawn on the processor, so that every device gives the same."""
        generator = torch.Generator().manual_seed(request.params.seed)
        return torch.rand(request.size, generator=generator), {"note": f"Seed {request.params.seed}."}


class Edges(Kind):
    """The length of the Sobel gradient of the grey photo that the network sees."""

    key, title = "edges", "Edges"
    source = "Adebayo et al. 2018, section 6"
    caution = "It never looks at the network. A map that resembles it may show the photo alone (Adebayo 2018)."

    def pixels(self, request: Request, size: int) -> tuple[Tensor, dict[str, str]]:
        """The lengths `[H W]`, of the grey values from 0 to 1; the border is repeated."""
        seen = torch.from_numpy(request.network.display(request.batch)).double()
        grey = seen @ seen.new_tensor([299, 587, 114])  # whole numbers, so that a flat photo gets exact zeros
        kernel = torch.tensor([1.0, 2.0, 1.0]).double()[:, None] * torch.tensor([-1.0, 0.0, 1.0])
        padded = nn.functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")
        slopes = nn.functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])[0]
        return slopes.square().sum(0).sqrt() / 255_000, {"note": "Of the photo in grey, without the network."}
