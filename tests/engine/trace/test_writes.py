"""Writes in place, through views and into buffers are followed: equal functions give equal projections."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.engine.occlusion.test_sweep import compare, grid
from tests.errors import refuses
from tests.networks import seeded
from tests.oracles import steered_projections
from vizapp.engine.projection.project import project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.recording import record
from vizapp.engine.trace.sites import Unit, survey

SIDE = 8
Middle = Callable[[Tensor], Tensor]
PICTURE = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """A function of a map `[N 4 8 8]` that owns its memory, between a convolution and a head."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        self.stem, self.head, self.middle = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, SIDE), middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x))).flatten(1)


def statements(code: str) -> Middle:
    """The function of `x` that some statements compute, which leave their result in `x`."""
    compiled = compile(code, "middle", "exec")

    def middle(x: Tensor) -> Tensor:
        names = {"x": x, "torch": torch, "F": F}
        exec(compiled, names)
        return names["x"]

    return middle


# The same function twice: with writes or with operations that return their input, and without.
SPELLINGS = {
    "contiguous": (
        "a, b = x.chunk(2, 1); x = x.contiguous(); x = torch.cat([b, a], 1) + x",
        "a, b = x.chunk(2, 1); x = torch.cat([b, a], 1) + x",
    ),
    "dropout": (
        "a = x[:, :2]; x = F.dropout(x, 0.5, False); x = x + a.repeat(1, 2, 1, 1)",
        "x = x + x[:, :2].repeat(1, 2, 1, 1)",
    ),
    "to": (
        "a = x.flatten(2); x = x.to(torch.float64); x = x * a.mean(2)[..., None, None]",
        "x = x * x.flatten(2).mean(2)[..., None, None]",
    ),
    "double": ("a = x.mT; x = x.double(); x = a - x", "x = x.mT - x"),
    "identity": (
        "a = x[:, 1:]; x = torch.nn.Identity()(x); x = F.pad(a, (0, 0, 0, 0, 0, 1)) + x",
        "x = F.pad(x[:, 1:], (0, 0, 0, 0, 0, 1)) + x",
    ),
    "half of the channels": ("x[:, :2].relu_()", "x = torch.cat([F.relu(x[:, :2]), x[:, 2:]], 1)"),
    "a chunk": ("x.chunk(2, 1)[0].relu_(); x = x.relu()", "x = F.relu(x)"),
    "added to a part": ("z = 2 * x[:, 1:]; x[:, :3] += z", "x = torch.cat([x[:, :3] + 2 * x[:, 1:], x[:, 3:]], 1)"),
    "whole under a view": ("a = x.flatten(2); x.relu_(); x = a.view_as(x) * 2", "x = F.relu(x) * 2"),
    "view and whole": (
        "a = x[:, :2]; a.relu_(); b = x[:, 1:3]; x = torch.cat([a, b], 1)",
        "a = F.relu(x[:, :2]); x = torch.cat([a, a[:, 1:], x[:, 2:3]], 1)",
    ),
    "twice": (
        "a = x[:, :3]; b = x[:, 1:]; a.mul_(2); b.relu_(); a.add_(1); x = torch.cat([a, b[:, :1]], 1) + x",
        "y = F.relu(torch.cat([2 * x[:, 1:3], x[:, 3:]], 1)); "
        "y = torch.cat([2 * x[:, :1] + 1, y[:, :2] + 1, y[:, 2:]], 1); x = torch.cat([y[:, :3], y[:, 1:2]], 1) + y",
    ),
    "a transposed view": ("x.mT[..., 1:3] *= 3", "x = torch.cat([x[:, :, :1], 3 * x[:, :, 1:3], x[:, :, 3:]], 2)"),
    "windows": (
        "w = x.unfold(2, 3, 1); x.relu_(); x = F.pad(w.sum(4), (0, 0, 1, 1))",
        "x = F.pad(F.relu(x).unfold(2, 3, 1).sum(4), (0, 0, 1, 1))",
    ),
    "detached": ("d = x.detach(); d.clamp_(min=0)", "x = F.relu(x)"),
    "data": ("x.data.clamp_(min=0)", "x = F.relu(x)"),
    "buffer": (
        "y = x.new_zeros(len(x), 4, 8, 8); y[:, :2] = x[:, 2:]; y[:, 3:].copy_(x[:, :1]); x = y",
        "x = torch.cat([x[:, 2:], 0 * x[:, :1], x[:, :1]], 1)",
    ),
    "views of a buffer": (
        "y = x.new_full((len(x), 4, 8, 8), 2.0); a, b = y.chunk(2, 1); a.copy_(x[:, 1:3]); y.relu_(); "
        "x = torch.cat([y[:, 1:], a[:, :1]], 1) + b.repeat(1, 2, 1, 1)",
        "a = F.relu(x[:, 1:3]); c = x.new_full((len(x), 2, 8, 8), 2.0); x = torch.cat([a[:, 1:], c, a[:, :1]], 1) + 2",
    ),
    "a list of pictures": (
        "y = x.new_full((len(x), 4, 10, 10), 0.5); "
        "[y[i, : p.shape[0], 1:9, :8].copy_(p) for i, p in enumerate(x)]; x = y[:, :, 1:9, :8] + y[:, :, 2:, 2:]",
        "x = x + F.pad(x[:, :, 1:, 2:] - 0.5, (0, 2, 0, 1)) + 0.5",
    ),
    "a product in a buffer": (
        "y = x.new_full((len(x), 4, 8, 8), 3.0); y *= torch.sigmoid(x); x = x + y",
        "x = x + 3 * torch.sigmoid(x)",
    ),
    "out": ("y = x.new_empty(len(x), 4, 8, 8); torch.mul(x, 2, out=y); x = torch.add(x, y, out=y)", "x = x + 2 * x"),
    "out under a view": (
        "y = x.new_empty(len(x), 4, 8, 8); a = y[:, :2]; torch.mul(x, 2, out=y); x = x + a.repeat(1, 2, 1, 1)",
        "x = x + 2 * x[:, :2].repeat(1, 2, 1, 1)",
    ),
    "a running factor": ("s = x.new_ones(1); y = x * s; s += 1; x = y + x.flip(1) * s", "x = x + 2 * x.flip(1)"),
    "a filled table": (
        "s = x.new_ones(4, 1, 1); y = x * s; s[1:] = 3; x = y + x.flip(2) * s",
        "x = x + x.flip(2) * torch.tensor([1.0, 3, 3, 3]).to(x)[:, None, None]",
    ),
    "one buffer for all": (
        "y = x.new_zeros(len(x), 2, 8, 8); y[:] = x[:, :2]; z = y * 2; y[:] = x[:, 2:]; x = torch.cat([z, y], 1)",
        "x = torch.cat([2 * x[:, :2], x[:, 2:]], 1)",
    ),
    "axes in place": ("a = x[:, :1]; x.unsqueeze_(1); x.squeeze_(1); x = x + a", "x = x + x[:, :1]"),
    "masked": (
        "a = x.flatten(2); x.masked_fill_(torch.ones(8, 8).triu().bool(), 0.0); x = a.unflatten(2, (8, 8))",
        "x = x * torch.ones(8, 8).tril(-1).to(x)",
    ),
    "added at indices": (
        "a = x[:, 1]; x.index_add_(1, torch.tensor([1, 1]), x[:, 2:].clone()); x = x + a[:, None]",
        "y = x[:, 1:2] + x[:, 2:3] + x[:, 3:]; x = torch.cat([x[:, :1], y, x[:, 2:]], 1) + y",
    ),
}


