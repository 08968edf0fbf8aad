"""Heads are found in all that networks return, and how they become probabilities from the operations that made them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """Returns whatever `returns` makes of features `[N 8]`."""

    def __init__(self, returns: Callable[[Net, Tensor], Any]) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 10), nn.Linear(8, 10)
        self.one, self.returns = nn.Linear(8, 1), returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(self, torch.relu(self.stem(x)).mean((2, 3)))


def heads(returns: Callable[[Net, Tensor], Any]) -> tuple[Head, ...]:
    return find_heads(seeded(Net(returns)), torch.zeros(1, 3, 16, 16))


def shares(scores: Tensor) -> Tensor:
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def overwritten(scores: Tensor) -> Tensor:
    scores.view(-1, 10).sigmoid_()
    return scores


@pytest.mark.parametrize(
    ("returns", "link", "scale"),
    [
        (lambda n, h: n.a(h), "softmax", "logits"),
        (lambda n, h: n.a(h)[:, :, None, None], "softmax", "logits"),
        (lambda n, h: F.relu(n.a(h)), "softmax", "logits"),
        (lambda n, h: n.a(h).softmax(1), "softmax", "probabilities"),
        (lambda n, h: F.softmax(n.a(h), dim=-1).view(-1, 10), "softmax", "probabilities"),
        (lambda n, h: n.a(h).log_softmax(1), "softmax", "log-probabilities"),
        (lambda n, h: n.a(h).softmax(1).log(), "softmax", "log-probabilities"),
        (lambda n, h: n.a(h).log_softmax(1).exp(), "softmax", "probabilities"),
        (lambda n, h: shares(n.a(h)), "softmax", "probabilities"),
        (lambda n, h: (n.a(h).softmax(1) + n.b(h).softmax(1)) / 2, "softmax", "probabilities"),
        (lambda n, h: torch.stack([n.a(h).softmax(1), n.b(h).softmax(1)]).mean(0), "softmax", "probabilities"),
        (lambda n, h: torch.sigmoid(n.a(h)), "sigmoid", "probabilities"),
        (lambda n, h: n.a(h).sigmoid_(), "sigmoid", "probabilities"),
        (lambda n, h: overwritten(n.a(h)), "sigmoid", "probabilities"),
        (lambda n, h: F.logsigmoid(n.a(h)), "sigmoid", "log-probabilities"),
        (lambda n, h: n.one(h), "sigmoid", "logits"),
        (lambda n, h: n.one(h)[:, 0], "sigmoid", "logits"),
        (lambda n, h: torch.sigmoid(n.one(h)), "sigmoid", "probabilities"),
        # Softmaxes and sigmoids that are not the probabilities of the classes.
        (lambda n, h: n.a(h).softmax(0), "softmax", "logits"),
        (lambda n, h: n.a(h.softmax(1)), "softmax", "logits"),
        (lambda n, h: n.a(h) * torch.sigmoid(n.b(h)), "softmax", "logits"),
        (lambda n, h: 3 * n.a(h).softmax(1), "softmax", "logits"),
        (lambda n, h: torch.sigmoid(n.a(h)) + torch.sigmoid(n.b(h)), "softmax", "logits"),
        (lambda n, h: F.normalize(n.a(h)), "softmax", "logits"),
    ],
)
def test_how_scores_become_probabilities(returns: Callable[[Net, Tensor], Any], link: str, scale: str) -> None:
    (head,) = heads(returns)
    assert (head.link, head.scale) == (link, scale)
    module = seeded(Net(returns))
    scores = module(torch.randn(4, 3, 16, 16)).detach().reshape(4, -1)
    found = head.probabilities(head.logits(scores))
    made = {"logits": lambda: found, "probabilities": lambda: scores, "log-probabilities": scores.exp}[scale]()
    torch.testing.assert_close(found, made, rtol=1e-5, atol=1e-6)
    assert head.classes == scores.shape[1]


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
        (lambda n, h: both(n.a(h), torch.sigmoid), ["scores of the classes"]),
        (lambda n, h: both(n.a(h), lambda x: x.softmax(1)), ["scores of the classes"]),
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


def test_a_sigmoid_beside_the_logits_says_that_labels_do_not_exclude_each_other() -> None:
    (head,) = heads(lambda n, h: both(n.a(h), torch.sigmoid))
    assert (head.link, head.scale, head.layers) == ("sigmoid", "logits", ("a",))


def test_the_layers_of_a_head_are_those_from_its_last_weights_on() -> None:
    found = {head.name: head.layers for head in heads(lambda n, h: (n.a(h).softmax(1), n.one(h)[:, 0], h))}
    assert found == {"0": ("a", "softmax"), "1": ("one", "getitem"), "2": ("stem", "relu", "mean")}
