"""The list of networks, their cards, and error messages for wrong names."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import vizapp
from tests.errors import refuses
from vizapp.media.samples import open_sample
from vizapp.zoo import Card, describe, torchvision_zoo, wrapping
from vizapp.zoo.devices import choose_device
from vizapp.zoo.network import Network
from vizapp.zoo.preprocessing import Preprocessing
from vizapp.zoo.registry import find_recipe

CPU = torch.device("cpu")


def test_lists_all_photo_networks_of_torchvision_and_our_own_in_natural_order() -> None:
    names = vizapp.list_networks()
    assert {"torchvision/resnet50", "torchvision/fcn_resnet50", "vizapp/zfnet", "vizapp/lenet5-digits"} <= set(names)
    assert not any("quantized" in name or "raft" in name or "swin3d" in name for name in names)
    places = [names.index(f"torchvision/{name}") for name in ("resnet18", "resnet34", "resnet50", "resnet101")]
    assert places == sorted(places)
    assert len(names) == len(set(names))


def test_every_torchvision_network_can_be_described_without_building_it() -> None:
    for name in torchvision_zoo.names():
        card = describe(f"torchvision/{name}")
        assert card.published, name
        assert card.parameters, name
        assert card.size_mb, name
        assert card.input_size[0] == 3, name
        assert card.input_size[1] == card.input_size[2], name


def test_the_card_of_resnet50_is_that_of_its_newest_weights() -> None:
    card = describe("resnet50")
    assert card == Card("torchvision/resnet50", 25_557_032, 80.858, 102.5, (3, 224, 224), True)


def test_input_sizes_follow_the_published_weights() -> None:
    sizes = {
        name: describe(name).input_size[1] for name in ("vit_h_14", "efficientnet_b7", "inception_v3", "swin_v2_t")
    }
    assert sizes == {"vit_h_14": 518, "efficientnet_b7": 600, "inception_v3": 299, "swin_v2_t": 256}


@pytest.mark.parametrize(
    ("name", "code", "names"),
    [
        ("resnet5O", "no-such-network", "Did you mean resnet50"),
        ("torchvision/resnet5O", "no-such-network", "Did you mean torchvision/resnet50"),
        ("nowhere/resnet50", "no-such-network", "nowhere/resnet50"),
        ("quantized_resnet50", "unsupported-network", "8-bit"),
        ("torchvision/r3d_18", "unsupported-network", "video"),
        ("raft_small", "unsupported-network", "optical flow"),
        ("", "no-such-network", ""),
    ],
)
def test_a_network_that_cannot_be_had_is_answered_with_a_sentence(name: str, code: str, names: str) -> None:
    with refuses(code, names):
        vizapp.load(name, weights="none")


def test_a_network_without_published_weights_says_so() -> None:
    assert not describe("vizapp/zfnet").published
    with refuses("no-published-weights", 'weights="none"'):
        vizapp.load("zfnet")


def test_unknown_published_weights_are_answered_with_those_there_are() -> None:
    with refuses("no-such-weights", "IMAGENET1K_V1, IMAGENET1K_V2"):
        vizapp.load("resnet50", weights="IMAGENET1K_V3")
    with refuses("no-such-weights", '"default"'):
        vizapp.load("lenet5-digits", weights="IMAGENET1K_V3")


def test_weights_without_classes_are_refused() -> None:
    with refuses("no-class-scores", "IMAGENET1K_FEATURES"):
        vizapp.load("vgg16", weights="IMAGENET1K_FEATURES")


def assert_prepared_alike(shape: Preprocessing, theirs: Callable[[Image.Image], torch.Tensor]) -> None:
    """On an oblong photo, to the last bit but for the order of the normalization's operations."""
    rough = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    photo = Image.fromarray(rough).resize((217, 150), Image.Resampling.BICUBIC)
    ours = shape.normalize([shape.seen(np.asarray(photo))], torch.device("cpu"), torch.float32)[0]
    torch.testing.assert_close(ours, theirs(photo), rtol=0, atol=1e-6)


