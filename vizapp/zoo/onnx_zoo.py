"""Networks in `.onnx` files, converted to modules by onnx2torch (optional)."""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vizapp.errors import VizError, plain_name, quoted
from vizapp.files import local_path
from vizapp.zoo.fixed_batch import check_batches
from vizapp.zoo.metadata import categories_of, no_other_weights, preprocessing_in
from vizapp.zoo.pickled import check_finite
from vizapp.zoo.recipe import Published, Recipe

SUFFIX = ".onnx"
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}
_NEWEST = 17  # version of ONNX's operators that onnx2torch 1.5 knows
_DEFAULT_SIDE = 224  # of inputs that take any size


def handles(name: str) -> bool:
    """Whether the name is the path of an `.onnx` file."""
    return name.lower().endswith(SUFFIX)


def recipe(name: str, variant: str = "default") -> Recipe:
    """The recipe of the network in an `.onnx` file.

    Raises:
        VizError: the file is damaged, holds something else than an image network, or onnx2torch is not installed.
    """
    path = local_path(name, "network")
    if variant != "default":
        raise VizError(f'{path.name} has only the weights "default", not {variant!r}.', code="no-such-weights")
    model = _read(path)
    batch, size, channels_last = _input(path, model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    shape, source = preprocessing_in(metadata, path.parent, size)
    answer = _sizes(model.graph.output[0])
    count = answer[1] if len(answer) == 2 else None
    return Recipe(
        name=plain_name(path.name),
        build=no_other_weights,
        preprocessing=shape,
        categories=categories_of(metadata, path.parent, count),
        published=Published(path.name, path=path),
        open=partial(_open, path, size, batch is not None, channels_last),
        facts={"kind": "ONNX", "preprocessing": source, "converted by": "onnx2torch"},
        channels_last=False,
    )


def _read(path: Path) -> Any:
    for package in ("onnx", "onnx2torch"):
        if importlib.util.find_spec(package) is None:
            raise VizError("ONNX networks require onnx2torch: pip install onnx2torch.", code="not-installed")
    if not path.is_file():
        raise VizError(f"There is no file {quoted(str(path))}.", code="no-such-file")
    if path.stat().st_size == 0:
        raise VizError(f"The file {plain_name(path.name)!r} is empty (0 bytes).", code="empty-file")
    onnx = _onnx()
    protobuf = importlib.import_module("google.protobuf.message")  # comes with onnx, which is optional
    try:
        model = onnx.load(str(path))
    except (protobuf.DecodeError, onnx.checker.ValidationError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, str(error)) from None
    if not model.graph.node or not model.graph.output:
        raise _damaged(path, "it holds no network")
    foreign = next((node for node in model.graph.node if node.domain not in ("", "ai.onnx")), None)
    if foreign is not None:
        raise _unsupported(path, f"{foreign.op_type} of {foreign.domain}")
    return model


@cache
def _onnx() -> Any:
    import onnx  # optional, and takes half a second

    return onnx


def _damaged(path: Path, reason: str) -> VizError:
    short = (reason.strip().splitlines() or ["unknown reason"])[0]
    return VizError(
        f"The file {plain_name(path.name)!r} is damaged or is no ONNX network ({plain_name(short)}).",
        code="network-damaged",
    )


def _unsupported(path: Path, what: str) -> VizError:
    return VizError(
        f"onnx2torch cannot convert {plain_name(path.name)!r}: {plain_name(what.strip() or 'an operation')}",
        code="unsupported-operation",
    )


def _sizes(value: Any) -> list[int | None]:
    return [one.dim_value if one.HasField("dim_value") else None for one in value.type.tensor_type.shape.dim]


def _inputs(model: Any) -> list[Any]:
    weights = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights]


def _input(path: Path, model: Any) -> tuple[int | None, tuple[int, int, int], bool]:
    """The batch size (None: any), channels, height and width of the input, and whether its channels come last."""
    inputs = _inputs(model)
    sizes = _sizes(inputs[0]) if len(inputs) == 1 else []
    floats = bool(inputs) and inputs[0].type.tensor_type.elem_type in _FLOATS
    last = len(sizes) == 4 and sizes[3] in (1, 3) and sizes[1] not in (1, 3)
    channels = None if len(sizes) != 4 else sizes[3] if last else sizes[1]
    if len(sizes) != 4 or not channels or not floats:
        raise VizError(
            f"The network in {plain_name(path.name)!r} does not take one batch of pictures (floating-point numbers [N C H W]).",
            code="unsupported-input",
        )
    height, width = (side or _DEFAULT_SIDE for side in (sizes[1:3] if last else sizes[2:4]))
    return sizes[0] or None, (channels, height, width), last


