"""Programs of torch.export: `.pt2` files and `ExportedProgram`s.

`torch.export.load` runs code in a strange file: it unpickles, evaluates expressions and compiled guards, and loads shared
libraries. Here the description of the graph is read as JSON, only known ATen operations are called, and weights are read
as raw numbers. The modules of the original network become scopes, so that its layers keep their names.
"""

from __future__ import annotations

import hashlib
import io
import operator
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from vizapp.engine import operations
from vizapp.errors import VizError, plain_name, quoted
from vizapp.files import local_path
from vizapp.zoo.exported_program import Graph, Home, Program, Step, Value, needed_steps
from vizapp.zoo.fixed_batch import check_batches
from vizapp.zoo.labels import read_json
from vizapp.zoo.metadata import categories_of, no_other_weights, preprocessing_in
from vizapp.zoo.pickled import check_finite
from vizapp.zoo.recipe import Published, Recipe

SUFFIX = ".pt2"
_SCHEMA = 8  # of torch 2.5 to 2.14
_MOST_JSON = 2**27
_MOST_NODES = 100_000
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_NUMBERS = ("add", "sub", "mul", "floordiv", "mod", "neg", "getitem")
_OPERATORS = {f"_operator.{name}": getattr(operator, name) for name in _NUMBERS}
# Of the operations that the engine knows, all; and these.
_MORE = frozenset({
    "batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "local_response_norm", "max_pool1d", "max_pool2d",
    "max_pool2d_with_indices", "adaptive_max_pool2d", "softmax", "log_softmax", "scaled_dot_product_attention",
    "convolution", "_convolution", "amax", "amin", "max", "min", "argmax", "argmin", "prod", "var", "std", "var_mean", "norm",
    "linalg_vector_norm", "logsumexp", "sort", "topk", "where", "any", "all", "index", "slice", "embedding", "one_hot",
    "arange", "full", "zeros", "ones", "empty", "scalar_tensor", "eye", "linspace", "upsample_nearest2d",
    "upsample_bilinear2d", "upsample_bicubic2d", "lift_fresh_copy", "alias", "unsafe_view", "_unsafe_view", "numpy_T",
    "glu", "pairwise_distance", "cdist", "cosine_similarity", "normalize", "constant_pad_nd", "reflection_pad2d",
    "replication_pad2d", "im2col", "col2im", "grid_sampler", "affine_grid_generator", "sym_size", "true_divide", "divide",
    "multiply", "subtract", "rsub", "div", "rsqrt", "concat", "concatenate", "swapaxes", "mT", "mH", "linear",
})  # fmt: skip
_KNOWN = (
    operations.POINTWISE | operations.LINEAR | operations.WEIGHTED | operations.BILINEAR | operations.SHAPE_ONLY
    | operations.SHAPE_OF_SECOND | operations.IDENTITIES | operations.FLAT | operations.SUMS_WITH_PRODUCTS | _MORE
)  # fmt: skip
_SPELLED = {"_unsafe_view": "reshape", "lift_fresh_copy": "clone"}
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}


def handles(name: str) -> bool:
    """Whether the name is the path of a `.pt2` file."""
    return name.lower().endswith(SUFFIX)


def recipe(name: str, variant: str = "default") -> Recipe:
    """The recipe of the exported program in a `.pt2` file.

    Raises:
        VizError: the file is damaged, contains code, or does something that is not supported.
    """
    path = local_path(name, "network")
    if variant != "default":
        raise VizError(f'{path.name} has only the weights "default", not {variant!r}.', code="no-such-weights")
    with _opened(path.name, path) as archive:
        described = _describe(path.name, archive, None)
    shape, source = preprocessing_in(described.extra, path.parent, described.input_size)
    return Recipe(
        name=plain_name(path.name),
        build=no_other_weights,
        preprocessing=shape,
        categories=categories_of(described.extra, path.parent, described.classes),
        published=Published(path.name, path=path),
        open=partial(_open, path.name, path),
        facts={"kind": "exported program", "preprocessing": source},
        channels_last=False,
    )


def open_program(program: Any, name: str) -> nn.Module:
    """The module of an `ExportedProgram`, which is written to memory as a `.pt2` file and read from there.

    Raises:
        VizError: it does something that is not supported.
    """
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return _open(name, buffer)


