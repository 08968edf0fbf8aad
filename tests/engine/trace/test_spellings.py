"""One function spelled in several ways, down to torch.ops.aten, has one projection and one certificate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.trace.test_writes import PICTURE, Around, statements
from tests.networks import seeded
from vizapp.engine.projection.project import Certificate, project
from vizapp.engine.projection.rules import rule_named
from vizapp.engine.trace.sites import Unit, survey

BEFORE = "aten, (m, v, w, b) = torch.ops.aten, torch.linspace(0.5, 2, 16).to(x).view(4, 4); "
K = "torch.linspace(-1, 1, 144).to(x).view(4, 4, 3, 3)"
# The first of each family is the usual one.
FAMILIES = {
    "batch norm": (
        "x = F.batch_norm(x, m, v, w, b, False, 0.1, 1e-3)",
        "x = torch.batch_norm(x, w, b, m, v, False, 0.1, 1e-3, True)",
        "x = torch.batch_norm(x, w, b, running_mean=m, running_var=v, training=False, momentum=0.1, "
        "eps=1e-3, cudnn_enabled=False)",
        "x = aten.batch_norm(x, w, b, m, v, False, 0.1, 1e-3, False)",
        "x = aten.batch_norm.default(x, w, b, m, v, False, 0.1, 1e-3, False)",
    ),
    "relu": (
        "x = F.relu(x)",
        "x = x.relu()",
        "x = torch.relu_(x)",
        "x = aten.relu(x)",
        "x = aten.relu.default(x)",
        "x = aten.relu_.default(x)",
    ),
    "relu6": ("x = F.relu6(3 * x)", "x = F.hardtanh(3 * x, 0.0, 6.0)", "x = aten.hardtanh.default(3 * x, 0.0, 6.0)"),
    "convolution": (
        f"x = F.conv2d(x, {K}, w, 1, 1)",
        f"x = torch.conv2d(x, {K}, w, (1, 1), 'same')",
        f"x = aten.conv2d(x, {K}, w, [1, 1], [1, 1])",
        f"x = aten.conv2d.default(x, {K}, w, [1, 1], [1, 1])",
    ),
    "max pool": (
        "y = F.max_pool2d(x, 3, 1, 1); x = x + y",
        "y = torch.max_pool2d(x, 3, 1, 1); x = x + y",
        "y = aten.max_pool2d.default(x, [3, 3], [1, 1], [1, 1]); x = x + y",
    ),
    "sum": (
        "x = F.relu(x) + x",
        "x = torch.add(F.relu(x), x)",
        "x = aten.add.Tensor(F.relu(x), x)",
        "y = F.relu(x); x += y",
    ),
    "product": ("x = F.relu(x) * 2", "x = aten.mul.Tensor(F.relu(x), 2)", "x = x.relu_().mul_(2)"),
    "gate": (
        "x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))",
        "x = aten.mul.Tensor(x, aten.sigmoid.default(aten.mean.dim(x, [2, 3], True)))",
    ),
}


def down(code: str, rule: str) -> tuple[Tensor, Certificate]:
    module = seeded(Around(statements(BEFORE + code))).double()
    sites = survey(module, PICTURE)
    (found,) = project(module, PICTURE, [Unit(sites[-1].name, 1)], sites, rule_named(rule), seed="one")
    return found.values, found.certificate


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_functions_give_equal_projections(family: str) -> None:
    for rule in ("deconvnet", "guided", "gradient"):
        expected, certificate = down(FAMILIES[family][0], rule)
        for code in FAMILIES[family][1:]:
            values, counted = down(code, rule)
            torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-14, msg=code)
            assert counted == certificate, (code, rule)