def test_torchvision_preprocessing_is_torchvisions_own_for_each_kind_of_weights() -> None:
    kinds: dict[str, tuple[Preprocessing, Any]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            if weights.meta["categories"]:
                shape = find_recipe(f"torchvision/{name}", weights.name).preprocessing
                kinds.setdefault(repr(weights.transforms()), (shape, weights.transforms()))
    assert len(kinds) > 20
    for shape, theirs in kinds.values():
        assert_prepared_alike(shape, theirs)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/googlenet", "vizapp/resnet20-cifar"])
def test_random_weights_are_the_same_each_time_and_leave_torchs_generator_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    one, two = (vizapp.load(name, weights="none", device="cpu") for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.digest == two.digest
    scores = one.scores(torch.rand(1, *one.input_size, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(scores).all()
    assert scores.std() > 0
    assert "random" in one.facts["weights"]


def test_a_loaded_network_is_frozen_on_its_device() -> None:
    network = vizapp.load("vizapp/lenet5-digits", weights="none", device="cpu")
    assert not any(part.training for part in network.module.modules())
    assert not any(parameter.requires_grad for parameter in network.module.parameters())
    assert (network.device, network.weights, network.parameters) == (CPU, "none", 44_426)


def test_classes_can_be_fewer_and_named() -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu", classes=["cat", "dog"])
    assert network.categories == ("cat", "dog")
    assert network.scores(torch.zeros(2, 3, 64, 64)).shape == (2, 2)
    assert vizapp.load("squeezenet1_1", weights="none", device="cpu", classes=3).categories[2] == "class 2"


@pytest.mark.parametrize("classes", [0, [], [1, 2], 2.5, True, "no/such/file.txt"])
def test_classes_that_are_none_are_answered_with_a_sentence(classes: object) -> None:
    with pytest.raises(vizapp.VizError):
        vizapp.load("squeezenet1_1", weights="none", classes=classes)  # type: ignore[arg-type]


def test_detection_and_segmentation_networks_load_and_say_that_they_give_no_class_scores() -> None:
    for name in ("lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"):
        network = vizapp.load(name, weights="none", device="cpu")
        with refuses("no-class-scores"):
            network.scores(torch.zeros(1, *network.input_size))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_gpu_that_is_not_there_is_answered_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with refuses("no-such-device"):
        vizapp.load("lenet5-digits", weights="none", device="cuda:0")
    assert choose_device("auto") == choose_device("cpu:0") == CPU
    with refuses("no-such-device"):
        choose_device("cpu:9")
    monkeypatch.setenv("VIZAPP_DEVICE", "cuda")
    with refuses("no-such-device"):
        choose_device("auto")


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_a_gpu_without_double_precision_is_refused_with_those_that_work(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with refuses("device-unsupported", '"cpu"', '"cuda:0"'):
        choose_device(device)
    weights = SimpleNamespace(device=torch.device(device))
    module = SimpleNamespace(parameters=lambda: [weights], buffers=list)  # as it is where there is such a GPU
    with refuses("device-unsupported", "mps"):
        wrapping._module_device(module)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "meta"])
def test_a_device_that_is_none_is_answered_with_a_sentence(device: str) -> None:
    with pytest.raises(vizapp.VizError):
        choose_device(device)


@pytest.mark.parametrize(
    ("asked", "channel"), [(281, 281), ("281", 281), ("tabby", 281), ("Tabby", 281), ("goldfish", 1)]
)
def test_a_class_is_a_unit_of_the_last_site(asked: int | str, channel: int) -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    unit = vizapp.class_unit(network, asked)
    assert (unit.site, unit.channel, unit.cell) == (network.sites[-1].name, channel, None)


def test_large_letters_tell_classes_apart_where_only_they_do() -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    assert vizapp.class_unit(network, "Cardigan").channel == 264  # a dog
    assert vizapp.class_unit(network, "cardigan").channel == 474  # a garment


@pytest.mark.parametrize(
    ("asked", "says"),
    [(1000, "0 to 999"), (-1, "0 to 999"), ("goldfsh", "Did you mean goldfish")],
)
def test_a_class_that_cannot_be_had_is_answered_with_a_sentence(asked: int | str, says: str) -> None:
    network = vizapp.load("squeezenet1_1", weights="none", device="cpu")
    with refuses("no-such-class", says):
        vizapp.class_unit(network, asked)


def test_a_name_that_two_classes_have_is_answered_with_their_numbers() -> None:
    network = vizapp.load("lenet5-digits", weights="none", device="cpu", classes=["crane", "dog", "crane"])
    with refuses("ambiguous-class", "0 and 2"):
        vizapp.class_unit(network, "crane")


def test_a_network_without_class_scores_has_no_class_units() -> None:
    network = vizapp.wrap(nn.Conv2d(3, 4, 3), input_size=(3, 8, 8), categories=["a", "b", "c", "d"])
    with refuses("no-class-units"):
        vizapp.class_unit(network, "a")


timm = pytest.importorskip("timm")


def test_timm_networks_are_listed_described_and_built() -> None:
    assert "timm/resnet18" in vizapp.list_networks()
    assert describe("timm/resnet18").input_size == (3, 224, 224)
    network = vizapp.load("timm/mobilenetv3_small_050", weights="none", device="cpu")
    assert network.scores(torch.zeros(1, *network.input_size)).shape == (1, 1000)
    assert network.categories[1] == "goldfish"


def test_timm_preprocessing_is_timms_own_transform() -> None:
    """For a tag of each kind of crop, share of the crop, interpolation and normalization."""
    kinds: dict[object, tuple[str, dict[str, Any]]] = {}
    for tag in timm.list_pretrained():
        config = timm.models.get_pretrained_cfg(tag).to_dict()
        sizes = (config["crop_mode"], config["crop_pct"] != 1, config["interpolation"])
        if config["crop_mode"] != "border":  # a fact tells that these are cropped here
            kinds.setdefault((*sizes, tuple(config["mean"]), tuple(config["std"])), (tag, config))
    assert {(kind[0], kind[1]) for kind in kinds} >= {("squash", True), ("squash", False), ("center", True)}
    for tag, config in kinds.values():
        data = timm.data.resolve_data_config(pretrained_cfg=config)
        theirs = timm.data.create_transform(**data, is_training=False)
        assert_prepared_alike(find_recipe(f"timm/{tag}").preprocessing, theirs)


def test_a_network_without_classes_says_so() -> None:
    whole = vizapp.load("timm/mobilenetv3_small_050", weights="none", device="cpu")
    whole.module.reset_classifier(0)  # as timm's backbones are
    features = Network("backbone", whole.module, whole.device, whole.preprocessing, (), "none")
    with refuses("no-class-scores", "backbone"):
        features.scores(features.prepare(open_sample("chelsea")))
    with refuses("no-class-scores", "backbone"):
        vizapp.class_unit(features, 3)


def test_kernels_of_three_dimensions_are_no_hindrance() -> None:
    network = vizapp.load("timm/lambda_resnet26t", weights="none", device="cpu")
    assert any(parameter.ndim == 5 for parameter in network.module.parameters())
    assert len(vizapp.ask("predict", network, open_sample("chelsea")).table) == 5


def test_a_timm_tag_names_other_weights() -> None:
    assert describe("timm/resnet50.a2_in1k").published
    with refuses("no-such-weights", "resnet50.a1_in1k"):
        describe("timm/resnet50.nothing")
