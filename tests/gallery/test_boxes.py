"""Boxes, patches and projections of top pictures of linear networks, against their responses to single pixels."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vizapp
from tests.media.files import noise, saved
from tests.networks import seeded
from vizapp.gallery import GalleryOptions, build, open_gallery
from vizapp.gallery.reader import top_image
from vizapp.methods.base import Job
from vizapp.methods.projection import ProjectionParams
from vizapp.methods.top_projections import top_projections

SIZE = (3, 13, 17)


class Resize(nn.Module):
    """Twice as large, bilinearly."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


class RowMean(nn.Module):
    """Adds the mean of the row."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(3, keepdim=True)


class Sum(nn.Module):
    """Two branches of different reach."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, (5, 3), padding=(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.near(x) + self.far(x)


LINEAR: dict[str, list[nn.Module]] = {
    "no padding": [nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, (3, 2), stride=2)],
    "padding": [nn.Conv2d(3, 2, 5, padding=2), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, padding=1)],
    "padding alone": [nn.Conv2d(3, 2, 1, padding=2)],
    "dilation": [nn.Conv2d(3, 2, (2, 3), dilation=(3, 2), padding=(1, 2), stride=(2, 1))],
    "groups": [nn.Conv2d(3, 3, 3, stride=3, groups=3, padding=1), nn.ZeroPad2d((2, 0, 1, 0)), nn.Conv2d(3, 2, 2)],
    "adaptive": [nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d((4, 5)), nn.Conv2d(2, 2, 2)],
    "resized": [nn.Conv2d(3, 2, 3, padding=1), Resize()],
    "rows": [nn.Conv2d(3, 2, 3), RowMean()],
    "branches": [Sum(), nn.AvgPool2d(3, 2)],
    "vector": [nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)],
    "wide": [nn.Conv2d(3, 2, 9, padding=4), nn.Conv2d(2, 2, 9, padding=4)],
}  # fmt: skip


@pytest.mark.parametrize("kind", LINEAR)
def test_boxes_patches_and_projections_are_what_the_pixels_do(tmp_path: Path, kind: str) -> None:
    module = seeded(nn.Sequential(*LINEAR[kind])).requires_grad_(False)
    network = vizapp.wrap(module, SIZE, mean=0.5, std=0.25, resize=SIZE[1])
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(noise(*SIZE[1:], number)))
    source, site = vizapp.open_folder(tmp_path / "in"), network.sites[-1]
    assert tuple(site.shape) == tuple(module(torch.zeros(1, *SIZE)).shape[1:]), "the last layer is a site"
    build(network, source, [site], tmp_path / "out", GalleryOptions(top=5, batch=3, workers=0))
    rows = open_gallery(tmp_path / "out").rows(site.name)
    single = torch.eye(np.prod(SIZE), dtype=torch.float64).view(-1, *SIZE)
    exact = copy.deepcopy(module).double()
    does = exact(single) - exact(single[:1] * 0)
    does = does.reshape(*SIZE, site.channels, -1).permute(3, 4, 1, 2, 0).numpy()  # [channels cells H W 3]
    width = site.shape[2] if site.is_map else 1
    images = top_image(network, source, rows)
    found = top_projections(network, source, rows, ProjectionParams(rule="gradient", seed="one"), Job()).arrays
    sizes = set()
    for number, row in enumerate(rows.itertuples()):
        expected = does[row.channel, row.row * width + row.column]
        np.testing.assert_allclose(found["projection"][number], expected, atol=1e-6)
        assert found["activation"][number] == pytest.approx(row.activation, rel=1e-4, abs=1e-6)
        touched = np.argwhere(np.abs(expected).sum(2) > 1e-12)
        box = (max(row.top, 0), max(row.left, 0), min(row.bottom, SIZE[1]), min(row.right, SIZE[2]))
        if len(touched):
            assert box == (*touched.min(0), *(touched.max(0) + 1))
        else:  # padding alone
            assert box[0] >= box[2] or box[1] >= box[3]
        seen, patch = network.seen(source.open(row.picture)), images[number].patch
        np.testing.assert_array_equal(images[number].seen, seen)
        if row.bottom - row.top > SIZE[1] or row.right - row.left > SIZE[2]:
            np.testing.assert_array_equal(patch, images[number].framed)
            continue
        for y in range(row.top, row.bottom):
            for x in range(row.left, row.right):
                inside = 0 <= y < SIZE[1] and 0 <= x < SIZE[2]
                assert (patch[y - row.top, x - row.left] == (seen[y, x] if inside else 128)).all()
        sizes.add(patch.shape)
    assert len(sizes) <= 1 or kind in ("adaptive", "resized")


class Coordinates(nn.Module):
    """Concatenates the position of each cell, from -1 to 1, and convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        across = torch.linspace(-1, 1, x.shape[3]).expand(len(x), 1, x.shape[2], x.shape[3])
        return self.conv(torch.cat([x, x[:, :1] * across], 1))


class CellBias(nn.Module):
    """Scales each cell of a map by a weight of its own."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 3, (3, 3)), nn.Parameter(torch.rand(1, 3, height, width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale


class BySize(nn.Module):
    """Divides by the width of the map."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.shape[3]


@pytest.mark.parametrize(
    "layers",
    [[Coordinates()], [CellBias(11, 15)], [CellBias(11, 15), nn.Conv2d(3, 2, 2)], [nn.Conv2d(3, 2, 3), BySize()]],
    ids=["coordinates", "bias per cell", "bias per cell, then a convolution", "divided by the width"],
)
def test_networks_that_know_the_position_are_projected_on_the_whole_picture(tmp_path: Path, layers) -> None:
    """Nothing is padded, so that the field alone would do but for the position or the size of the map."""
    network = vizapp.wrap(seeded(nn.Sequential(*layers)), SIZE, mean=0.5, std=0.25, resize=SIZE[1])
    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(noise(*SIZE[1:], number)))
    source, site = vizapp.open_folder(tmp_path / "in"), network.sites[-1]
    build(network, source, [site], tmp_path / "out", GalleryOptions(top=3, workers=0))
    rows = open_gallery(tmp_path / "out").rows(site.name)
    result = top_projections(network, source, rows, ProjectionParams(rule="gradient", seed="one"), Job())
    assert "changed" not in result.facts
    np.testing.assert_allclose(result.arrays["activation"], rows["activation"], rtol=1e-5)
    for number, row in enumerate(rows.itertuples()):
        batch = network.prepare(source.open(row.picture)).repeat(2, 1, 1, 1).requires_grad_()
        network.module(batch)[0, row.channel, row.row, row.column].backward()
        expected = batch.grad[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(result.arrays["projection"][number], expected, atol=1e-6)