def _open(name: str, file: Path | IO[bytes]) -> nn.Module:
    with _opened(name, file) as archive:
        described = _describe(name, archive, archive.weights())
    try:
        program = Program(described)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, str(error)) from None
    if described.fixed_batch is not None:
        program.free_batch(described.fixed_batch, described.input_size, described.shapes)
        check_batches(name, program, described.input_size)
    return program


def _damaged(name: str, reason: str) -> VizError:
    return VizError(
        f"The file {plain_name(name)!r} is damaged or is no exported program of torch ({plain_name(reason)}).",
        code="network-damaged",
    )


def _unsupported(name: str, what: str) -> VizError:
    return VizError(
        f"The exported program {plain_name(name)!r} {what}, which is not supported.", code="unsupported-operation"
    )


class _Archive:
    """The records of a `.pt2` file, without those that `torch.export.load` would run."""

    def __init__(self, name: str, zipped: zipfile.ZipFile) -> None:
        self._name, self._zip = name, zipped
        records = {record.partition("/")[2]: record for record in zipped.namelist()}
        self._records = records
        models = [record for record in records if record.startswith("models/") and record.endswith(".json")]
        if not models:
            old = "serialized_exported_program.json" in zipped.namelist()
            what = "it is of a torch before 2.8; export it again" if old else "it holds no exported program"
            raise _damaged(name, what)
        self.model = "models/model.json" if "models/model.json" in models else models[0]
        stem = self.model.removeprefix("models/").removesuffix(".json")
        self._configs = {
            "data/weights/": f"data/weights/{stem}_weights_config.json",
            "data/constants/": f"data/constants/{stem}_constants_config.json",
        }

    def json(self, record: str) -> Any:
        info = self._zip.getinfo(self._records[record])
        if info.file_size > _MOST_JSON:
            raise ValueError("its description is too long")
        return read_json(self._zip.read(info).decode())

    def extra(self) -> dict[str, str]:
        found = {}
        for record, full in self._records.items():
            if record.startswith("extra/") and self._zip.getinfo(full).file_size < 2**24:
                found[record.removeprefix("extra/")] = self._zip.read(full).decode("utf-8", "replace")
        return found

    def weights(self) -> dict[str, Tensor]:
        """The weights and constants by name: raw numbers alone, never pickles."""
        found: dict[str, Tensor] = {}
        for folder, config in self._configs.items():
            if config not in self._records:
                continue
            storages: dict[str, Tensor] = {}
            for key, entry in self.json(config)["config"].items():
                file, meta = entry["path_name"], entry["tensor_meta"]
                if entry["use_pickle"] or meta is None:
                    raise VizError(
                        f"The file {plain_name(self._name)!r} holds {plain_name(key)!r} as pickled code and was not run.",
                        code="checkpoint-unsafe",
                    )
                dtype = _DTYPES[meta["dtype"]]
                sizes, strides = ([_whole(one) for one in meta[what]] for what in ("sizes", "strides"))
                if f"{folder}{file}" not in storages:
                    raw = bytearray(self._zip.read(self._records[f"{folder}{file}"]))
                    storages[f"{folder}{file}"] = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0)
                flat = storages[f"{folder}{file}"].view(dtype)
                value = torch.as_strided(flat, sizes, strides, _whole(meta["storage_offset"]))
                check_finite(self._name, key, value)
                found[key] = nn.Parameter(value, requires_grad=False) if entry["is_param"] else value
        return found


def _shape(sizes: list[Mapping[str, Any]]) -> tuple[int, ...]:
    return tuple(int(size.get("as_int", -1)) for size in sizes)


def _whole(number: Mapping[str, Any]) -> int:
    return int(number["as_int"])


