"""Heads are found in all that networks return, and how they become probabilities from the operations that made them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import seeded
from vizapp.engine.trace.outputs import Head, find_heads

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Record:
    features: Tensor
    logits: Tensor


class Net(nn.Module):
    """Returns whatever `returns` makes of features `[N 8]`; `seen` are their maps `[N 8 7 7]`."""

    def __init__(self, returns: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10), nn.Linear(8, 10)
        self.one, self.maps = nn.Linear(8, 1), nn.Conv2d(8, 10, 1)
        self.points, self.returns = nn.Parameter(torch.linspace(-1, 2, 80).sin().reshape(10, 8)), returns

    def forward(self, x: Tensor) -> Any:
        self.seen = torch.relu(self.stem(x))
        return self.returns(self, self.seen.mean((2, 3)))


def heads(returns: Callable[[Net, Tensor], Any]) -> tuple[Head, ...]:
    return find_heads(seeded(Net(returns)), torch.zeros(1, 3, 16, 16))


def shares(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def overwritten(scores: Tensor) -> Tensor:
    scores.view(-1, 10).sigmoid_()
    return scores


def halves(scores: Tensor) -> Tensor:
    chance = torch.zeros_like(scores)
    chance[:, :5], chance[:, 5:] = scores[:, :5].sigmoid(), 1 - scores[:, 5:].sigmoid()
    return chance


def careful(scores: Tensor) -> Tensor:
    if scores.abs().max() > 100:
        raise ValueError("The scores are too large.")
    return scores


BACK = torch.arange(9, -1, -1)
COARSE = torch.eye(4)[torch.arange(10) % 4].T  # which of four coarse classes each of the ten belongs to
Returns = Callable[[Net, Tensor], Any]
# What networks return, by what it is as a function of the last weighted layers' results.
CATEGORICAL: dict[str, Returns] = {  # at least 0, sums to 1
    "softmax": lambda n, h: n.a(h).softmax(1),
    "viewed": lambda n, h: F.softmax(n.a(h), dim=-1).view(-1, 10),
    "log_softmax().exp()": lambda n, h: n.a(h).log_softmax(1).exp(),
    "exp / sum": lambda n, h: shares(n.a(h)),
    "exp / sum, below the largest": lambda n, h: shares(n.a(h) - n.a(h).amax(1, keepdim=True)),
    "logsumexp": lambda n, h: (n.a(h) - n.a(h).logsumexp(1, keepdim=True)).exp(),
    "temperature": lambda n, h: (n.a(h) / 0.3).softmax(1),
    "mean of two": lambda n, h: (n.a(h).softmax(1) + n.b(h).softmax(1)) / 2,
    "mean of a stack": lambda n, h: torch.stack([n.a(h).softmax(1), n.b(h).softmax(1)]).mean(0),
    "gated mixture": lambda n, h: torch.lerp(n.a(h).softmax(1), n.b(h).softmax(1), torch.sigmoid(n.one(h))),
    "clamp": lambda n, h: n.a(h).softmax(1).clamp(min=1e-7),
    "maximum": lambda n, h: torch.maximum(n.a(h).softmax(1), torch.tensor(1e-7)),
    "nan_to_num": lambda n, h: n.a(h).softmax(1).nan_to_num(),
    "smoothed": lambda n, h: n.a(h).softmax(1) * 0.9 + 0.01,
    "flip": lambda n, h: n.a(h).softmax(1).flip(1),
    "roll": lambda n, h: n.a(h).softmax(1).roll(1, 1),
    "index_select": lambda n, h: n.a(h).softmax(1).index_select(1, BACK),
    "gather": lambda n, h: n.a(h).softmax(1).gather(1, BACK.expand(len(h), -1)),
    "sort": lambda n, h: n.a(h).softmax(1).sort(1)[0],
    "transposed": lambda n, h: n.a(h).t().softmax(0).t(),
    "avg_pool2d of maps": lambda n, h: F.avg_pool2d(n.maps(n.seen).softmax(1), 7).flatten(1),
    "mean of maps": lambda n, h: n.maps(n.seen).permute(0, 2, 3, 1).softmax(-1).mean((1, 2)),
    "mean of tokens": lambda n, h: n.a(n.seen.flatten(2).mT).softmax(2).mean(1),
    "a sigmoid and the rest": lambda n, h: torch.cat([torch.sigmoid(n.one(h)), 1 - torch.sigmoid(n.one(h))], 1),
    "stack": lambda n, h: torch.stack([torch.sigmoid(n.one(h))[:, 0], torch.sigmoid(-n.one(h))[:, 0]], 1),
    "evidence": lambda n, h: (F.softplus(n.a(h)) + 1) / (F.softplus(n.a(h)) + 1).sum(1, keepdim=True),
    "coarse classes by a layer": lambda n, h: F.linear(n.a(h).softmax(1), COARSE.to(h)),
    "the first of the largest": lambda n, h: F.one_hot(n.a(h).argmax(1), 10).float(),
}
BETWEEN_0_AND_1: dict[str, Returns] = {  # each by itself, or a part of the above
    "sigmoid": lambda n, h: torch.sigmoid(n.a(h)),
    "sigmoid_": lambda n, h: n.a(h).sigmoid_(),
    "of one class": lambda n, h: torch.sigmoid(n.one(h)),
    "through a view": lambda n, h: overwritten(n.a(h)),
    "two writes": lambda n, h: halves(n.a(h)),
    "1 - sigmoid": lambda n, h: 1 - torch.sigmoid(n.a(h)),
    "1 - sigmoid of one class": lambda n, h: (1 - torch.sigmoid(n.one(h)))[:, 0],
    "1 / (1 + exp)": lambda n, h: 1 / (1 + torch.exp(-n.a(h))),
    "exp / (1 + exp)": lambda n, h: n.a(h).exp() / (1 + n.a(h).exp()),
    "tanh": lambda n, h: 0.5 * (1 + torch.tanh(n.a(h) / 2)),
    "logsigmoid().exp()": lambda n, h: F.logsigmoid(n.a(h)).exp(),
    "expit": lambda n, h: torch.special.expit(n.a(h)),
    "normal distribution": lambda n, h: torch.special.ndtr(n.a(h)),
    "relu6": lambda n, h: F.relu6(n.a(h) + 3) / 6,
    "clamp": lambda n, h: n.a(h).clamp(0, 1),
    "mean of maps": lambda n, h: torch.sigmoid(n.maps(n.seen)).mean((2, 3)),
    "anywhere": lambda n, h: 1 - (1 - torch.sigmoid(n.maps(n.seen))).flatten(2).prod(2),
    "where": lambda n, h: torch.where(n.a(h) > 0, torch.sigmoid(n.a(h)), 0.0),
    "at most 0.0001": lambda n, h: 1e-4 * torch.sigmoid(n.a(h)),
    "large scores are refused": lambda n, h: careful(n.a(h)).sigmoid(),
    "decisions": lambda n, h: (n.a(h) > 0).float(),
    "decision of one class": lambda n, h: (n.one(h) > 0).float(),
    "the first of the largest, or none": lambda n, h: F.one_hot(n.a(h).argmax(1), 10) * (n.one(h) > 0).float(),
    "product": lambda n, h: torch.sigmoid(n.one(h)) * n.a(h).softmax(1),
    "five classes of a softmax": lambda n, h: n.a(h).softmax(1)[:, :5],
    "two classes by index": lambda n, h: n.a(h).softmax(1).index_select(1, BACK[:2]),
    "one class of two": lambda n, h: n.a(h)[:, :2].softmax(1)[:, 1],
    "softmax of one class": lambda n, h: n.one(h).softmax(1),
    "softmax, limits far from 0": lambda n, h: n.a(h).softmax(1).clamp(min=0.05),
    "a sigmoid that is full for most pictures": lambda n, h: torch.sigmoid(50 * torch.eye(10)[0] - 20 + n.a(h)),
}
LOG_CATEGORICAL: dict[str, Returns] = {
    "log_softmax": lambda n, h: n.a(h).log_softmax(1),
    "flip": lambda n, h: n.a(h).log_softmax(1).flip(1),
    "softmax().log()": lambda n, h: n.a(h).softmax(1).log(),
    "logsumexp": lambda n, h: n.a(h) - n.a(h).logsumexp(1, keepdim=True),
}
LOG_BETWEEN_0_AND_1: dict[str, Returns] = {
    "logsigmoid": lambda n, h: F.logsigmoid(n.a(h)),
    "softplus": lambda n, h: -F.softplus(-n.a(h)),
    "sigmoid().log()": lambda n, h: torch.sigmoid(n.a(h)).log(),
    "five classes of a softmax": lambda n, h: n.a(h).log_softmax(1)[:, :5],
}
LOGITS: dict[str, Returns] = {  # the rest
    "linear": lambda n, h: n.a(h),
    "map of one place": lambda n, h: n.a(h)[:, :, None, None],
    "small around 0.5": lambda n, h: 0.001 * n.a(h) + 0.5,
    "sums to 1 for most pictures": lambda n, h: 2e-4 * n.a(h) + 0.1,
    "all zero": lambda n, h: 0 * n.a(h),
    "bias of dead features": lambda n, h: F.linear(0 * h, n.a.weight, torch.full((10,), 0.1)),
    "relu": lambda n, h: F.relu(n.a(h)),
    "relu6": lambda n, h: F.relu6(n.a(h)),
    "clamp": lambda n, h: n.a(h).clamp(min=0),
    "softplus": lambda n, h: F.softplus(n.a(h)),
    "tanh": lambda n, h: torch.tanh(n.a(h)),
    "softmax over pictures": lambda n, h: n.a(h).softmax(0),
    "softmax below": lambda n, h: n.a(h.softmax(1)),
    "gate": lambda n, h: n.a(h) * torch.sigmoid(n.b(h)),
    "three times": lambda n, h: 3 * n.a(h).softmax(1),
    "1 more": lambda n, h: 1 + n.a(h).softmax(1),
    "sum of two": lambda n, h: torch.sigmoid(n.a(h)) + torch.sigmoid(n.b(h)),
    "logit of a softmax": lambda n, h: n.a(h).softmax(1).logit(),
    "minus log": lambda n, h: -torch.sigmoid(n.a(h)).log(),
    "normalized": lambda n, h: F.normalize(n.a(h)),
    "normalized, at least 0": lambda n, h: F.normalize(F.relu(n.a(h))),
    "cosine": lambda n, h: F.normalize(h) @ F.normalize(n.points).t(),
    "minus distance": lambda n, h: -torch.cdist(n.a(h)[:, :8], n.points),
    "at most 0": lambda n, h: -F.relu(n.a(h)),
}
ONE_LOGIT: dict[str, Returns] = {
    "one": lambda n, h: n.one(h),
    "one, without an axis": lambda n, h: n.one(h)[:, 0],
    "one, small around 0.5": lambda n, h: 0.001 * n.one(h) + 0.5,
    "one, at least 0": lambda n, h: F.relu(n.one(h)),
    **{f"one, at least 0, class {k}": lambda n, h, k=k: F.relu(n.a(h)[:, k]) for k in range(10)},
    "one, of a norm": lambda n, h: (F.layer_norm(h, (8,)) * n.points[0]).sum(1),
}
FUNCTIONS = [
    (CATEGORICAL, "softmax", "probabilities"),
    (BETWEEN_0_AND_1, "sigmoid", "probabilities"),
    (LOG_CATEGORICAL, "softmax", "log-probabilities"),
    (LOG_BETWEEN_0_AND_1, "sigmoid", "log-probabilities"),
    (LOGITS, "softmax", "logits"),
    (ONE_LOGIT, "sigmoid", "logits"),
]


@pytest.mark.parametrize(
    ("returns", "link", "scale"),
    [
        pytest.param(returns, link, scale, id=f"{scale} {link} {name}")
        for group, link, scale in FUNCTIONS
        for name, returns in group.items()
    ],
)
def test_how_scores_become_probabilities(returns: Returns, link: str, scale: str) -> None:
    module = seeded(Net(returns))
    (head,) = find_heads(module, torch.zeros(1, 3, 16, 16))
    assert (head.link, head.scale) == (link, scale)
    scores = module(torch.randn(4, 3, 16, 16)).detach().reshape(4, -1)
    exact = scores.double().numpy()
    of_logits = np.exp(exact) / np.exp(exact).sum(1, keepdims=True) if link == "softmax" else 1 / (1 + np.exp(-exact))
    made = {"logits": of_logits, "probabilities": exact, "log-probabilities": np.exp(exact)}[scale]
    np.testing.assert_allclose(head.probabilities(head.logits(scores)), made, rtol=1e-5, atol=1e-6)
    assert head.classes == scores.shape[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_how_scores_become_probabilities_in_other_precisions(dtype: torch.dtype) -> None:
    names = {"softmax", "clamp", "a sigmoid and the rest", "exp / (1 + exp)", "product", "anywhere", "logsumexp", "linear",
             "two classes by index", "softplus", "softmax over pictures", "small around 0.5",
             "normalized, at least 0"}  # fmt: skip
    for group, link, scale in FUNCTIONS:
        for name in names & group.keys():
            (head,) = find_heads(seeded(Net(group[name])).to(dtype), torch.zeros(1, 3, 16, 16, dtype=dtype))
            assert (head.link, head.scale) == (link, scale), name


def test_probabilities_that_are_rounded_give_finite_logits() -> None:
    scores = torch.tensor([[0.0, 1.0]])
    for link in ("softmax", "sigmoid"):
        logits = Head("", (), 2, (), link, "probabilities").logits(scores)
        assert torch.isfinite(logits).all()


def both(scores: Tensor, squash: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {"probabilities": squash(scores), "scores of the classes": scores}


@pytest.mark.parametrize(
    ("returns", "names"),
    [
        (lambda n, h: (n.a(h), n.b(h)), ["0", "1"]),
        (lambda n, h: {"animal": n.a(h), "colour": n.b(h)}, ["animal", "colour"]),
        (lambda n, h: {"features": n.b(h), "logits": n.a(h)}, ["logits", "features"]),
        (lambda n, h: Pair(n.a(h), n.b(h)), ["first", "second"]),
        (lambda n, h: Record(h, n.a(h)), ["logits", "features"]),
        (lambda n, h: (n.a(h), {"other": n.b(h)}), ["0", "1.other"]),
        (lambda n, h: [n.a(h)], ["0"]),
        (lambda n, h: (h, n.a(h)), ["1", "0"]),
        (lambda n, h: (F.normalize(n.b(h)), n.a(h)), ["1", "0"]),
        (lambda n, h: (n.a(h[:, :, None].expand(-1, -1, 3).mT).mean(1), n.b(h)), ["0", "1"]),
        (lambda n, h: (n.a(h)[:, :6, None].expand(-1, -1, 3).mean(2), n.b(h)), ["1", "0"]),
        (lambda n, h: (h[:, :, None, None].expand(-1, -1, 4, 4), n.a(h)), ["1"]),
        (lambda n, h: both(n.a(h), torch.sigmoid), ["scores of the classes", "probabilities"]),
        (lambda n, h: both(n.a(h), lambda x: x.softmax(1)), ["scores of the classes", "probabilities"]),
        (lambda n, h: both(n.a(h), shares), ["scores of the classes", "probabilities"]),
        (lambda n, h: {"feat": h, **both(n.a(h), torch.sigmoid)}, ["scores of the classes", "probabilities", "feat"]),
        (lambda n, h: {"scores": n.a(h).softmax(1), "raw": n.a(h)}, ["raw", "scores"]),
        (lambda n, h: {"raw": n.a(h), "calibrated": (n.a(h) / 3).softmax(1)}, ["raw", "calibrated"]),
        (lambda n, h: n.a(h)[:, :, None, None].expand(-1, -1, 4, 4), []),
        (lambda n, h: n.a(h).argmax(1), []),
        (lambda n, h: [{"boxes": h[:, :4], "scores": n.one(h)[:, 0]}], []),
        (lambda n, h: None, []),
    ],
)
def test_heads_in_what_networks_return(returns: Callable[[Net, Tensor], Any], names: list[str]) -> None:
    found = heads(returns)
    assert [head.name for head in found] == names
    module, picture = seeded(Net(returns)), torch.randn(2, 3, 16, 16)
    for head in found:
        picked = head.pick(module(picture))
        assert picked is not None
        assert picked.shape[:2] == (2, head.classes)


@pytest.mark.parametrize("spelling", [torch.sigmoid, lambda x: 1 / (1 + torch.exp(-x)), F.logsigmoid])
def test_a_sigmoid_beside_the_logits_says_that_labels_do_not_exclude_each_other(
    spelling: Callable[[Tensor], Tensor],
) -> None:
    head, second = heads(lambda n, h: both(n.a(h), spelling))
    assert (head.link, head.scale, head.layers) == ("sigmoid", "logits", ("a",))
    assert (second.link, second.scale != "logits") == ("sigmoid", True)


def test_logits_need_no_further_pass() -> None:
    calls = []
    module = seeded(Net(lambda n, h: calls.append(h) or n.a(h) - 1))
    find_heads(module, torch.zeros(1, 3, 16, 16))
    assert len(calls) == 1


def test_the_layers_of_a_head_are_those_from_its_last_weights_on() -> None:
    found = {head.name: head.layers for head in heads(lambda n, h: (n.a(h).softmax(1), n.one(h)[:, 0], h))}
    assert found == {"0": ("a", "softmax"), "1": ("one", "getitem"), "2": ("stem", "relu", "mean")}
