"""Folders and repositories of Hugging Face. The oracle is transformers itself, or timm."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vizapp
from tests.errors import refuses
from tests.zoo.test_checkpoints import Bomb
from vizapp.zoo import hub, registry

transformers: Any = pytest.importorskip("transformers")
NAMES = {0: "cat", 1: "dog", 2: "owl", 3: "fox"}
PHOTO = np.random.default_rng(0).integers(0, 256, (90, 121, 3), dtype=np.uint8)
SQUARE = {"size": {"height": 32, "width": 32}}
SMALL = {"hidden_sizes": [8, 16], "depths": [1, 1]}
# Name of the library's classes, configuration, processor and its configuration.
KINDS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "ResNet": (
        SMALL | {"embedding_size": 8, "layer_type": "basic"},
        "ConvNext",
        {
            "size": {"shortest_edge": 64},
            "crop_pct": 0.875,
            "image_mean": [0.4, 0.5, 0.6],
            "image_std": [0.2, 0.3, 0.25],
        },
    ),
    "ConvNextV2": (
        SMALL | {"num_stages": 2},
        "ConvNext",
        {"size": {"shortest_edge": 48}, "crop_pct": 0.95, "resample": 2},
    ),
    "ViT": (
        {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        | {"image_size": 32, "patch_size": 8},
        "ViT",
        SQUARE,
    ),
    "Swin": (
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
        "ViT",
        SQUARE | {"resample": 3, "rescale_factor": 1 / 127.5},
    ),
    "MobileNetV2": (
        {"image_size": 48, "depth_multiplier": 0.35},
        "MobileNetV2",
        {"size": {"shortest_edge": 57}, "crop_size": {"height": 48, "width": 48}},
    ),
    "RegNet": (
        SMALL | {"embedding_size": 8, "groups_width": 4, "layer_type": "y"},
        "EfficientNet",
        {"size": {"height": 40, "width": 56}, "include_top": True},
    ),
}


def saved(kind: str, folder: Path) -> Any:
    """A network with random weights, saved to the folder as transformers does."""
    settings, processor, described = KINDS[kind]
    configuration = getattr(transformers, f"{kind}Config")(**settings, id2label=NAMES)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForImageClassification")(configuration).eval()
    for name, value in model.named_buffers():  # statistics of batch norms: a fresh one does nothing
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**described).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in ("Swin", "MobileNetV2") else []) for k in KINDS]
)
def test_pixels_logits_and_names_are_those_of_transformers(kind: str, folders: Path) -> None:
    model = saved(kind, folders / kind)
    network = vizapp.load(str(folders / kind), device="cpu")
    processor = transformers.AutoImageProcessor.from_pretrained(folders / kind, backend="pil")
    wanted = processor(Image.fromarray(PHOTO), return_tensors="pt")["pixel_values"]
    pixels = network.prepare(PHOTO)
    torch.testing.assert_close(pixels, wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(network.module(pixels), model(wanted).logits, rtol=1e-5, atol=1e-5)
    assert network.categories == tuple(NAMES.values())
    assert network.name == kind
    assert len(network.sites) > 10
    unit = vizapp.class_unit(network, "owl")
    for method, options in (
        ("projection", {}),
        ("occlusion", {"window": 16, "stride": 16}),
        ("attribution", {"steps": 8}),
    ):
        result = vizapp.ask(method, network, PHOTO, unit=unit, **options)
        assert all(np.isfinite(array).all() for array in result.arrays.values() if array.dtype.kind == "f")
    found = vizapp.ask("predict", network, PHOTO).arrays["probabilities"]
    np.testing.assert_allclose(found, model(wanted).logits.softmax(1)[0].detach().numpy(), atol=1e-5)


def test_random_weights_and_a_checkpoint_of_the_same_architecture(folders: Path) -> None:
    folder = folders / "ResNet"
    if not folder.exists():
        saved("ResNet", folder)
    random = vizapp.load(folder, weights="none", device="cpu", classes=7)
    assert len(random.categories) == 7
    state = {f"module.{key}": value for key, value in random.module.state_dict().items()}
    torch.save(state, folders / "own.pth")
    again = vizapp.load(folder, weights=folders / "own.pth", device="cpu")
    assert again.digest == random.digest
    torch.testing.assert_close(again.module.state_dict(), random.module.state_dict())


def test_the_digest_knows_what_the_weights_do_not_show(tmp_path: Path) -> None:
    digests = []
    for activation in ("relu", "gelu"):
        folder = tmp_path / activation / "net"
        saved("ResNet", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_act": activation}))
        digests.append(vizapp.load(folder, device="cpu").digest)
    assert digests[0] != digests[1]


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(name: str, folder: Path) -> None:
    (folder / name).unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500])


def only_pickle(content: Any, folder: Path) -> None:
    remove("model.safetensors", folder)
    torch.save(content, folder / "pytorch_model.bin")


MALFORMED = {
    "no configuration": (partial(remove, "config.json"), "no-configuration"),
    "no weights": (partial(remove, "model.safetensors"), "no-published-weights"),
    "damaged configuration": (lambda folder: (folder / "config.json").write_text("{"), "bad-configuration"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "bad-configuration"),
    "a text model": (partial(rewrite, architectures=["BertForSequenceClassification"]), "unsupported-network"),
    "features": (partial(rewrite, architectures=["ResNetModel"]), "unsupported-network"),
    "unknown type": (
        partial(rewrite, model_type="secret", auto_map={"AutoConfig": "secret.Config"}),
        "unsupported-network",
    ),
    "a text model in disguise": (partial(rewrite, model_type="bert"), "unsupported-network"),
    "no type": (partial(rewrite, model_type=None), "bad-configuration"),
    "odd class names": (partial(rewrite, id2label={"0": "cat", "7": "dog"}), "bad-configuration"),
    "odd size": (partial(rewrite, image_size="large"), "bad-configuration"),
    "truncated": (cut, "checkpoint-damaged"),
    "other weights": (partial(rewrite, embedding_size=12), "checkpoint-mismatch"),
    "more layers": (partial(rewrite, depths=[1, 3]), "checkpoint-mismatch"),
    "code": (partial(only_pickle, {"a": Bomb(Path("/tmp/vizapp-it-ran"))}), "checkpoint-unsafe"),
    "a processor that pads": (
        lambda folder: (folder / "preprocessor_config.json").write_text('{"do_pad": true}'),
        "unsupported-preprocessing",
    ),
    "a processor that is none": (
        lambda folder: (folder / "preprocessor_config.json").write_text('{"size": "big"}'),
        "unsupported-preprocessing",
    ),
    "a processor whose pixels are others": (
        lambda folder: (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 64}})
        ),
        "unsupported-preprocessing",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_folders_are_refused_in_a_sentence(name: str, folders: Path, tmp_path: Path) -> None:
    damage, code = MALFORMED[name]
    if not (folders / "ResNet").exists():
        saved("ResNet", folders / "ResNet")
    shutil.copytree(folders / "ResNet", tmp_path / "net")
    damage(tmp_path / "net")  # type: ignore[operator]
    with refuses(code):
        vizapp.load(tmp_path / "net", device="cpu")
    assert not Path("/tmp/vizapp-it-ran").exists()


def test_a_state_dict_in_a_pickle_and_weights_in_several_files(folders: Path, tmp_path: Path) -> None:
    model = saved("ResNet", tmp_path / "net")
    only_pickle(model.state_dict(), tmp_path / "net")
    model.save_pretrained(tmp_path / "parts", max_shard_size="5KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").exists()
    for name in ("net", "parts"):
        network = vizapp.load(tmp_path / name, device="cpu")
        torch.testing.assert_close(network.module.state_dict(), model.state_dict())


class Hub(BaseHTTPRequestHandler):
    """Serves folders as the Hugging Face hub does."""

    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        owner, name, _, _, *file = self.path.strip("/").split("/")
        path = self.root / owner / name / "/".join(file)
        missing = "RepoNotFound" if not path.parent.is_dir() else "EntryNotFound" if not path.is_file() else ""
        content = b"" if missing else path.read_bytes()
        self.send_response(404 if missing else 200)
        if missing:
            self.send_header("X-Error-Code", missing)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{len(content)}-{path.name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub at `HF_ENDPOINT` with an empty cache here."""
    import huggingface_hub

    handler = type("Served", (Hub,), {"root": tmp_path / "served", "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{serving.server_port}")
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "hub-cache"), raising=False)
        for function in (huggingface_hub.hf_hub_download, huggingface_hub.try_to_load_from_cache):
            monkeypatch.setattr(
                huggingface_hub, function.__name__, partial(function, cache_dir=str(tmp_path / "hub-cache"))
            )
        yield handler
        serving.shutdown()


