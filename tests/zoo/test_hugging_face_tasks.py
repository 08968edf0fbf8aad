"""Detectors and segmenters of Hugging Face. The oracle is transformers itself: its pixels, its pass, its post-processing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vizapp
from tests.errors import refuses
from vizapp.zoo.hugging_face_tasks import TASKS, task_of
from vizapp.zoo.processor import centre_square

transformers: Any = pytest.importorskip("transformers")
NAMES = {0: "cat", 1: "dog", 2: "owl"}
SIDE = 64
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)  # a square, of which nothing is left out
RESNET = {"embedding_size": 32, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
SMALL = LAYERS | {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 6}
SHORT = {"size": {"shortest_edge": SIDE, "longest_edge": 100}}
FIXED = {"size": {"height": SIDE, "width": SIDE}}


def resnet(**more: Any) -> Any:
    return transformers.ResNetConfig(**RESNET, **more)


def settings(kind: str) -> dict[str, Any]:
    """The configuration of a small network of that kind."""
    stages = ["stage2", "stage3", "stage4"]
    if kind == "Yolos":
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        return small | {"image_size": [SIDE, SIDE], "patch_size": 16, "num_detection_tokens": 6}
    if kind == "Detr":
        return SMALL | {"backbone_config": resnet(out_features=["stage4"]), "use_timm_backbone": False, "d_model": 16}
    if kind == "DeformableDetr":
        own = {"backbone_config": resnet(out_features=stages), "use_timm_backbone": False, "num_feature_levels": 3}
        return SMALL | own | {"d_model": 32}
    if kind == "Segformer":
        small = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
        return small | {"decoder_hidden_size": 16}
    if kind == "MobileViT":
        small = {"image_size": SIDE, "hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16]}
        return small | {"num_attention_heads": 2, "aspp_out_channels": 16}
    decoder = transformers.DetrConfig(d_model=16, **SMALL)
    own = {"backbone_config": resnet(out_features=["stage1", *stages]), "decoder_config": decoder}
    return own | {"fpn_feature_size": 32, "mask_feature_size": 32}


# Ending of the network's class, and the configuration of its processor.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Yolos": ("ForObjectDetection", SHORT),
    "Detr": ("ForObjectDetection", SHORT),
    "DeformableDetr": ("ForObjectDetection", SHORT),
    "Segformer": ("ForSemanticSegmentation", FIXED),
    "MobileViT": ("ForSemanticSegmentation", {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}),
    "MaskFormer": ("ForInstanceSegmentation", SHORT | {"size_divisor": 32}),
}  # fmt: skip
QUICK = ("Yolos", "Segformer", "MaskFormer")


def saved(kind: str, folder: Path) -> Any:
    """A network with random weights, saved to the folder as transformers does."""
    ending, described = KINDS[kind]
    torch.manual_seed(0)
    model = getattr(transformers, kind + ending)(
        getattr(transformers, f"{kind}Config")(**settings(kind), id2label=NAMES)
    ).eval()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_var"):
            value.uniform_(0.1, 0.3)  # small: signals do not fade through many layers
        elif value.ndim > 1 and value.is_floating_point():  # answers that differ from place to place
            torch.nn.init.normal_(value, std=1.2 / value[0].numel() ** 0.5)
    model.save_pretrained(folder)
    getattr(transformers, f"{kind}ImageProcessor")(**described).save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else [pytest.mark.slow]) for k in KINDS])
def test_what_is_found_is_what_transformers_finds(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / kind)
    network = vizapp.load(tmp_path / kind, device="cpu")
    assert (network.name, network.categories) == (kind, tuple(NAMES.values()))
    squares = "longest_edge" in KINDS[kind][1]["size"]
    assert network.facts.get("preprocessing", "").startswith("Of a photo the centre square") == squares
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / kind, backend="pil")
    pixels = processor(Image.fromarray(PHOTO), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(network.prepare(PHOTO), pixels, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        wanted = model(pixels)
    given = vizapp.ask("predict", network, PHOTO).arrays
    if network.task == "boxes":
        (found,) = processor.post_process_object_detection(wanted, threshold=0.0, target_sizes=[(SIDE, SIDE)])
        order = found["scores"].argsort(descending=True)[: len(given["scores"])]
        assert len(order) == 6
        np.testing.assert_allclose(given["scores"], found["scores"][order], atol=1e-5)
        np.testing.assert_allclose(given["boxes"], found["boxes"][order][:, [1, 0, 3, 2]], atol=1e-3)
        np.testing.assert_array_equal(given["labels"], found["labels"][order])
        target = vizapp.Target(box=0)
    else:
        assert network.task == "class map"
        (labels,) = processor.post_process_semantic_segmentation(wanted, target_sizes=[given["label"].shape])
        np.testing.assert_array_equal(given["label"], labels)
        target = vizapp.Target(region="predicted")
    for method, options in (("occlusion", {"window": 32, "stride": 32}), ("projection", {"rule": "gradient"})):
        result = vizapp.ask(method, network, PHOTO, target=target, **options)
        assert any(array.any() for array in result.arrays.values() if array.dtype.kind == "f")
        assert all(np.isfinite(array).all() for array in result.arrays.values() if array.dtype.kind == "f")


def test_a_map_of_masks_by_hand() -> None:
    """Two queries: one is class 0 with 3 of 4 and covers the left cell, the other class 1 with 1 of 2 and covers both."""
    classes = torch.tensor([[[0.75, 0.125, 0.125], [0.25, 0.5, 0.25]]]).log()  # the last is "no object"
    masks = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]]).logit()  # [N queries h w]
    (answer,) = {task.answer for task in TASKS if task.ending == "ForUniversalSegmentation"}
    found = answer(transformers.utils.ModelOutput(class_queries_logits=classes, masks_queries_logits=masks))
    torch.testing.assert_close(found.exp(), torch.tensor([[[[1.0, 0.25]], [[0.625, 0.5]]]]))


def test_the_centre_square_is_taken_where_proportions_are_kept() -> None:
    new = {"size": {"shortest_edge": 800, "longest_edge": 1333}, "do_pad": True}
    old = {"size": 800, "max_size": 1333, "feature_extractor_type": "DetrFeatureExtractor"}
    for described in (new, old, {"image_processor": new}):
        square = centre_square(described)
        assert square is not None
        assert (square["size"], square["crop_size"], square["do_pad"]) == ({"shortest_edge": 800}, 800, False)
    for described in ({"size": {"height": 640, "width": 640}}, {"size": 512}, {"size": {"shortest_edge": 224}}):
        assert centre_square(described) is None


def test_what_answers_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("BertModel", "OneFormerForUniversalSegmentation", "DPTForDepthEstimation"):
        assert task_of(name) is None
    saved("Segformer", tmp_path / "net")
    path = tmp_path / "net" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": ["OneFormerForUniversalSegmentation"]}))
    with refuses("unsupported-network"):
        vizapp.load(tmp_path / "net")
    path.write_text(json.dumps(config | {"model_type": "resnet"}))  # of which there is no segmenter
    with refuses("unsupported-network"):
        vizapp.load(tmp_path / "net")
