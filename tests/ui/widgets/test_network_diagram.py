"""A network of any size is drawn as a row of at most 40 boxes."""

from __future__ import annotations

import pytest

from vizapp import load
from vizapp.engine.trace.sites import Site
from vizapp.ui.widgets.network_diagram import MOST_BLOCKS, blocks, drawing, shown_kind

NETWORKS = [
    "vizapp/lenet5-digits", "torchvision/squeezenet1_0", pytest.param("torchvision/vgg19", marks=pytest.mark.slow),
    pytest.param("torchvision/resnet152", marks=pytest.mark.slow), "torchvision/densenet121", "torchvision/mobilenet_v2",
    "torchvision/swin_t",
]  # fmt: skip


def site(name: str, kind: str = "convolution", shape: tuple[int, ...] = (8, 4, 4)) -> Site:
    return Site(name, kind, shape, "chw", "conv2d")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_site_is_in_one_block_in_running_order(name: str) -> None:
    sites = load(name, weights="none").sites
    found = blocks(sites)
    assert [s for block in found for s in block.sites] == list(sites)
    assert 5 <= len(found) <= MOST_BLOCKS
    assert max(len(block.sites) for block in found) <= 30  # a second row that can be read
    assert len({block.name for block in found}) == len(found)


def test_a_small_network_has_a_box_per_site() -> None:
    sites = [site(f"features.{i}") for i in range(MOST_BLOCKS)]
    assert [block.sites for block in blocks(sites)] == [(s,) for s in sites]


def test_a_layer_of_no_known_kind_is_told_by_its_name_and_shape_alone() -> None:
    found = drawing([site("features"), site("target", "other", (5,))], None)["blocks"]
    assert [part["what"] for block in found for part in block["parts"]] == ["convolution", ""]


def test_what_enlarges_maps_is_no_pooling() -> None:
    found = {site.name: (site.kind, shown_kind(site)) for site in load("vizapp/shapes-segmenter").sites}
    assert found["interpolate"] == ("resize", "other")


def test_rectifiers_and_normalisations_join_the_layer_before_them() -> None:
    sites = [
        site(f"f.{i}.{n}", k) for i in range(20) for n, k in (("c", "convolution"), ("b", "norm"), ("r", "activation"))
    ]
    found = blocks(sites)
    assert len(found) == 20
    assert {block.kind for block in found} == {"convolution"}


def test_neighbouring_modules_of_one_parent_become_a_run() -> None:
    sites = [site(f"layer{n}.{i}.conv{j}") for n in (1, 2) for i in range(30) for j in range(3)]
    names = [block.name for block in blocks(sites)]
    assert names[0] == "layer1.0–1"
    assert names[-1] == "layer2.28–29"


def test_thousands_of_sites_without_structure_are_still_a_row() -> None:
    assert len(blocks([site(f"op_{i}") for i in range(5000)])) <= MOST_BLOCKS


def test_boxes_are_higher_for_larger_maps_and_wider_for_more_channels() -> None:
    small, large, wide, vector = (
        box for box in drawing([site("a", shape=(8, 4, 4)), site("b", shape=(8, 16, 16)), site("c", shape=(64, 4, 4)),
                                site("d", "linear", (10,))], "b")["blocks"]
    )  # fmt: skip
    assert large["height"] == 1.0
    assert small["height"] == wide["height"] == 0.5
    assert wide["width"] > small["width"]
    assert 0 < vector["height"] <= 1.0


def test_labels_leave_out_what_the_parts_share() -> None:
    sites = [site(f"layer1.{i}.{name}") for i in range(45) for name in ("conv1", "conv2")]
    first = drawing(sites, None)["blocks"][0]
    assert [part["label"] for part in first["parts"]] == ["0.conv1", "0.conv2", "1.conv1", "1.conv2"]
    assert first["label"] == "0–1"