def test_a_repository_is_downloaded_once(server: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("ResNet", server.root / "ann" / "tiny")
    recipe = registry.find_recipe("hf:ann/tiny")
    assert recipe.published is not None
    assert not recipe.published.cached()
    assert not any("safetensors" in path for path in server.asked)  # the description alone
    shares: list[float] = []
    network = vizapp.load("hf:ann/tiny", device="cpu", tick=shares.append)
    assert network.name == "hf:ann/tiny"
    torch.testing.assert_close(network.module.state_dict(), model.state_dict())
    assert shares
    assert max(shares) == 1.0
    assert recipe.published.cached()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    assert vizapp.load("hf:ann/tiny", device="cpu").digest == network.digest


def test_what_the_hub_does_not_have(server: type[Hub]) -> None:
    (server.root / "ann" / "empty").mkdir(parents=True)
    for name, code in (
        ("hf:ann/none", "no-such-network"),
        ("hf:ann/empty", "no-configuration"),
        ("hf:a/b/c", "no-such-network"),
        ("hf:", "no-such-network"),
    ):
        with refuses(code):
            vizapp.load(name)


def test_a_hub_that_cannot_be_reached(server: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with refuses("download-failed"):
        vizapp.load("hf:ann/tiny")
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with refuses("not-installed"):
        vizapp.load("hf:ann/tiny")


def timm_folder(folder: Path) -> Any:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    described = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.9,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.3],
        "num_classes": 3,
    }
    described |= {"interpolation": "bicubic", "crop_mode": "center", "fixed_input_size": False, "pool_size": [2, 2]}
    described |= {"first_conv": "conv1.0", "classifier": "fc", "license": "mit"}
    config = {"architecture": "resnet10t", "num_classes": 3, "num_features": 512, "pretrained_cfg": described}
    config |= {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "ant", "n2": "bee", "n3": "cow"}}
    (folder / "config.json").write_text(json.dumps(config))
    return model


