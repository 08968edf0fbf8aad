"""Checkpoints of all kinds, good and bad, made here."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vizapp
from tests.errors import refuses
from vizapp.zoo import registry
from vizapp.zoo.classic.lenet import LeNet5

NET = "vizapp/lenet5-digits"


def lenet(classes: int = 10) -> nn.Module:
    torch.manual_seed(1)
    return LeNet5(classes)


def state(classes: int = 10) -> dict[str, Tensor]:
    return dict(lenet(classes).state_dict())


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "pack",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best_prec1": 91.8},
        lambda s: {"model": s, "optimizer": {"lr": torch.tensor(1.0)}},
        lambda s: {"model_state_dict": s},
        lambda s: {"my_own_key": s, "epoch": 3},
        lambda s: {"checkpoint": {"state_dict": s}},
        lambda s: {f"module.{key}": value for key, value in s.items()},
        lambda s: {f"_orig_mod.module.{key}": value for key, value in s.items()},
        lambda s: {"state_dict": {f"model.{key}": value for key, value in s.items()}},
        lambda s: {key: value.half().float().bfloat16().double() for key, value in s.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".ckpt"])
def test_weights_are_found_wherever_training_scripts_put_them(
    pack: Callable[[dict[str, Tensor]], Any], suffix: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / f"net{suffix}", pack(state()))
    network = vizapp.load(NET, weights=path, device="cpu")
    assert network.weights == path.name == network.facts["weights"]
    for key, value in network.module.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state()[key], rtol=1e-2, atol=1e-3)  # bfloat16 keeps 8 bits


def test_safetensors_in_half_precision_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({f"module.{key}": value.half() for key, value in state().items()}, str(path))
    network = vizapp.load(NET, weights=str(path), device="cpu")
    assert all(torch.equal(value, state()[key].half().float()) for key, value in network.module.state_dict().items())


def test_the_old_format_of_torch_is_read_too(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert vizapp.load(NET, weights=tmp_path / "old.pth", device="cpu").categories[3] == "3"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", ["torch", "pickle", "old torch"])
def test_code_in_a_checkpoint_is_not_run(save: str, tmp_path: Path) -> None:
    path, proof = tmp_path / "bomb.pth", tmp_path / "it-ran"
    content = {"state_dict": state(), "extra": Bomb(proof)}
    if save == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    with refuses("checkpoint-unsafe"):
        vizapp.load(NET, weights=path)
    assert not proof.exists()


def test_a_whole_module_counts_as_code(tmp_path: Path) -> None:
    path = saved(tmp_path / "module.pt", lenet())
    with refuses("checkpoint-unsafe", "vizapp.zoo.classic.lenet.LeNet5"):
        vizapp.load(NET, weights=path)


def write_truncated(path: Path) -> None:
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def write_old_truncated(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-2000])


def write_script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.ReLU()), str(path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "code"),
    [
        (lambda path: path.write_bytes(b""), "empty-file"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40), "checkpoint-damaged"),
        (lambda path: path.write_text("just some text\n" * 100), "checkpoint-damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)), "checkpoint-damaged"),
        (lambda path: path.write_bytes(b"\x80\x02}q\x00"), "checkpoint-damaged"),
        (write_truncated, "checkpoint-damaged"),
        (write_old_truncated, "checkpoint-damaged"),
        (write_script, "checkpoint-unsafe"),
        (lambda path: path.mkdir(), "no-such-file"),
        (lambda path: None, "no-such-file"),
        (lambda path: torch.save({"epoch": 3, "lr": 0.1}, path), "checkpoint-without-weights"),
        (lambda path: torch.save({}, path), "checkpoint-without-weights"),
        (lambda path: torch.save([1, 2], path), "checkpoint-without-weights"),
        (lambda path: torch.save(torch.zeros(3), path), "checkpoint-without-weights"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_answered_with_a_sentence(
    write: Callable[[Path], Any], code: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    write(path)
    with refuses(code, path.name):
        vizapp.load(NET, weights=path)


@pytest.mark.parametrize("content", [b"", b"\x10" + bytes(7) + b"{no json}       ", b"\xff" * 50])
def test_a_damaged_safetensors_file_is_answered_with_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(vizapp.VizError):
        vizapp.load(NET, weights=tmp_path / "net.safetensors")


def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    broken = state()
    broken["classifier.2.weight"][3, 4] = float("nan")
    with refuses("checkpoint-not-finite", "classifier.2.weight"):
        vizapp.load(NET, weights=saved(tmp_path / "net.pth", broken))


def test_missing_unexpected_and_misshapen_keys_are_counted_and_listed(tmp_path: Path) -> None:
    broken = state()
    del broken["features.0.bias"]
    broken |= {"extra.weight": torch.zeros(1), "features.3.weight": torch.zeros(16, 6, 3, 3)}
    parts = ("1 missing (features.0.bias)", "1 unexpected (extra.weight)", "features.3.weight", "16×6×3×3", "16×6×5×5")
    with refuses("checkpoint-mismatch", *parts):
        vizapp.load(NET, weights=saved(tmp_path / "net.pth", broken))


def test_a_checkpoint_of_another_network_lists_no_more_than_twenty_keys_of_a_kind(tmp_path: Path) -> None:
    with refuses("checkpoint-mismatch", "50 missing", "8 unexpected", "2 of another shape") as caught:
        vizapp.load("torchvision/squeezenet1_1", weights=saved(tmp_path / "lenet.pth", state()), classes=10)
    missing, unexpected, _ = re.findall(r"\((.*?)\)", str(caught.value))
    assert len(missing.removesuffix(", …").split(", ")) == 20
    assert len(unexpected.split(", ")) == 8


def test_the_number_of_classes_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    network = vizapp.load(NET, weights=saved(tmp_path / "net.pth", state(7)), device="cpu")
    assert network.categories == tuple(f"class {number}" for number in range(7))
    assert network.scores(torch.zeros(1, 1, 28, 28)).shape == (1, 7)


@pytest.mark.parametrize("name", ["squeezenet1_1", "regnet_y_400mf", "lraspp_mobilenet_v3_large", "googlenet"])
def test_the_number_of_classes_is_found_in_heads_of_all_kinds(name: str, tmp_path: Path) -> None:
    there = vizapp.load(name, weights="none", device="cpu", classes=4)
    path = saved(tmp_path / "net.pth", there.module.state_dict())
    network = vizapp.load(name, weights=path, device="cpu")
    assert len(network.categories) == 4
    for one, two in zip(there.module.state_dict().values(), network.module.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_a_wrong_number_of_classes_is_answered_with_a_sentence(tmp_path: Path) -> None:
    with refuses("checkpoint-mismatch", "7×84", "5×84"):
        vizapp.load(NET, weights=saved(tmp_path / "net.pth", state(7)), classes=5)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "cat\ndog\n\nowl\n"),
        ("names.json", json.dumps(["cat", "dog", "owl"])),
        ("names.json", json.dumps({"0": "cat", "2": "owl", "1": "dog"})),
        ("names.json", json.dumps({"cat": 0, "owl": 2, "dog": 1})),
        ("names.json", json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "owl"]})),
    ],
)
def test_classes_are_named_by_a_labels_file(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    path = saved(tmp_path / "net.pth", state(3))
    network = vizapp.load(NET, weights=path, device="cpu", classes=tmp_path / file)
    assert network.categories == ("cat", "dog", "owl")


@pytest.mark.parametrize("text", ["", "{not json", '{"0": "cat", "5": "dog"}', '"cat"', '{"a": "b"}', "[]"])
def test_a_labels_file_without_names_is_answered_with_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(text)
    with refuses("bad-labels-file", "names.json"):
        vizapp.load(NET, weights="none", classes=str(tmp_path / "names.json"))


@pytest.mark.parametrize("beside", [{"classes": ["cat", "dog"]}, {"class_to_idx": {"dog": 1, "cat": 0}}])
def test_class_names_beside_the_weights_are_used(beside: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {"state_dict": state(2), **beside})
    assert vizapp.load(NET, weights=path, device="cpu").categories == ("cat", "dog")


def test_counters_of_batches_may_be_missing_as_in_old_files(tmp_path: Path) -> None:
    there = vizapp.load("resnet20-cifar", weights="none", device="cpu")
    old = {k: v for k, v in there.module.state_dict().items() if not k.endswith("num_batches_tracked")}
    network = vizapp.load("resnet20-cifar", weights=saved(tmp_path / "net.th", old), device="cpu")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(network.scores(x), there.scores(x))


def test_old_densenet_keys_and_heads_for_training_are_understood(tmp_path: Path) -> None:
    there = vizapp.load("densenet121", weights="none", device="cpu")
    old = {}
    for key, value in there.module.state_dict().items():
        if key.endswith("num_batches_tracked"):  # torch had none when those files were made
            continue
        for kind in ("norm", "conv"):
            for number in "12":
                if "denselayer" in key:
                    key = key.replace(f".{kind}{number}.", f".{kind}.{number}.")
        old[key] = value
    assert any(".norm.1." in key for key in old)
    assert vizapp.load("densenet121", weights=saved(tmp_path / "net.pth", old), device="cpu").digest == there.digest
    there = vizapp.load("googlenet", weights="none", device="cpu")
    more = dict(there.module.state_dict()) | {"aux1.fc2.weight": torch.zeros(1000, 1024)}
    assert vizapp.load("googlenet", weights=saved(tmp_path / "net.pth", more), device="cpu").digest == there.digest


def test_mnasnet_loads_from_a_file_without_format_versions(tmp_path: Path) -> None:
    there = vizapp.load("mnasnet0_5", weights="none", device="cpu")
    save_file({k: v.contiguous() for k, v in there.module.state_dict().items()}, str(tmp_path / "net.safetensors"))
    network = vizapp.load("mnasnet0_5", weights=tmp_path / "net.safetensors", device="cpu")
    assert network.digest == there.digest


def test_a_published_file_brings_the_preprocessing_it_was_evaluated_with(tmp_path: Path) -> None:
    there = vizapp.load("mobilenet_v2", weights="none", device="cpu")
    path = saved(tmp_path / "mobilenet_v2-b0353104.pth", there.module.state_dict())
    assert vizapp.load("mobilenet_v2", weights=path, device="cpu").preprocessing.resize == 256
    path = saved(tmp_path / "mine.pth", there.module.state_dict())
    assert vizapp.load("mobilenet_v2", weights=path, device="cpu").preprocessing.resize == 232


def foreign(reverse: bool = False) -> dict[str, Tensor]:
    """The weights of the network with the names of another library; `reverse`: each bias before its weight."""
    named = []
    for number, (key, value) in enumerate(state().items()):
        layer, role = divmod(number, 2)
        named.append((2 * layer + (role ^ reverse), f"net/layer_{layer + 1}/{key.rpartition('.')[2]}", value))
    return {name: value for _, name, value in sorted(named, key=lambda entry: entry[0])}


def test_foreign_names_are_matched_by_order_after_a_yes(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", foreign())
    with refuses(
        "checkpoint-mismatch", "10 missing", "All 10 shapes match in order", "net/layer_1/weight", "--rename order"
    ):
        vizapp.load(NET, weights=path)
    network = vizapp.load(NET, weights=path, rename="order", device="cpu")
    torch.testing.assert_close(dict(network.module.state_dict()), state(), rtol=0, atol=0)
    assert registry.match_checkpoint(NET, path)[0] == ("net/layer_1/weight", next(iter(state())))


def test_foreign_names_of_a_network_with_other_classes(tmp_path: Path) -> None:
    named = {f"a{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(state(7).items())}
    network = vizapp.load(NET, weights=saved(tmp_path / "net.pth", named), rename="order", device="cpu")
    assert len(network.categories) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: dict(reversed(foreign().items())),
        lambda: dict(list(foreign().items())[:-1]),
        lambda: foreign() | {"more": torch.zeros(3)},
        lambda: foreign(reverse=True),
    ],
)
def test_names_that_do_not_match_in_order_are_not_proposed(
    wrong: Callable[[], dict[str, Tensor]], tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", wrong())
    for rename in (None, "order"):
        with refuses("checkpoint-mismatch", "Does it belong to another network?"):
            vizapp.load(NET, weights=path, rename=rename)
    assert registry.match_checkpoint(NET, path) == []


def test_a_mean_is_not_taken_for_a_bias(tmp_path: Path) -> None:
    own = vizapp.load("vizapp/resnet20-cifar", weights="none", device="cpu").module.state_dict()
    values = [(key, value) for key, value in own.items() if not key.endswith("num_batches_tracked")]
    roles = {"weight": "gamma", "bias": "running_mean", "running_mean": "beta", "running_var": "var"}
    named = {}
    for number, (key, value) in enumerate(values):
        named[f"b{number}.{roles[key.rpartition('.')[2]] if value.ndim == 1 else 'kernel'}"] = value
    with refuses("checkpoint-mismatch", "another network"):
        vizapp.load("vizapp/resnet20-cifar", weights=saved(tmp_path / "net.pth", named), rename="order")
    with refuses("bad-rename"):
        vizapp.load(NET, weights="none", rename="shape")