def _open(path: Path, size: tuple[int, int, int], fixed: bool, channels_last: bool) -> nn.Module:
    model = _read(path)
    if fixed:
        _free_batch(model)
    import onnx2torch  # optional, and imports torchvision

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = onnx2torch.convert(_older(path, model))
    except NotImplementedError as error:
        raise _unsupported(path, str(error)) from None
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    module = _ChannelsLast(module) if channels_last else module
    for key, value in module.state_dict().items():
        check_finite(path.name, key, value)
    if fixed:
        check_batches(path.name, module, size)
        return module
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *size))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        raise _unsupported(path, f"what it makes of it does not run ({error})") from None
    return module


def _older(path: Path, model: Any) -> Any:
    """The model in an operator set that onnx2torch knows.

    Most operations did not change but for the types that they take. The checker finds those that did.

    Raises:
        VizError: the model needs a newer one.
    """
    onnx = _onnx()
    _inline(model)
    own = next((entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if own is None or own.version <= _NEWEST:
        return model
    for node in model.graph.node:
        if node.op_type.startswith("Reduce") and len(node.input) == 2:  # axes are an attribute in older sets
            axes = [onnx.numpy_helper.to_array(tensor) for tensor in _constants(model, node.input[1])]
            if axes:
                del node.input[1]
                node.attribute.append(onnx.helper.make_attribute("axes", axes[0].tolist()))
    newer, own.version = own.version, _NEWEST
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise VizError(
            f"{plain_name(path.name)!r} needs version {newer} of ONNX's operators; onnx2torch knows up to {_NEWEST} "
            f"({plain_name(str(error).strip().splitlines()[0])}). Export it with opset_version={_NEWEST}.",
            code="unsupported-operation",
        ) from None
    return model


def _inline(model: Any) -> None:
    """Replace what onnx2torch does not know: copies of weights by the weights, `Gelu` by the error function."""
    helper = _onnx().helper
    weights = {tensor.name for tensor in model.graph.initializer}
    answers = {value.name for value in model.graph.output}
    other: dict[str, str] = {}
    nodes: list[Any] = []
    for node in model.graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.input[0] in weights and node.output[0] not in answers:
            other[node.output[0]] = node.input[0]
        elif node.op_type == "Gelu" and not any(entry.s == b"tanh" for entry in node.attribute):
            place, x, y = node.name or node.output[0], node.input[0], node.output[0]
            numbers = {"root": math.sqrt(2), "one": 1.0, "half": 0.5}
            model.graph.initializer.extend(
                helper.make_tensor(f"{place}.{name}", 1, [], [value]) for name, value in numbers.items()
            )
            parts = [
                ("Div", x, "root", "a"),
                ("Erf", "a", "", "b"),
                ("Add", "b", "one", "c"),
                ("Mul", "c", "half", "d"),
            ]
            for kind, first, second, result in parts:
                inputs = [x if first == x else f"{place}.{first}", *([f"{place}.{second}"] if second else [])]
                nodes.append(helper.make_node(kind, inputs, [f"{place}.{result}"], f"{place}/{kind}.{result}"))
            nodes.append(helper.make_node("Mul", [x, f"{place}.d"], [y], place))
        else:
            nodes.append(node)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]  # the list owns what it holds
    del model.graph.node[:]
    model.graph.node.extend(kept)


class _ChannelsLast(nn.Module):
    """A network that takes pictures `[N H W C]`, given them as `[N C H W]`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Any:
        """The answer of the network."""
        return self.network(pictures.permute(0, 2, 3, 1))


def _free_batch(model: Any) -> None:
    """Let reshapes keep the batch size of their input in place of the one that the file fixes."""
    numpy_helper = _onnx().numpy_helper
    batch = _sizes(_inputs(model)[0])[0]
    _inputs(model)[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        if node.op_type == "Reshape":
            for tensor in _constants(model, node.input[1]):
                sizes = numpy_helper.to_array(tensor).copy()
                if sizes.ndim == 1 and len(sizes) and sizes[0] == batch:
                    sizes[0] = 0 if -1 in sizes[1:] else -1
                    tensor.CopyFrom(numpy_helper.from_array(sizes, tensor.name))


def _constants(model: Any, name: str) -> Iterator[Any]:
    """The tensor of that name, among the weights or of a constant node."""
    yield from (tensor for tensor in model.graph.initializer if tensor.name == name)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")