def projections(middle: Middle, rule: str) -> Tensor:
    module = seeded(Around(middle)).double()
    sites = survey(module, PICTURE)
    (down,) = project(module, PICTURE, [Unit(sites[-1].name, c) for c in range(3)], sites, rule_named(rule), seed="one")
    return down.values


@pytest.mark.parametrize("name", SPELLINGS)
def test_writes_are_followed(name: str) -> None:
    written, plain = map(statements, SPELLINGS[name])
    module = seeded(Around(plain)).double()
    assert torch.allclose(seeded(Around(written)).double()(PICTURE), module(PICTURE), atol=1e-12)
    for rule in ("deconvnet", "guided", "gradient"):
        site = survey(module, PICTURE)[-1].name
        expected = torch.stack(steered_projections(module, PICTURE, site, [(c,) for c in range(3)], rule))
        torch.testing.assert_close(projections(written, rule), expected, rtol=1e-10, atol=1e-12, msg=rule)


@pytest.mark.parametrize("name", SPELLINGS)
def test_occluders_change_what_is_written(name: str) -> None:
    module = seeded(Around(statements(SPELLINGS[name][0]))).double()
    compare(module, grid((SIDE, SIDE), (3, 3), 4), PICTURE, torch.zeros_like(PICTURE), 1e-12)


@pytest.mark.parametrize("name", ["contiguous", "dropout", "to", "double", "identity"])
def test_an_operation_that_returns_its_input_writes_nothing(name: str) -> None:
    recording = record(
        seeded(Around(statements(SPELLINGS[name][0]))).double(), PICTURE, {"head"}, rule_named("gradient")
    )
    assert not any(step.operation == "overlay" or "writes" in step.ctx for step in recording.steps)


def test_a_write_through_a_view_of_another_type_is_refused() -> None:
    middle = statements("y = torch.complex(x, x); torch.view_as_real(y)[..., 0] *= 2; x = y.abs()")
    with refuses("overwritten-view"):
        projections(middle, "gradient")
