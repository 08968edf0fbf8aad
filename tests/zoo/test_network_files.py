"""Networks in `.pt2` and `.onnx` files. The oracles are the exported modules themselves, and ONNX's reference evaluator."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from tests.zoo.test_checkpoints import Bomb

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
PROOF = Path("/tmp/vizapp-it-ran")


class Block(nn.Module):
    """A residual block that uses one ReLU twice, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.relu(self.norm(self.conv(x))) + x)


class Small(nn.Module):
    """Layers, functional operations, a residual and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks, self.gate = (
            nn.Conv2d(3, 8, 3, stride=2),
            nn.Sequential(Block(), Block()),
            nn.Linear(8, 8),
        )
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.hardswish(self.stem(x)), 2)
        x = self.blocks(x)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3)))).reshape(-1, 8, 1, 1)
        x = F.adaptive_avg_pool2d(F.gelu(x), 1)
        return self.fc(self.drop(x.view(x.shape[0], -1)))


class Tokens(nn.Module):
    """Patches, a class token and attention, whose reshapes hold the batch size between other axes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 16, 8, stride=8), nn.Parameter(torch.randn(1, 1, 16))
        self.attention, self.norm, self.fc = (
            nn.MultiheadAttention(16, 4, batch_first=True),
            nn.LayerNorm(16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        return self.fc((x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = kind()
    for name, value in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return module.eval()


def exported(kind: type[nn.Module], batch: int | None, path: Path, **more: Any) -> nn.Module:
    """The module, saved as a `.pt2` file for a fixed batch size, or (None) any."""
    module, size = made(kind), batch or 2
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=512)},)
    torch.export.save(torch.export.export(module, (torch.randn(size, 3, 32, 32),), dynamic_shapes=shapes), path, **more)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("files")
    extra = {
        "classes.json": '["ant", "bee", "cow", "dog", "eel"]',
        "preprocessor_config.json": '{"do_normalize": false}',
    }
    exported(Small, None, where / "small.pt2", extra_files=extra)
    return where


def check(path: Path, module: nn.Module, tolerance: float) -> vizapp.zoo.Network:
    network = vizapp.load(str(path), device="cpu")
    assert network.input_size == (3, 32, 32)
    for count in (1, 3):
        pictures = torch.randn(count, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(network.module(pictures), module(pictures), rtol=tolerance, atol=tolerance)
    return network


@pytest.mark.parametrize(("kind", "batch"), [(Small, 1), (Small, 3), (Tokens, None), (Tokens, 1), (Tokens, 2)])
@pytest.mark.slow
def test_exported_programs_answer_as_their_modules_at_any_batch_size(
    kind: type[nn.Module], batch: int | None, tmp_path: Path
) -> None:
    check(tmp_path / "net.pt2", exported(kind, batch, tmp_path / "net.pt2"), 1e-5)


def test_layers_and_answers_of_an_exported_program(folder: Path) -> None:
    module = made(Small)
    network, own = check(folder / "small.pt2", module, 1e-5), vizapp.wrap(module, input_size=(3, 32, 32))
    assert [(site.name, site.shape) for site in network.sites] == [(site.name, site.shape) for site in own.sites]
    assert network.categories == ("ant", "bee", "cow", "dog", "eel")
    assert network.preprocessing.mean == (0.0, 0.0, 0.0)
    torch.testing.assert_close(network.module.state_dict(), module.state_dict())
    own = vizapp.wrap(module, input_size=(3, 32, 32), mean=0.0, std=1.0)
    for method, options in (
        ("projection", {"rule": "guided"}),
        ("occlusion", {"window": 8, "stride": 8}),
        ("attribution", {}),
        ("attribution", {"kind": "gradcam"}),
        ("dense", {}),
    ):
        results = []
        for net in (network, own):
            try:
                found = vizapp.ask(
                    method, net, PHOTO, unit=None if method == "dense" else vizapp.class_unit(net, 2), **options
                )
                results.append({key: array for key, array in found.arrays.items() if array.dtype.kind == "f"})
            except vizapp.VizError as error:
                results.append(error.code)
        if isinstance(results[1], str):
            assert results[0] == results[1]
            continue
        for key, array in results[1].items():
            np.testing.assert_allclose(results[0][key], array, rtol=1e-3, atol=1e-5, err_msg=f"{method} {key}")


def test_an_exported_program_in_python_and_a_graph_of_fx(folder: Path) -> None:
    module = made(Small)
    program = torch.export.export(module, (torch.randn(1, 3, 32, 32),))
    pictures = torch.randn(2, 3, 32, 32)
    for given in (program, torch.fx.symbolic_trace(module)):
        network = vizapp.wrap(given, input_size=(3, 32, 32))
        with torch.no_grad():
            torch.testing.assert_close(network.module(pictures), module(pictures))
        assert {"stem", "blocks.0.conv", "fc"} <= {site.name for site in network.sites}
    with refuses("unsupported-module"):
        vizapp.wrap(program.module(), input_size=(3, 32, 32))


def test_the_digest_of_a_graph_knows_its_code() -> None:
    digests = set()
    for function in (torch.relu, torch.tanh):
        graph = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
        torch.nn.init.ones_(graph.get_parameter("0.weight"))
        for value in graph.state_dict().values():
            value.fill_(0.5)
        node = next(node for node in graph.graph.nodes if node.target == "1")
        with graph.graph.inserting_after(node):
            new = graph.graph.call_function(function, (node,))
        node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)
        graph.recompile()
        digests.add(vizapp.wrap(graph, input_size=(3, 8, 8), name="net").digest)
    assert len(digests) == 2


def test_a_program_exported_in_training_mode_is_put_into_evaluation_mode(tmp_path: Path) -> None:
    module = made(Small).train()
    torch.export.save(torch.export.export(module, (torch.randn(2, 3, 32, 32),)), tmp_path / "net.pt2")
    check(tmp_path / "net.pt2", module.eval(), 1e-5)


Edit = Callable[[str, bytes], bytes | None]  # of the name and content of a record; None leaves it out


def change(source: Path, target: Path, edit: Edit, more: dict[str, bytes] | None = None) -> None:
    """A copy of a zip file whose records are edited; `more` are added beside them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = edit(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in (more or {}).items():
            new.writestr(f"small/{name}", content)


def pickled(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def edited(part: Callable[[Any], None], record: str = "models/model.json") -> Edit:
    def edit(name: str, content: bytes) -> bytes:
        if name != record:
            return content
        described = json.loads(content)
        part(described)
        return json.dumps(described).encode()

    return edit


def nodes(described: Any) -> Any:
    return described["graph_module"]["graph"]["nodes"]


CODE = f"__import__('pathlib').Path('{PROOF}').touch()"


def code_in_texts(described: Any) -> None:
    described["guards_code"] = [CODE]
    for value in described["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = CODE
    for value in described["graph_module"]["graph"]["sym_int_values"].values():
        value["as_expr"]["expr_str"] = CODE


def test_code_in_an_exported_program_is_not_run(folder: Path, tmp_path: Path) -> None:
    bomb = pickled(Bomb(PROOF))

    def edit(name: str, content: bytes) -> bytes:
        content = edited(code_in_texts)(name, content)  # type: ignore[assignment]
        return bomb if name.startswith("data/sample_inputs") else content

    change(folder / "small.pt2", tmp_path / "net.pt2", edit, {"data/aotinductor/model/net.so": b"\x7fELF"})
    check(tmp_path / "net.pt2", made(Small), 1e-5)
    assert not PROOF.exists()


def call(target: str) -> Edit:
    return edited(lambda described: nodes(described)[1].update(target=target))


def pickle_weights(described: Any) -> None:
    next(iter(described["config"].values())).update(use_pickle=True, tensor_meta=None)


DAMAGED: dict[str, tuple[Edit, str]] = {
    "a system call": (call("torch.os.system"), "unsupported-operation"),
    "a custom operation": (call("torch.ops.mine.relu.default"), "unsupported-operation"),
    "a file": (call("torch.ops.aten.from_file.default"), "unsupported-operation"),
    "no such overload": (call("torch.ops.aten.relu.secret"), "network-damaged"),
    "pickled weights": (edited(pickle_weights, "data/weights/model_weights_config.json"), "checkpoint-unsafe"),
    "no weights": (lambda name, content: None if name == "data/weights/weight_0" else content, "network-damaged"),
    "short weights": (
        lambda name, content: content[:4] if name == "data/weights/weight_1" else content,
        "network-damaged",
    ),
    "NaN": (
        lambda name, content: b"\xff" * len(content) if name == "data/weights/weight_1" else content,
        "checkpoint-not-finite",
    ),
    "another format": (edited(lambda described: described["schema_version"].update(major=9)), "network-damaged"),
    "no program": (lambda name, content: None if name.startswith("models") else content, "network-damaged"),
    "no graph": (lambda name, content: b"{}" if name.startswith("models") else content, "network-damaged"),
    "nested": (lambda name, content: b"[" * 10**6 if name.startswith("models") else content, "network-damaged"),
    "no pictures": (
        edited(lambda described: described["graph_module"]["signature"]["input_specs"].pop()),
        "unsupported-input",
    ),
    "reserved names": (
        edited(
            lambda described: described["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name="forward.weight"
            )
        ),
        "network-damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_dangerous_programs_are_refused_in_a_sentence(name: str, folder: Path, tmp_path: Path) -> None:
    edit, code = DAMAGED[name]
    change(folder / "small.pt2", tmp_path / "net.pt2", edit)
    with refuses(code):
        vizapp.load(tmp_path / "net.pt2", device="cpu")


class OnlyOne(nn.Module):
    """A network whose answer depends on the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((x - x.mean(0)).flatten(1))


def test_a_program_that_works_at_one_batch_size_alone_is_refused(tmp_path: Path) -> None:
    exported(OnlyOne, 1, tmp_path / "net.pt2")
    with refuses("fixed-batch-size"):
        vizapp.load(tmp_path / "net.pt2", device="cpu")


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_files_that_are_none_are_refused_in_a_sentence(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    with refuses("no-such-file"):
        vizapp.load(path)
    for content, code in (
        (b"", "empty-file"),
        (b"garbage" * 100, "network-damaged"),
        (b"PK\x03\x04" * 9, "network-damaged"),
    ):
        path.write_bytes(content)
        with refuses(code):
            vizapp.load(path)
    path.unlink()
    path.mkdir()
    with refuses("no-configuration"):
        vizapp.load(path)


def test_paths_that_are_no_networks_are_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pth").write_bytes(b"x")
    for name in (tmp_path / "net.pth", str(tmp_path / "net.pth")):
        with refuses("not-a-network", "a checkpoint"):
            vizapp.load(name)
    with refuses("no-such-file"):
        vizapp.load(tmp_path / "missing")
    with refuses("bad-path"):
        vizapp.load("/a\0b")
    (tmp_path / "resnet18").mkdir()
    monkeypatch.chdir(tmp_path)
    assert vizapp.load("resnet18", weights="none", device="cpu").name == "torchvision/resnet18"  # not the folder


def to_onnx(module: nn.Module, path: Path, dynamic: bool, **more: Any) -> None:
    axes = {"x": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.randn(1, 3, 32, 32),), path, input_names=["x"], output_names=["y"], dynamic_axes=axes,
            dynamo=False, **more,
        )  # fmt: skip


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("version", [13, 17, 20])
def test_onnx_networks_answer_as_the_reference_evaluator(dynamic: bool, version: int, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    path = tmp_path / "net.onnx"
    to_onnx(made(Small), path, dynamic, opset_version=version)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": "{0: 'ant', 1: 'bee', 2: 'cow', 3: 'dog', 4: 'eel'}"})
    onnx.save(model, path)
    network = check(path, made(Small), 1e-5)
    picture = network.prepare(PHOTO)
    (wanted,) = ReferenceEvaluator(str(path)).run(None, {"x": picture.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(network.module(picture).numpy(), wanted, rtol=1e-5, atol=1e-5)
    assert network.categories == ("ant", "bee", "cow", "dog", "eel")
    unit = vizapp.class_unit(network, "cow")
    for method, options in (("projection", {}), ("occlusion", {"window": 16, "stride": 16}), ("attribution", {})):
        vizapp.ask(method, network, PHOTO, unit=unit, **options)


def test_preprocessing_and_names_beside_an_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    to_onnx(made(Small), tmp_path / "model.onnx", True)
    plain = vizapp.load(tmp_path / "model.onnx", device="cpu")
    assert plain.categories[4] == "class 4"
    assert "defaults" in plain.facts["preprocessing"]
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 40}, "crop_size": 32, "image_mean": 0.5}'
    )
    (tmp_path / "config.json").write_text('{"id2label": {"0": "ant", "1": "bee", "2": "cow", "3": "dog", "4": "eel"}}')
    network = vizapp.load(tmp_path / "model.onnx", device="cpu")
    assert network.preprocessing.resize == 40
    assert network.preprocessing.mean == (0.5, 0.5, 0.5)
    assert network.categories[4] == "eel"
    assert vizapp.load(tmp_path / "model.onnx", device="cpu", classes=["a", "b", "c", "d", "e"]).categories[4] == "e"
    with refuses("class-count-mismatch"):
        vizapp.load(tmp_path / "model.onnx", device="cpu", classes=6)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "ant", "1": "bee"}}')  # of another network
    assert vizapp.load(tmp_path / "model.onnx", device="cpu").categories == tuple(f"class {n}" for n in range(5))
    with refuses("no-such-weights"):
        vizapp.load(tmp_path / "model.onnx", weights="none")


