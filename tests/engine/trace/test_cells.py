"""Layouts are read off the pass. The oracle: a change in one patch of the picture changes the cell of that patch alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.networks import seeded
from vizapp.engine.trace.observe import observe, observe_with_tokens
from vizapp.engine.trace.sites import Site, as_laid_out, channels_first, survey
from vizapp.errors import VizError

SIZE, PATCH = (24, 40), 8  # 3 x 5 patches


class Tokens(nn.Module):
    """Patches as tokens among special tokens, made in one of the usual ways; a function of each token at the end."""

    def __init__(self, embed: str, before: int = 0, after: int = 0, width: int = 6) -> None:
        super().__init__()
        self.embed, self.before, self.after, self.width = embed, before, after, width
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.project = nn.Linear(3 * PATCH**2, width)
        self.special = nn.Parameter(torch.zeros(1, before + after, width))
        self.position = nn.Parameter(torch.zeros(1, before + after + 15, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.embed == "linear":  # (h p) (w q) -> h w (p q c)
            x = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH)).permute(0, 2, 4, 3, 5, 1)
            x = self.project(x.reshape(1, 15, -1))
        elif self.embed == "unfold":
            x = self.patches(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.width)
        else:
            x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.special[:, : self.before], x, self.special[:, self.before :]], 1) + self.position
        return self.head(self.norm(torch.tanh(x)).mean(1))


class Function(nn.Module):
    """Patch embedding `[1 6 3 5]` and then the function under test."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.patches, self.then = nn.Conv2d(3, 6, PATCH, PATCH), then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.patches(x))


def site_named(module: nn.Module, name: str, size: tuple[int, int] = SIZE) -> Site:
    sites = survey(module, torch.zeros(1, 3, *size))
    return next(site for site in reversed(sites) if site.name == name)


