"""LRP of attention against the formulas of Achtibat et al. 2024, "AttnLRP", section 3, as loops over single numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.projection.test_relevance import difference, photo, sent_back, with_norms
from vizapp.engine.trace.sites import Unit

SIDE, WIDTH = 2, 4  # four tokens of three colours


class Fused(nn.Module):
    """One head of attention over the pixels, the mean over tokens, a class layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(3, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        return self.head(self.attend(self.query(x), self.key(x), self.value(x)).mean(1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


class WithMatrices(Fused):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return ((query @ key.mT) / math.sqrt(WIDTH)).softmax(-1) @ value


class WithSums(Fused):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = torch.einsum("btc,bsc->bts", query * WIDTH**-0.5, key)
        return torch.bmm(F.softmax(scores, dim=2), value)


def linear_below(layer: nn.Linear, x: Tensor, above: Tensor) -> Tensor:
    """Rule 0: each input gets its share of z, bias included, of which the bias keeps its own."""
    below, z = torch.zeros_like(x), layer(x)
    for t in range(len(x)):
        for i in range(x.shape[1]):
            for j in range(z.shape[1]):
                below[t, i] += x[t, i] * layer.weight[j, i] / z[t, j] * above[t, j]
    return below


def product_below(a: Tensor, b: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Proposition 3.3 for a @ b: each factor gets half of the share of each product."""
    of_a, of_b, z = torch.zeros_like(a), torch.zeros_like(b), a @ b
    for j in range(a.shape[0]):
        for i in range(a.shape[1]):
            for p in range(b.shape[1]):
                half = a[j, i] * b[i, p] / (2 * z[j, p]) * above[j, p]
                of_a[j, i] += half
                of_b[i, p] += half
    return of_a, of_b


def softmax_below(scores: Tensor, above: Tensor) -> Tensor:
    """Proposition 3.1: R_i = x_i (R_i - s_i sum_j R_j)."""
    below, shares = torch.zeros_like(scores), scores.softmax(-1)
    for t in range(len(scores)):
        for i in range(len(scores)):
            below[t, i] = scores[t, i] * (above[t, i] - shares[t, i] * above[t].sum())
    return below


def by_the_paper(module: Fused, picture: Tensor, class_: int) -> Tensor:
    """The relevance of the pixels `[3 H W]`."""
    x = picture[0].flatten(1).T
    query, key, value = module.query(x), module.key(x), module.value(x)
    scores = query @ key.T / math.sqrt(WIDTH)
    shares = scores.softmax(-1)
    out = shares @ value
    start = torch.zeros(1, 2, dtype=x.dtype)
    start[0, class_] = module.head(out.mean(0))[class_]
    at_mean = linear_below(module.head, out.mean(0, keepdim=True), start)
    at_shares, at_value = product_below(shares, value, out / out.sum(0) * at_mean)
    at_query, at_key = product_below(query, key.T, softmax_below(scores, at_shares))
    parts = (module.query, at_query), (module.key, at_key.T), (module.value, at_value)
    return sum((linear_below(layer, x, above) for layer, above in parts), torch.zeros_like(x)).T.view(3, SIDE, SIDE)


@pytest.mark.parametrize("written", [Fused, WithMatrices, WithSums])
@pytest.mark.parametrize("class_", [0, 1])
def test_attention_is_that_of_the_paper(written: type[Fused], class_: int) -> None:
    torch.manual_seed(3)
    module, picture = with_norms(written()), photo(SIDE)
    assert isinstance(module, Fused)
    expected = by_the_paper(module, picture, class_)
    found = sent_back(module, picture, [Unit("head", class_)], "zero")
    assert difference(found.values[0], expected) < 1e-8