def test_a_network_of_timm_from_the_hub_or_a_folder(server: type[Hub]) -> None:
    import timm

    model = timm_folder(server.root / "ann" / "ten")
    settings = json.loads((server.root / "ann" / "ten" / "config.json").read_text())["pretrained_cfg"]
    own = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=settings))
    for name in ("hf-hub:ann/ten", str(server.root / "ann" / "ten")):
        network = vizapp.load(name, device="cpu")
        assert network.categories == ("ant", "bee", "cow")
        torch.testing.assert_close(network.prepare(PHOTO)[0], own(Image.fromarray(PHOTO)), rtol=0, atol=1e-6)
        with torch.no_grad():
            torch.testing.assert_close(network.module(network.prepare(PHOTO)), model(network.prepare(PHOTO)))
    config = json.loads((server.root / "ann" / "ten" / "config.json").read_text())
    (server.root / "ann" / "ten" / "config.json").write_text(json.dumps(config | {"architecture": "own/code"}))
    with refuses("unsupported-network"):
        vizapp.load(str(server.root / "ann" / "ten"))


def test_a_preprocessing_of_ones_own(folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"size": {"shortest_edge": 40}, "crop_size": 32, "image_mean": 0, "image_std": [1, 1, 1]}')
    network = vizapp.load("vizapp/resnet20-cifar", weights="none", device="cpu", preprocessing=path)
    resized = Image.fromarray(PHOTO).resize((int(40 * 121 / 90), 40), Image.Resampling.BILINEAR)
    left = (resized.width - 32) // 2
    wanted = np.asarray(resized)[4:36, left : left + 32].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(network.prepare(PHOTO)[0].numpy(), wanted, atol=1e-6)
    with refuses("bad-configuration"):
        vizapp.load("vizapp/resnet20-cifar", weights="none", preprocessing=os.devnull)