def changed_cells(module: nn.Module, site: Site) -> dict[tuple[int, int], set[tuple[int, int]]]:
    """For each patch of the picture the cells of the site's map that change with it."""
    picture = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    before, found = observe(module, picture, [site])[site.name], {}
    for row in range(SIZE[0] // PATCH):
        for column in range(SIZE[1] // PATCH):
            other = picture.clone()
            other[:, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] += 1
            differs = (observe(module, other, [site])[site.name] != before)[0].any(0)
            found[row, column] = {(int(a), int(b)) for a, b in torch.nonzero(differs)}
    return found


OWN = {(row, column): {(row, column)} for row in range(3) for column in range(5)}


@pytest.mark.parametrize("embed", ["linear", "unfold", "convolution"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 0), (1, 4), (5, 0), (0, 1)])
def test_tokens_lie_on_the_grid_of_patches_without_special_tokens(embed: str, before: int, after: int) -> None:
    module = seeded(Tokens(embed, before, after))
    for name in ("tanh", "norm"):
        site = site_named(module, name)
        assert (site.layout, site.shape, site.located) == ("tokens", (6, 3, 5), True)
        assert (site.prefix_tokens, site.suffix_tokens) == (before, after)
        assert changed_cells(module, site) == OWN


class Named(nn.Module):
    """Class, distillation and register tokens around the patches, under the names that networks give them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.patches, self.fc = way, nn.Conv2d(3, 6, PATCH, PATCH), nn.Linear(6, 6)
        self.cls_token, self.dist_token = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 1, 6))
        self.register_tokens, self.pos_embed = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(1, 19, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        cls, dist = self.cls_token.expand(len(x), -1, -1), self.dist_token.expand(len(x), -1, -1)
        registers = self.register_tokens.unsqueeze(0).expand(len(x), -1, -1)
        if self.way == "ends":
            return torch.tanh(torch.cat([cls, dist, x, registers], 1) + self.pos_embed)
        if self.way == "places first":
            cls = cls + self.pos_embed[:, :1]
            return torch.tanh(torch.cat([registers, dist, cls, x + self.pos_embed[:, 1:16]], 1))
        x = torch.cat([cls, x], 1)
        if self.way == "taken apart":  # as class attention does
            own, x = self.fc(x[:, :1]), x[:, 1:]
            return torch.tanh(torch.cat((torch.cat([own, dist, registers], 1), x), 1))
        if self.way == "rotated":  # as rotary embeddings do: the patches alone
            x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
            turned = torch.stack([-x[:, 3:, 1::2], x[:, 3:, ::2]], -1).reshape(1, 15, 6)
            return torch.tanh(torch.cat([x[:, :3], x[:, 3:] + turned], 1))
        buffer = x.new_empty(1, 17, 6)
        buffer[:, 1:], buffer[:, :1] = x, dist
        return torch.tanh(buffer)


@pytest.mark.parametrize(
    ("way", "before", "after"),
    [
        ("ends", ["class", "distillation"], ["register_tokens 1", "register_tokens 2"]),
        ("places first", ["register_tokens 1", "register_tokens 2", "distillation", "class"], []),
        ("taken apart", ["class", "distillation", "register_tokens 1", "register_tokens 2"], []),
        ("rotated", ["class", "register_tokens 1", "register_tokens 2"], []),
        ("written", ["distillation", "class"], []),
    ],
)
def test_special_tokens_have_the_names_of_their_parameters(way: str, before: list[str], after: list[str]) -> None:
    torch.manual_seed(0)
    module = Named(way).eval()
    site = site_named(module, "tanh")
    assert (site.prefix_tokens, site.suffix_tokens) == (len(before), len(after))
    assert site.special == tuple(name.replace("register_tokens", "register") for name in before + after)
    assert changed_cells(module, site) == OWN
    picture = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    kept = observe_with_tokens(module, picture, site)[1][0]
    for name, values in zip(before + after, kept.T, strict=True):
        assert_is_of_parameter(module, way, name, values)


def assert_is_of_parameter(module: Named, way: str, name: str, values: Tensor) -> None:
    """Compare a token with its parameter, plus its place, or through the layer that the network puts it through."""
    own = {"class": module.cls_token[0, 0], "distillation": module.dist_token[0, 0]}.get(name)
    own = module.register_tokens[int(name[-1]) - 1] if own is None else own
    if way == "ends":
        own = (
            own
            + module.pos_embed[
                0, {"class": 0, "distillation": 1}.get(name, 16 + int(name[-1]) if name[-1].isdigit() else 0)
            ]
        )
    elif name == "class" and way == "places first":
        own = own + module.pos_embed[0, 0]
    elif name == "class" and way == "taken apart":
        own = module.fc(own)
    torch.testing.assert_close(values, torch.tanh(own).detach())


def windows(x: Tensor, shift: int = 0) -> Tensor:
    """A function of each cell, in windows of 3 x 5 (one) or 1 x 5 (three), as Swin computes it."""
    x = x.permute(0, 2, 3, 1).roll(shift, 2)
    parts = x.view(1, 3, 1, 1, 5, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 1, 5, 6)
    whole = torch.tanh(parts).view(1, 3, 1, 1, 5, 6).permute(0, 1, 3, 2, 4, 5).reshape(1, 3, 5, 6)
    return torch.sigmoid(whole.roll(-shift, 2))


def attention(x: Tensor) -> Tensor:
    """A function of each token through an attention of two heads in which each token attends to itself."""
    x = x.flatten(2).transpose(1, 2).reshape(1, 15, 2, 3).transpose(1, 2)  # [1 heads T d]
    weights = torch.softmax(x @ x.transpose(-2, -1), -1) * 0 + torch.eye(15)
    return torch.sigmoid((weights @ x).transpose(1, 2).reshape(1, 15, 6))


def attention_to_all(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return torch.sigmoid(F.scaled_dot_product_attention(tokens, tokens, tokens))


@pytest.mark.parametrize(
    ("then", "layout"),
    [
        (lambda x: torch.sigmoid(x.flatten(2)), "tokens-last"),
        (lambda x: torch.sigmoid(x.flatten(2).transpose(1, 2).mT), "tokens-last"),
        (lambda x: torch.sigmoid(x.movedim(1, -1)), "hwc"),
        (lambda x: torch.sigmoid(x.permute(0, 2, 3, 1).contiguous()), "hwc"),
        (lambda x: F.unfold(x, 3, padding=1)[:, 4::9].sin().sigmoid(), "tokens-last"),
        (windows, "hwc"),
        (lambda x: windows(x, 2), "hwc"),
        (attention, "tokens"),
        (attention_to_all, "tokens"),
        (lambda x: torch.sigmoid(torch.stack(x.chunk(3, 1), 2).flatten(1, 2)), "chw"),
        (lambda x: torch.sigmoid(torch.cat([x, x.new_ones(1, 2, 3, 5)], 1)), "chw"),
        (lambda x: torch.sigmoid(torch.cat([x[:, :0], x], 1)), "chw"),
        (lambda x: torch.sigmoid(torch.cat([x[:, :, :0] * 2, x], 2)), "chw"),
        (lambda x: torch.sigmoid(F.pad(x, (0, 2, 0, 4)) * 2)[:, :, :3, :5].sigmoid(), "chw"),
        (lambda x: F.pad(x.movedim(1, 3).sin(), (0, 0, 1, 2, 0, 1))[:, :3, 1:6].sigmoid(), "hwc"),
        (lambda x: torch.sigmoid(x + (x[:, :0].flatten(2).mT @ x[:, :0].flatten(2)).mean()), "chw"),
        (lambda x: torch.sigmoid(torch.zeros(1, 6, 3, 5).index_add(1, torch.arange(6), x)), "chw"),
    ],
)
def test_regrouped_cells_are_followed(then: Callable[[Tensor], Tensor], layout: str) -> None:
    module = seeded(Function(then))
    site = [site for site in survey(module, torch.zeros(1, 3, *SIZE)) if site.operation == "sigmoid"][-1]
    assert (site.layout, site.shape[1:], site.located) == (layout, (3, 5), True)
    found = changed_cells(module, site)
    if then is attention_to_all:
        assert all(cells == set(OWN) for cells in found.values())
    else:
        assert found == OWN


@pytest.mark.parametrize(
    "then",
    [
        lambda x: torch.sigmoid(x.flip(3)),
        lambda x: torch.sigmoid(x.roll(1, 2)),
        lambda x: F.conv2d(torch.sigmoid(x.flip(2)), torch.ones(2, 6, 1, 1)),
        lambda x: torch.sigmoid(x.flatten(2)[:, :, torch.arange(14, -1, -1)]),
        lambda x: torch.sigmoid(x.flatten(2)[:, :, 1:]),
        lambda x: torch.sigmoid(F.pad(x, (0, 3, 0, 0))),
        lambda x: torch.sigmoid(F.pad(x.movedim(1, 3), (0, 0, 0, 0, 4, 0))),
        lambda x: F.conv2d(F.pad(x, (0, 3, 0, 0)), torch.ones(2, 6, 1, 1)),
        lambda x: torch.sigmoid(F.pad(x, (0, 2, 0, 4)).permute(0, 2, 3, 1).reshape(1, 49, 6)),
        lambda x: torch.sigmoid((x * x.mean((2, 3), keepdim=True)).view(1, 2, 3, 15)),  # heads x channels x tokens
        lambda x: torch.sigmoid(x.flatten(2).mT[:, x[0, 0].flatten().argsort()]),
    ],
)
def test_displaced_cells_are_not_said_to_lie_in_the_picture(then: Callable[[Tensor], Tensor]) -> None:
    assert not survey(seeded(Function(then)), torch.zeros(1, 3, *SIZE))[-1].located


@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (1, 0, 0, 1), (2, 1, 1, 2)])
def test_padding_on_both_sides_leaves_the_cells_in_place(padding: tuple[int, ...]) -> None:
    module = seeded(Function(lambda x: torch.sigmoid(F.pad(x, padding))))
    assert survey(module, torch.zeros(1, 3, *SIZE))[-1].located


def test_a_pixel_of_padding_more_on_one_side_matters_less_the_larger_the_cells() -> None:
    for stride, located in ((1, False), (8, True)):
        module = nn.Sequential(nn.ZeroPad2d((0, 6, 0, 0)), seeded(nn.Conv2d(3, 4, 3, stride)))
        assert survey(module, torch.zeros(1, 3, 24, 34))[-1].located == located


def test_attention_matrices_are_not_located() -> None:
    module = seeded(Function(attention))
    assert not site_named(module, "softmax").located
    assert site_named(module, "sigmoid").located


def test_maps_with_as_many_channels_as_rows_and_columns_are_told_apart() -> None:
    module = seeded(Function(lambda x: torch.sigmoid(x.permute(0, 2, 3, 1))))
    site = site_named(module, "sigmoid", (48, 48))  # [1 6 6 6]
    assert (site.layout, site.shape) == ("hwc", (6, 6, 6))


def test_maps_are_laid_out_as_the_operation_has_them() -> None:
    for then in (lambda x: x.sin(), lambda x: x.movedim(1, 3).sin(), lambda x: x.flatten(2).sin()):
        module = seeded(Function(then))
        site = site_named(module, "sin")
        maps = torch.randn(2, 6, 3, 5)
        torch.testing.assert_close(channels_first(as_laid_out(maps, site), site), maps)
    site = site_named(seeded(Tokens("convolution", 2, 1)), "tanh")
    laid = as_laid_out(maps, site)
    assert laid.shape == (2, 18, 6)
    assert not laid[:, [0, 1, 17]].any()
    torch.testing.assert_close(channels_first(laid, site), maps)


def test_another_number_of_tokens_is_refused() -> None:
    module = seeded(Function(lambda x: x.flatten(2).sin()))
    with pytest.raises(VizError) as error:
        observe(module, torch.zeros(1, 3, 32, 40), [site_named(module, "sin")])
    assert error.value.code == "other-tokens"