class _opened:
    """An archive, and a sentence for what reading it may raise."""

    def __init__(self, name: str, file: Path | IO[bytes]) -> None:
        self._name, self._file = name, file

    def __enter__(self) -> _Archive:
        file = self._file
        if isinstance(file, Path):
            if not file.is_file():
                raise VizError(f"There is no file {quoted(str(file))}.", code="no-such-file")
            if file.stat().st_size == 0:
                raise VizError(f"The file {plain_name(self._name)!r} is empty (0 bytes).", code="empty-file")
        try:
            self._zip = zipfile.ZipFile(file)
            size = file.stat().st_size if isinstance(file, Path) else 2**62
            if sum(info.file_size for info in self._zip.infolist()) > 2 * size + 2**25:
                raise ValueError("it is compressed")
            return _Archive(self._name, self._zip)
        except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError) as error:
            raise _damaged(self._name, str(error)) from None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._zip.close()
        expected = (
            zipfile.BadZipFile, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError,
            RecursionError,
        )  # fmt: skip
        if isinstance(error, expected):
            raise _damaged(self._name, f"{type(error).__name__}: {error}") from None


def _describe(name: str, archive: _Archive, weights: Mapping[str, Tensor] | None) -> Graph:
    """The graph of the program; its weights stay out if None is given for them."""
    content = archive.json(archive.model)
    if (version := content["schema_version"]["major"]) != _SCHEMA:
        raise ValueError(f"it is of version {version} of the format, not of {_SCHEMA}")
    module = content["graph_module"]
    graph, signature = module["graph"], module["signature"]
    if len(graph["nodes"]) > _MOST_NODES:
        raise ValueError(f"it has {len(graph['nodes']):,} operations")
    held: dict[str, str] = {}
    inputs: list[str] = []
    for entry in signature["input_specs"]:
        ((kind, value),) = entry.items()
        if kind == "user_input":
            inputs.append(value["arg"].get("as_tensor", {}).get("name", ""))
        elif kind in ("parameter", "buffer", "tensor_constant"):
            held[value["arg"]["name"]] = value[f"{kind}_name"]
        else:
            raise _unsupported(name, f"takes an input of the kind {plain_name(kind)}")
    sizes = graph["tensor_values"][inputs[0]]["sizes"] if len(inputs) == 1 and inputs[0] else []
    if len(sizes) != 4 or any("as_int" not in size for size in sizes[1:2]):
        raise VizError(
            f"The exported program {plain_name(name)!r} does not take one batch of pictures [N C H W].",
            code="unsupported-input",
        )
    size = [int(one["as_int"]) if "as_int" in one else 224 for one in sizes]
    batch = size[0] if "as_int" in sizes[0] else None
    reader = _Reader(name, batch is not None)
    steps = [reader.step(node) for node in graph["nodes"]]
    outputs = [
        value["arg"] for entry in signature["output_specs"] for kind, value in entry.items() if kind == "user_output"
    ]
    names = [argument["as_tensor"]["name"] for argument in outputs if "as_tensor" in argument]
    if not names:
        raise _unsupported(name, "returns no tensor")
    answer = graph["tensor_values"][names[0]]["sizes"]
    digest = hashlib.sha256(repr((graph["nodes"], signature)).encode()).hexdigest()
    found = {} if weights is None else {key: (path, weights[path]) for key, path in held.items()}
    return Graph(
        steps=needed_steps(steps, set(names)),
        input=inputs[0],
        outputs=names,
        several=len(names) > 1,
        weights=found,
        input_size=(size[1], size[2], size[3]),
        classes=int(answer[1]["as_int"]) if len(answer) == 2 and "as_int" in answer[1] else None,
        fixed_batch=batch,
        shapes={key: _shape(value["sizes"]) for key, value in graph["tensor_values"].items()}
        if batch is not None
        else {},
        digest=digest,
        extra=archive.extra(),
    )


