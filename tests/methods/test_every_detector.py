"""torchvision's detectors toward a box: each method answers, or says in a sentence why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection

import vizapp
from tests.media.files import noise, saved
from tests.networks import saved_run
from vizapp.engine.detection.boxes import match, target_of
from vizapp.errors import VizError
from vizapp.methods import methods
from vizapp.methods.base import Result
from vizapp.zoo.network import Network
from vizapp.zoo.target import toward

HEIGHT, WIDTH = 80, 96
PIXELS = noise(HEIGHT, WIDTH, seed=3)
CLASSES = ["background", "a", "b", "c", "d"]
LARGE = [
    "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]  # fmt: skip
NAMES = [
    pytest.param("fasterrcnn_mobilenet_v3_large_320_fpn", marks=pytest.mark.slow),
    *(pytest.param(name, marks=pytest.mark.families) for name in LARGE),
]

# What is asked of each method; {} for those that are not listed.
ASKED: dict[str, dict[str, Any]] = {
    "architecture": {"repeats": 0},
    "attribution": {"kind": "gradcam"},
    "colours": {"parts": 2},
    "correspondence": {"parts": [(noise(HEIGHT, WIDTH, seed=n), (9, 9, 60, 60)) for n in range(3)], "draws": 1},
    "evolution": {"units": 1},
    "gallery": {"top": 1, "workers": 0},
    "ideal": {"steps": 1},
    "knockout": {"site": "transform.getitem_2"},  # the photo's channels: each unit takes a pass
    "neighbours": {"k": 1},
    "occlusion": {"window": 48, "stride": 48},
    "probe": {"photos": 3, "splits": 1},
    "transform": {"kind": "shift-x", "amounts": (0, 4)},
    "trust": {"kinds": "random", "measures": "pointing", "box": (4, 4, 9, 9)},
}
# The scores of a box are one vector, of no map, with no class of a photo, and after an interpolation to the network's own size.
REFUSED = {
    "colours": "is a vector without cells",
    "dense": "cannot be made convolutional",
    "evaluate": "Labels are compared with classes",
    "filters": "is not computed by a single convolution",
    "teach": "cannot be taught new classes",
}
MISSING = {
    "table",
    "road",
    "curves",
    "strength",
}  # arrays with NaN where there is nothing to tell, as of too few channels


def built(name: str) -> Network:
    """The network with random weights whose boxes differ in their scores. It returns at most three."""
    torch.manual_seed(0)
    least: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": 3, "topk_candidates": 10}
    if "rcnn" in name:
        least = {"box_score_thresh": 0.0, "box_detections_per_img": 3, "rpn_post_nms_top_n_test": 20}
    if not name.startswith("ssd"):  # which have a size of their own
        least |= {"min_size": HEIGHT, "max_size": WIDTH}
    if name == "fasterrcnn_mobilenet_v3_large_320_fpn":
        least["rpn_score_thresh"] = 0.0
    names = CLASSES[:2] if name.startswith("keypoint") else CLASSES
    module = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=len(names), **least)
    for key, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and key.split(".")[0] in ("head", "rpn", "roi_heads"):
            spread = 0.1 if "bbox" in key or "regression" in key else 1.2  # boxes stay near their anchors
            nn.init.normal_(part.weight, std=spread / part.weight[0].numel() ** 0.5)
    if name.startswith("fcos"):
        nn.init.constant_(module.head.regression_head.bbox_reg.bias, 1.5)  # below 0, all boxes would be empty
    return vizapp.wrap(module, (3, HEIGHT, WIDTH), name=name, resize=HEIGHT, categories=names, mean=0, std=1)


def ask(key: str, network: Network, unit: vizapp.Unit | None, folder: Path, out: Path) -> Result:
    method, options = methods()[key], dict(ASKED.get(key, {}))
    if "folder" in method.needs:
        options["folder"] = folder
    if key == "gallery":
        options["out"] = str(out / "gallery")
    if key == "evolution":
        assert network.untargeted is not None
        options["checkpoints"] = saved_run(network.untargeted.module, out / "run")
    return vizapp.ask(key, network, picture=PIXELS, unit=unit, **options)


def photos(network: Network, folder: Path) -> Path:
    for number in range(8):  # four of each class: probe learns from three
        place = folder / network.categories[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(noise(HEIGHT, WIDTH, seed=number)))
    return folder


def check_arrays(found: Result) -> None:
    """The arrays are finite, and have the dimensions of their kind."""
    assert found.arrays or found.table
    for name, values in found.arrays.items():
        assert name in MISSING or values.dtype.kind != "f" or np.isfinite(values).all(), f"{found.method}: {name}"
    for output in methods()[found.method].shows:
        values = found.arrays.get(output.array)
        if output.is_map and values is not None and values.ndim > 1:
            assert all(output.draw(one).shape[2] == 3 for one in output.items(values)[:3])
    if "projection" in found.arrays:
        assert found.arrays["projection"].shape[-3:] == (HEIGHT, WIDTH, 3)


def part_of(network: Network, prefix: str) -> vizapp.Unit:
    """The strongest unit in the middle of the middle convolution of a part."""
    sites = [site for site in network.sites if site.name.startswith(prefix) and site.is_map and site.located]
    sites = [site for site in sites if isinstance(dict(network.module.named_modules()).get(site.name), nn.Conv2d)]
    site = sites[len(sites) // 2]
    return vizapp.Unit(site.name, 0, (site.shape[1] // 2, site.shape[2] // 2))


def slope(network: Network, unit: vizapp.Unit) -> np.ndarray:
    """The gradient of a unit, `[H W 3]`, by autograd through the network's own pass."""
    kept: list[torch.Tensor] = []
    assert unit.cell is not None
    with network.module.get_submodule(unit.site).register_forward_hook(
        lambda module, given, output: kept.append(output.clone())  # a rectifier may write over it
    ):
        pixels = network.prepare(vizapp.open_picture(PIXELS)).requires_grad_()
        network.module(pixels)
    (found,) = torch.autograd.grad(kept[0][(0, unit.channel, *unit.cell)], pixels)
    return found[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_every_method_answers_toward_a_box_or_says_why_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZAPP_CACHE", str(tmp_path / "cache"))
    network = built(name)
    assert network.task == "boxes"
    folder = photos(network, tmp_path / "photos")
    aimed, unit = toward(network, vizapp.Target(box=0), vizapp.open_picture(PIXELS))  # once, because it takes passes
    refused = {}
    # Questions about folders take long, and are left to the long run.
    keys = [key for key, method in methods().items() if name in LARGE or "folder" not in method.needs]
    for key in keys:
        try:
            found = ask(key, aimed, unit, folder, tmp_path)
        except VizError as error:
            refused[key] = str(error)
            continue
        assert found.facts["target"].startswith("box ")
        check_arrays(found)
    assert set(refused) == set(REFUSED) & {*keys}, refused
    for key, message in refused.items():
        assert REFUSED[key] in message
        assert "\n" not in message


@pytest.mark.parametrize("name", NAMES)
def test_occlusion_and_projections_are_those_of_the_network_itself(name: str) -> None:
    network = built(name)
    picture = vizapp.open_picture(PIXELS)
    result = vizapp.ask("occlusion", network, picture=picture, target=vizapp.Target(box=0), window=48, stride=48)
    own = network.detector
    assert own is not None
    batch = network.prepare(picture)
    target = target_of(own.found(batch)[0], 0, own.proposals(batch)[0])
    places = result.arrays["positions"].reshape(-1, 4).astype(int)
    for index in (0, len(places) - 1):
        top, left, bottom, right = places[index]
        hidden = PIXELS.copy()
        hidden[max(top, 0) : bottom, max(left, 0) : right] = 128
        expected = float(match(own.proposals(network.batch([hidden]))[0], target))
        assert result.arrays["logit"].flat[index] == pytest.approx(expected, abs=1e-4)
    for prefix in ("backbone", "rpn" if "rcnn" in name else "head"):
        unit = part_of(network, prefix)
        expected_slope = slope(network, unit)
        given = vizapp.ask("projection", network, picture=picture, unit=unit, rule="gradient", seed="one").arrays
        largest = np.abs(expected_slope).max()
        assert largest > 0
        assert np.abs(given["projection"] - expected_slope).max() < 1e-4 * largest
        site = network.site(unit.site)
        top, left, bottom, right = network.receptive_field(site, HEIGHT, WIDTH).inside(unit.cell)
        outside = expected_slope.copy()
        outside[top:bottom, left:right] = 0
        assert not outside.any()
