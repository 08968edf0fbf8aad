"""Grad-CAM and Score-CAM of timm's networks in every layout: the map and its layer, against a definition written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vizapp
from tests.zoo.test_families import randomize_zeros
from vizapp.zoo.network import Network

timm = pytest.importorskip("timm")

PICTURE = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
SIDE = 64
# Each with options that make it small, the last module whose output is a map that the class reads, how that output is laid
# out ("chw", "hwc", or the number of special tokens before the patches), and the name of the site.
NETWORKS: list[tuple[str, dict[str, Any], str, str | int, str]] = [
    ("test_convnext", {}, "stages.3", "chw", "stages.3.blocks.1.add"),
    ("test_mambaout", {}, "stages.3", "hwc", "stages.3.blocks.0.add"),
    ("test_coatnet", {"img_size": SIDE}, "norm", "chw", "norm.layer_norm"),
    # Windows of 4 x 4 cells, shifted in the second block.
    (
        "swin_tiny_patch4_window7_224",
        {"img_size": SIDE, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
        "norm", "hwc", "norm",
    ),
    # The class reads its own token, so the last block's patches reach it no more.
    ("test_vit", {"img_size": SIDE}, "blocks.4", 1, "blocks.4.add_1"),
    ("test_vit", {"img_size": SIDE, "reg_tokens": 3}, "blocks.4", 4, "blocks.4.add_1"),
    ("test_vit", {"img_size": SIDE, "class_token": False, "global_pool": "avg"}, "blocks.5", 0, "blocks.5.add_1"),
    (
        "deit_tiny_distilled_patch16_224",
        {"img_size": SIDE, "embed_dim": 24, "depth": 3, "num_heads": 2},
        "blocks.1", 2, "blocks.1.add_1",
    ),
    (
        "twins_svt_small",
        {"img_size": SIDE, "embed_dims": (16, 16, 16, 16), "depths": (1, 1, 1, 1)},
        "norm", 0, "norm",
    ),
]  # fmt: skip


def built(name: str, options: dict[str, Any]) -> Network:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=5, **options).eval().requires_grad_(False)
    randomize_zeros(module)
    return vizapp.wrap(module, input_size=(3, SIDE, SIDE), mean=0.45, std=0.25)


def grad_cam(network: Network, path: str, layout: str | int, class_: int) -> np.ndarray:
    """Selvaraju et al. 2017, equations 1 and 2, by a hook on the module; two copies of the picture."""
    kept: list[Tensor] = []
    handle = network.module.get_submodule(path).register_forward_hook(lambda module, given, output: kept.append(output))
    picture = network.prepare(PICTURE).repeat(2, 1, 1, 1).requires_grad_()
    scores = network.module(picture)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores[0, class_], kept[0])

    def as_map(values: Tensor) -> Tensor:
        values = values[0].detach()
        if layout == "chw":
            return values
        if layout == "hwc":
            return torch.stack(values.unbind(2))
        side = round(len(values[layout:]) ** 0.5)
        return values[layout:].T.reshape(-1, side, side)

    weights = as_map(gradient).mean((1, 2))
    heat = sum(weight * channel for weight, channel in zip(weights, as_map(kept[0]), strict=True)).relu()
    return F.interpolate(heat[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "path", "layout", "site"), NETWORKS, ids=[f"{one[0]}-{one[3]}" for one in NETWORKS]
)
def test_cams_are_their_definition(name: str, options: dict[str, Any], path: str, layout: str | int, site: str) -> None:
    network, shown = built(name, options), 0
    for class_ in range(2):
        unit = vizapp.class_unit(network, class_)
        result = vizapp.ask("attribution", network, PICTURE, unit=unit, kind="gradcam")
        expected = grad_cam(network, path, layout, class_)
        assert result.facts["note"].startswith(f"At layer {site}, ")
        assert ("left out" in result.facts["note"]) == (layout in {1, 2, 4})
        np.testing.assert_allclose(result.arrays["attribution"], expected, rtol=1e-3, atol=1e-4 * expected.max())
        shown += bool(expected.any())
    assert shown, "the oracle has something to show"
    assert vizapp.ask("attribution", network, PICTURE, unit=unit, kind="scorecam").facts["layer"] == site
