"""Token grids of transformers on oblong photos, by perturbation: a changed patch changes its own token most.

For this, attention is replaced by one in which each token looks at itself alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import VisionTransformer

from vizapp.engine.trace.observe import observe
from vizapp.engine.trace.sites import survey

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 16}


class Oneself(TorchFunctionMode):
    """Attention among the same tokens gives each token its own value."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, output = getattr(func, "__name__", ""), func(*args, **(kwargs or {}))
        if name == "scaled_dot_product_attention" and args[2].shape == output.shape:
            return args[2].clone()
        if name == "softmax" and output.ndim > 2 and output.shape[-1] == output.shape[-2]:
            return torch.eye(output.shape[-1]).expand_as(output).clone()
        return output


class First(nn.Module):
    """The first result of a network of the library transformers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(pixel_values=x)[0]


def of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=4, img_size=(64, 96), **SMALL | options)


def of_transformers(name: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: First(getattr(transformers, name)(getattr(transformers, config)(**TINY | options)))


def of_torchvision() -> nn.Module:
    module = VisionTransformer(64, 16, 2, 2, 32, 64)
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            nn.init.zeros_(part.out_proj.weight)
    return module


CLASS, REGISTERS = ["class"], [f"register {number}" for number in range(1, 5)]
FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], list[str], list[str]]] = {
    "vit": (of_timm("vit_tiny_patch16_224"), (4, 6), CLASS, []),
    "deit distilled": (of_timm("deit_tiny_distilled_patch16_224"), (4, 6), [*CLASS, "distillation"], []),
    "dinov2 with registers": (of_timm("vit_small_patch14_reg4_dinov2", patch_size=16), (4, 6), CLASS + REGISTERS, []),
    "dinov3": (of_timm("vit_small_patch16_dinov3"), (4, 6), CLASS + REGISTERS, []),
    "eva02": (of_timm("eva02_tiny_patch14_224", patch_size=16), (4, 6), CLASS, []),
    "cait": (of_timm("cait_xxs24_224"), (4, 6), CLASS, []),
    "beit": (of_timm("beit_base_patch16_224"), (4, 6), CLASS, []),
    "torchvision": (of_torchvision, (4, 4), CLASS, []),
    "DeiT of transformers": (
        of_transformers("DeiTForImageClassification", "DeiTConfig", image_size=(64, 96)), (4, 6),
        [*CLASS, "distillation"], [],
    ),
    "YOLOS": (
        of_transformers("YolosForObjectDetection", "YolosConfig", image_size=[64, 96], num_detection_tokens=3), (4, 6),
        CLASS, ["detection 1", "detection 2", "detection 3"],
    ),
    "DINOv3 of transformers": (
        of_transformers("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4), (4, 6), CLASS + REGISTERS, [],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_patch_changes_its_own_token_most(family: str) -> None:
    build, grid, before, after = FAMILIES[family]
    torch.manual_seed(0)
    module = build().eval().requires_grad_(False)
    picture = torch.randn(1, 3, 16 * grid[0], 16 * grid[1])
    tokens = [site for site in survey(module, picture) if site.layout == "tokens" and site.located]
    last = [site for site in tokens if site.special][-1]
    assert last.special == (*before, *after)
    assert (last.prefix_tokens, last.suffix_tokens) == (len(before), len(after))
    assert {site.shape[1:] for site in tokens} == {grid}
    assert len(tokens) >= 20
    with Oneself():
        clean = observe(module, picture, tokens)
    for row, column in ((0, grid[1] - 1), (grid[0] - 1, 0), (1, 2)):
        other = picture.clone()
        other[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += torch.randn(3, 16, 16)
        with Oneself():
            changed = observe(module, other, tokens)
        changes = {site.name: (changed[site.name] - clean[site.name])[0].square().sum(0) for site in tokens}
        found = {name: divmod(int(change.argmax()), grid[1]) for name, change in changes.items() if change.any()}
        assert set(found.values()) == {(row, column)}
        assert len(found) >= 15
