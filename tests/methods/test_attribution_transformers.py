"""Attention rollout and LeGrad, against the papers' formulas on attention that a re-implementation computes itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import vizapp
from tests.networks import seeded
from vizapp.errors import VizError

PICTURE = np.random.default_rng(3).integers(0, 256, (60, 50, 3), dtype=np.uint8)
SIDE, PATCH, BLOCKS, HEADS, WIDTH = 32, 8, 3, 2, 16


class Block(nn.Module):
    """A block of timm's ViT: attention fused or written out, or torch's own with the same weights."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.drop, self.mlp = nn.Dropout(0.1), nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        if self.way == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.way == "masked":
            y = F.scaled_dot_product_attention(q, k, v, torch.zeros(count, count), scale=(width // HEADS) ** -0.5)
        elif self.way == "einsum":
            weights = F.softmax(torch.einsum("bhqc,bhkc->bhqk", q, k) * (width // HEADS) ** -0.5, -1)
            y = torch.einsum("bhqk,bhkc->bhqc", self.drop(weights), v)
        else:
            weights = ((q * (width // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
            if self.way == "oracle":
                weights.retain_grad()
                self.seen.append(weights)
            y = self.drop(weights) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, count, width))


class Plain(nn.Module):
    """A ViT with `special` tokens before the patches, read out at these, or as the mean of the patches without any."""

    def __init__(self, way: str = "fused", special: int = 1, wide: int = SIDE) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.special = nn.Parameter(torch.randn(1, special, WIDTH))
        self.places = nn.Parameter(torch.randn(1, special + SIDE // PATCH * (wide // PATCH), WIDTH))
        self.blocks = nn.Sequential(*(Block(way) for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        special = self.special.shape[1]
        if special:
            x = torch.cat([self.special.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.places))
        return self.head(x[:, :special].mean(1) if special else x.mean(1))


def vit(way: str, special: int = 1, wide: int = SIDE) -> Plain:
    module = seeded(Plain(way, special, wide))
    with torch.no_grad():
        for block in module.blocks:
            block.qkv.weight.mul_(3)  # attention that is far from uniform
    return module


def network_of(module: nn.Module, wide: int = SIDE) -> vizapp.Network:
    return vizapp.wrap(module, input_size=(3, SIDE, wide))


def ask(network: vizapp.Network, kind: str, unit: vizapp.Unit | None = None) -> np.ndarray:
    unit = unit or vizapp.class_unit(network, 1)
    return vizapp.ask("attribution", network, PICTURE, unit=unit, kind=kind).arrays["attribution"]


def by_formula(module: Plain, kind: str, special: int, wide: int = SIDE) -> np.ndarray:
    """The map of class 1 by the papers' formulas, in float64, on a batch of two equal photos."""
    batch = network_of(module, wide).prepare(PICTURE).double().repeat(2, 1, 1, 1)
    slow = vit("oracle", special, wide)
    slow.load_state_dict(module.state_dict())
    slow = slow.double().requires_grad_(True)
    slow(batch)[0, 1].backward()
    attention = [block.seen[-1] for block in slow.blocks]
    count = attention[0].shape[-1]
    if kind == "rollout":
        rolled = np.eye(count)
        for each in attention:
            mixed = 0.5 * each[0].detach().numpy().mean(0) + 0.5 * np.eye(count)
            rolled = (mixed / mixed.sum(1, keepdims=True)) @ rolled
        tokens = rolled[:special].mean(0) if special else rolled.mean(0)
    else:
        maps = [each.grad[0].numpy() for each in attention]
        tokens = np.mean([np.maximum(each, 0).mean((0, 1)) for each in maps], 0)
    grid = torch.from_numpy(tokens[special:]).view(1, 1, SIDE // PATCH, -1)
    pixels = F.interpolate(grid, (SIDE, wide), mode="bilinear")[0, 0].numpy()
    return pixels if kind == "rollout" else (pixels - pixels.min()) / np.ptp(pixels)


@pytest.mark.parametrize(("special", "wide"), [(0, SIDE), (1, SIDE), (2, SIDE), (2, 48), (1, 16)])
@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_a_map_is_that_of_the_paper_at_the_tokens_that_are_read(kind: str, special: int, wide: int) -> None:
    module = vit("fused", special, wide)
    expected = by_formula(module, kind, special, wide)
    found = ask(network_of(module, wide), kind)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected) > 0.05 * np.abs(expected).max(), "a flat map proves nothing"


@pytest.mark.parametrize("way", ["explicit", "einsum", "masked"])
@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_attention_that_is_written_out_gives_the_map_of_fused_attention(kind: str, way: str) -> None:
    module = vit("fused")
    other = vit(way)
    other.load_state_dict(module.state_dict())
    np.testing.assert_allclose(ask(network_of(other), kind), ask(network_of(module), kind), atol=1e-5)


@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_torchvisions_transformer_gives_the_map_of_the_same_one_written_as_in_timm(kind: str) -> None:
    module = vit("explicit")
    theirs = VisionTransformer(SIDE, PATCH, BLOCKS, HEADS, WIDTH, 32, num_classes=4).eval().requires_grad_(False)
    renamed: dict[str, Any] = {
        "class_token": module.special, "encoder.pos_embedding": module.places,
        "conv_proj.weight": module.patches.weight, "conv_proj.bias": module.patches.bias,
        "encoder.ln.weight": module.norm.weight, "encoder.ln.bias": module.norm.bias,
        "heads.head.weight": module.head.weight, "heads.head.bias": module.head.bias,
    }  # fmt: skip
    for number, block in enumerate(module.blocks):
        into = f"encoder.layers.encoder_layer_{number}"
        for part in ("weight", "bias"):
            renamed |= {
                f"{into}.ln_1.{part}": getattr(block.norm1, part), f"{into}.ln_2.{part}": getattr(block.norm2, part),
                f"{into}.self_attention.in_proj_{part}": getattr(block.qkv, part),
                f"{into}.self_attention.out_proj.{part}": getattr(block.proj, part),
                f"{into}.mlp.0.{part}": getattr(block.mlp[0], part), f"{into}.mlp.3.{part}": getattr(block.mlp[2], part),
            }  # fmt: skip
    theirs.load_state_dict(renamed)
    np.testing.assert_allclose(ask(network_of(theirs), kind), ask(network_of(module), kind), atol=1e-5)


def test_the_classes_share_a_rollout_and_differ_in_legrad() -> None:
    network = network_of(vit("fused"))
    units = [vizapp.class_unit(network, number) for number in (0, 3)]
    same, other = ([ask(network, kind, unit) for unit in units] for kind in ("rollout", "legrad"))
    np.testing.assert_array_equal(*same)
    assert np.abs(other[0] - other[1]).max() > 0.1


def test_a_token_in_the_middle_is_explained_by_the_blocks_below_it() -> None:
    network = network_of(vit("fused"))
    site = next(site for site in network.sites if site.name == "blocks.1.add_1")
    found = vizapp.ask("attribution", network, PICTURE, unit=vizapp.Unit(site.name, 3, (1, 2)), kind="rollout")
    assert found.facts["note"].startswith("2 blocks with 2 heads, 4 x 4 patches")
    cells = found.arrays["attribution"].reshape(4, 8, 4, 8).mean((1, 3))
    assert cells.argmax() == 1 * 4 + 2, "half of the information stays where it is"


class Moved(nn.Module):
    """A ViT whose tokens are put into another order before a block, as the order matters to none of its parts."""

    def __init__(self, module: Plain, order: list[int], block: int = 0) -> None:
        super().__init__()
        self.module, self.order, self.block = module, order, block

    def forward(self, x: Tensor) -> Tensor:
        given = self.module
        x = given.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([given.special.expand(len(x), -1, -1), x], 1) + given.places
        for number, block in enumerate(given.blocks):
            x = block(x[:, self.order] if number == self.block else x)
        special = [self.order.index(number) for number in range(given.special.shape[1])]
        return given.head(given.norm(x)[:, special].mean(1))


@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_special_tokens_around_the_patches_give_the_map_of_those_before_them(kind: str) -> None:
    module = vit("fused", 2, 48)
    around = Moved(module, [1, *range(2, 26), 0])
    expected = ask(network_of(module, 48), kind)
    np.testing.assert_allclose(ask(network_of(around, 48), kind), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_tokens_in_another_order_are_refused_in_a_sentence(kind: str) -> None:
    module = vit("fused", 2, 48)
    with pytest.raises(VizError, match="whose places in the photo are not known"):
        ask(network_of(Moved(module, [0, 1, 3, 2, *range(4, 26)]), 48), kind)
    with pytest.raises(VizError, match="has them in another order at 'module"):
        ask(network_of(Moved(module, [0, 1, 3, 2, *range(4, 26)], 2), 48), kind)


class Windows(nn.Module):
    """Attention inside windows of the map, as Swin's."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.qkv, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (
            self.patches(x)
            .unflatten(2, (2, 4))
            .unflatten(4, (2, 4))
            .permute(0, 2, 4, 3, 5, 1)
            .flatten(0, 2)
            .flatten(1, 2)
        )
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0].mean((0, 1))[None])


@pytest.mark.parametrize("kind", ["rollout", "legrad"])
def test_a_network_without_attention_or_with_windows_is_refused_in_a_sentence(kind: str) -> None:
    plain = network_of(
        seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    )
    with pytest.raises(VizError, match="has no attention below '4'; choose another kind, such as gradcam"):
        ask(plain, kind)
    with pytest.raises(VizError, match=r"has windows or other tokens at .* \(4 x 1 x 16 x 16\)"):
        ask(network_of(seeded(Windows())), kind)