def onnx_graph(path: Path, nodes: list[Any], inputs: list[Any], version: int = 17) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in inputs]
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph(nodes, "net", values, [answer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]), path)


def test_onnx_files_that_cannot_be_used_are_refused_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from onnx import helper

    picture = [("x", ["n", 3, 32, 32])]
    for nodes, inputs, version, code in (
        ([helper.make_node("Det", ["x"], ["y"])], picture, 17, "unsupported-operation"),
        ([helper.make_node("Mine", ["x"], ["y"], domain="mine")], picture, 17, "unsupported-operation"),
        ([helper.make_node("RotaryEmbedding", ["x", "x", "x"], ["y"])], picture, 23, "unsupported-operation"),
        ([helper.make_node("Relu", ["x"], ["y"])], [("x", ["n", 7])], 17, "unsupported-input"),
        ([helper.make_node("Add", ["x", "z"], ["y"])], [*picture, ("z", [1])], 17, "unsupported-input"),
        ([], picture, 17, "network-damaged"),
    ):
        onnx_graph(tmp_path / "net.onnx", nodes, inputs, version)
        with refuses(code):
            vizapp.load(tmp_path / "net.onnx", device="cpu")


def test_channels_last_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from onnx import helper

    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 3], keepdims=0)]
    onnx_graph(tmp_path / "net.onnx", nodes, [("x", ["n", 32, 5, 3])])
    network = vizapp.load(tmp_path / "net.onnx", device="cpu")
    assert network.input_size == (3, 32, 5)
    pictures = torch.randn(2, 3, 32, 5)
    torch.testing.assert_close(network.module(pictures), pictures.mean((1, 2)))