class _Reader:
    """Reads the nodes of a graph. `fixed`: whether it was exported at one batch size."""

    def __init__(self, name: str, fixed: bool) -> None:
        self._name, self._fixed = name, fixed

    def step(self, node: Mapping[str, Any]) -> Step:
        target = str(node["target"])
        matched = _ATEN.fullmatch(target)
        if target in _OPERATORS:
            operation, schema, function = target.rpartition(".")[2], None, _OPERATORS[target]
        elif matched is None or matched[1].rstrip("_") not in _KNOWN:
            raise _unsupported(self._name, f"calls {plain_name(target)}")
        else:
            operation = matched[1]
            schema = getattr(getattr(torch.ops.aten, operation), matched[2])._schema
            function = _python_function(operation, matched[2])
        arguments, keywords = self._arguments(node["inputs"], schema)
        if self._fixed and operation == "view":
            function = Tensor.reshape  # strides differ between batch sizes
        if operation in ("batch_norm", "instance_norm", "dropout", "dropout_", "feature_dropout", "alpha_dropout"):
            _set_evaluation(operation, arguments, schema)
        outputs, several = _outputs(node["outputs"])
        stack = str(node.get("metadata", {}).get("nn_module_stack", "")).rpartition(";")[2]
        path = stack.split(",")[-2].partition("@")[0] if stack.count(",") >= 2 else ""
        return Step(path, function, operation, arguments, keywords, outputs, several, stack)

    def _arguments(self, inputs: list[Mapping[str, Any]], schema: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by position, and those by name."""
        if schema is None:
            return [self._value(one["arg"]) for one in inputs], {}
        given = {str(one["name"]): self._value(one["arg"]) for one in inputs}
        positional: list[Any] = []
        for place in schema.arguments:
            if place.kwarg_only:
                break
            if place.name not in given:
                if not any(later.name in given for later in schema.arguments if not later.kwarg_only):
                    break
                positional.append(place.default_value)
                continue
            positional.append(given.pop(place.name))
        return positional, given

    def _value(self, argument: Mapping[str, Any]) -> Any:
        ((kind, value),) = argument.items()
        if kind == "as_none":
            return None
        if kind == "as_tensor":
            return Value(str(value["name"]))
        if kind == "as_tensors":
            return [Value(str(one["name"])) for one in value]
        if kind in ("as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._nested(value)
        if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [self._nested(one) for one in value]
        if kind in ("as_int", "as_ints", "as_bool", "as_bools", "as_string"):
            return value
        if kind == "as_float":
            return float(value)
        if kind == "as_floats":
            return [float(one) for one in value]
        if kind == "as_scalar_type":
            return _DTYPES[value]
        if kind == "as_memory_format":
            return _FORMATS[value]
        if kind == "as_layout":
            return torch.strided
        if kind == "as_device":
            return Home()
        raise _unsupported(self._name, f"has an argument of the kind {plain_name(kind)}")

    def _nested(self, value: Mapping[str, Any]) -> Any:
        if "as_name" in value:
            return Value(str(value["as_name"]))
        return self._value(value)


def _outputs(outputs: list[Mapping[str, Any]]) -> tuple[list[str | None], bool]:
    """The names of the results, and whether the function returns several."""
    names: list[str | None] = []
    several = len(outputs) > 1
    for output in outputs:
        ((kind, value),) = output.items()
        if kind == "as_tensors":
            names += [str(one["name"]) for one in value]
            several = True
        elif kind in ("as_tensor", "as_optional_tensor"):
            names.append(str(value.get("as_tensor", value).get("name")) if value else None)
        elif kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
            names.append(str(value.get("as_name")))
        else:
            names.append(None)
    return names, several


def _set_evaluation(operation: str, arguments: list[Any], schema: Any) -> None:
    """Whoever exports in training mode means the network in evaluation mode."""
    for place, argument in enumerate(schema.arguments[: len(arguments)]):
        if argument.name in ("training", "train"):
            arguments[place] = False
        if argument.name == "use_input_stats":
            arguments[place] = arguments[place] and arguments[3] is None


def _slice(x: Tensor, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]


def _index(x: Tensor, indices: list[Tensor | None]) -> Tensor:
    return x[tuple(slice(None) if index is None else index for index in indices)]


_OWN: dict[str, Callable[..., Any]] = {"sym_size": Tensor.size, "slice": _slice, "index": _index}


def _python_function(operation: str, overload: str) -> Callable[..., Any]:
    """The function of torch that networks call for an ATen operation, so that its site has the usual name."""
    if operation in _OWN:
        return _OWN[operation]
    for holder in (torch, torch._C._nn, Tensor):
        function = getattr(holder, _SPELLED.get(operation, operation), None)
        if function is not None and not isinstance(function, property):
            return function
    return getattr(getattr(torch.ops.aten, operation), overload)
