"""The heads of a network: which of the tensors that it returns are class scores, and how they become probabilities.

Both are found in one pass, from the operations that made the tensors: their last operation is a softmax, say, or one
tensor is computed from another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import ACTIVATIONS, IDENTITIES, SHAPE_ONLY, WEIGHTED
from vizapp.engine.tap import Trace, operation_name

Link = Literal["softmax", "sigmoid"]
Scale = Literal["logits", "probabilities", "log-probabilities"]

_RESHAPES = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "select", "chunk", "split",
                       "unbind", "narrow", "getattr"})  # fmt: skip
_SAME = IDENTITIES | _RESHAPES
_MEANS = frozenset({"mean", "stack", "cat", "concat"})
_POOLS = frozenset({"mean", "adaptive_avg_pool2d", "avg_pool2d"})  # of features, or of class maps
_FEATURES = frozenset(ACTIVATIONS) | {"normalize", "layer_norm", "batch_norm"}
_PREFERRED = ("logits", "scores", "out")  # keys of class scores among others
_SUM_ERROR = 2e-2  # of probabilities in bfloat16


@dataclasses.dataclass(frozen=True)
class Head:
    """Class scores in what a network returns.

    `name` is the key or index of the tensor in a dict or tuple ("" if it is returned alone). `layers` are the operations
    that compute it, from the last weighted one on. `link` turns logits into probabilities: over all classes together
    (softmax), or for each class by itself (sigmoid). `scale` says what the network returns.
    """

    name: str
    path: tuple[str | int, ...]
    classes: int
    layers: tuple[str, ...]
    link: Link
    scale: Scale = "logits"
    features: bool = False  # whether it ends as features do, in an activation, a norm or a mean

    def pick(self, output: Any) -> Tensor | None:
        """The tensor in what the network returned; None if it is not there."""
        for key in self.path:
            try:
                output = getattr(output, key) if _is_record(output) and isinstance(key, str) else output[key]
            except (LookupError, TypeError, AttributeError):
                return None
        return output if isinstance(output, Tensor) else None

    def logits(self, scores: Tensor) -> Tensor:
        """Logits `[N classes]` of the network's scores `[N classes]`: those whose `link` gives the network's probabilities.

        Behind a softmax they are logarithms of probabilities, which differ from the softmax's input by the same number for
        all classes of a picture. Probabilities that are rounded to 0 (or 1) give a large finite number.
        """
        if self.scale == "logits" or (self.scale == "log-probabilities" and self.link == "softmax"):
            return scores
        limits = torch.finfo(scores.dtype)
        chance = scores.exp() if self.scale == "log-probabilities" else scores
        if self.link == "softmax":
            return chance.clamp_min(limits.tiny).log()
        return chance.clamp(limits.tiny, 1 - limits.eps / 2).logit()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of logits `[N classes]`."""
        return logits.softmax(1) if self.link == "softmax" else logits.sigmoid()

    @property
    def description(self) -> str:
        """Which scores these are and how they become probabilities, in a sentence."""
        of = f"{self.classes} classes" if self.classes > 1 else "one class"
        given = {
            "logits": f"logits; probabilities are their {self.link}",
            "probabilities": f"probabilities, by a {self.link} inside the network; logits are computed from them",
            "log-probabilities": "logarithms of probabilities",
        }[self.scale]
        each = ", each class by itself" if self.link == "sigmoid" and self.classes > 1 else ""
        return f"{of}: {given}{each}."


def find_heads(module: nn.Module, batch: Tensor) -> tuple[Head, ...]:
    """The heads of a network, the most likely class scores first, from a pass over `batch` `[1 C H W]`.

    Class scores are floating-point tensors `[N]`, `[N classes]` or `[N classes 1 1]`, alone or inside tuples, dicts and
    dataclasses. Of several, tensors from which others are computed are features and come last; keys such as "logits" and
    results of weighted layers come before activations, norms and means. A second tensor that is only the softmax or
    sigmoid of another is no head; it decides the link of the other. The link of one logit is the sigmoid.
    """
    batch = batch.clone()
    with torch.no_grad(), _Graph(module, batch) as graph:
        output = module(batch)
    found = [(path, tensor) for path, tensor in _parts(output, ()) if class_scores(tensor, len(batch)) is not None]
    nodes = {path: graph.node(tensor) for path, tensor in found}
    shapes = {path: tensor.shape for path, tensor in found}
    heads: list[tuple[tuple[int, ...], Head]] = []
    for path, tensor in found:
        later = [other for other in nodes if other != path and nodes[path] in graph.sources(nodes[other])]
        views = [other for other in later if _is_view_of(graph, nodes[other], nodes[path])]
        squashed = [other for other in views if shapes[other] == shapes[path] and graph.kinds[nodes[other]]]
        if any(_is_view_of(graph, nodes[path], nodes[other]) and graph.kinds[nodes[path]] and shapes[other] == shapes[path]
               for other in nodes if other != path and nodes[other] in graph.sources(nodes[path])):  # fmt: skip
            continue
        kind = _checked_kind(graph.kinds[nodes[path]], class_scores(tensor, len(batch)))
        classes = tensor.shape[1:].numel()
        decided = graph.kinds[nodes[squashed[0]]] if squashed else kind
        link: Link = "sigmoid" if "sigmoid" in decided or (classes == 1 and not decided) else "softmax"
        scale: Scale = "logits" if not kind else "log-probabilities" if kind.startswith("log ") else "probabilities"
        name = ".".join(map(str, path))
        last, peers = graph.last_operation(nodes[path]), [shape[1:].numel() for shape in shapes.values()]
        features = not kind and (last in _FEATURES or (last in _POOLS and peers.count(classes) == 1))
        head = Head(name, path, classes, graph.layers(nodes[path]), link, scale, features)
        rank = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
        heads.append(((len(later) > len(views), rank, features), head))
    return tuple(head for _, head in sorted(heads, key=lambda ranked: ranked[0]))


def class_scores(output: Any, pictures: int) -> Tensor | None:
    """The scores `[N classes]` in a tensor `[N]`, `[N classes]` or `[N classes 1 1]`; None if it is something else."""
    if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != pictures or not output.is_floating_point():
        return None
    return (output.flatten(1) if output.ndim > 1 else output[:, None]) if output.shape[2:].numel() == 1 else None


def _parts(output: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The tensors in what a network returned, with their keys."""
    if isinstance(output, Tensor):
        yield path, output
        return
    items: Any = ()
    if isinstance(output, Mapping):
        items = output.items()
    elif _is_record(output):
        names = getattr(output, "_fields", None) or [field.name for field in dataclasses.fields(output)]
        items = [(name, getattr(output, name)) for name in names]
    elif isinstance(output, (tuple, list)) and not all(isinstance(item, Mapping) for item in output):
        items = enumerate(output)  # a list of dicts is a dict for each picture, as of detection networks
    for key, item in items:
        yield from _parts(item, (*path, key))


def _is_record(output: Any) -> bool:
    """Whether it is a named tuple or a dataclass that is no dict."""
    return (hasattr(output, "_fields") or dataclasses.is_dataclass(output)) and not isinstance(output, Mapping)


def _is_view_of(graph: _Graph, later: int, earlier: int) -> bool:
    """Whether a tensor is another one, squashed or in another shape."""
    while later > earlier:
        if graph.operations[later] not in _SAME and not (graph.kinds[later] and len(set(graph.inputs[later])) == 1):
            return False
        later = graph.inputs[later][0]
    return later == earlier


def _checked_kind(kind: str, scores: Tensor | None) -> str:
    """The kind, if the scores bear it out: the axis of a softmax or of a division by a sum is not followed."""
    if not kind or "sigmoid" in kind or scores is None:
        return kind
    chance = scores.double().exp() if kind.startswith("log ") else scores.double()
    sums = bool((chance >= 0).all()) and bool(((chance.sum(1) - 1).abs() < _SUM_ERROR).all())
    return kind.replace("share", "softmax") if sums else ""


class _Graph(Trace):
    """The operations of a pass that depend on the picture: for each the number of the operations that it reads, and its kind.

    A kind is "softmax", "sigmoid", "share" (a division by something computed from the picture), one of these behind "log ",
    or "" for anything else.
    """

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        super().__init__(module)
        self.names, self.operations, self.inputs, self.kinds = [""], [""], [()], [""]  # type: tuple[Any, Any, Any, Any]
        self._numbers = WeakTensorKeyDictionary()
        self._numbers[batch] = 0

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [tensor for tensor in tensors_in((args, kwargs)) if tensor in self._numbers]
        operation = operation_name(function).rstrip("_")
        numbers = tuple(self._numbers[tensor] for tensor in given)
        output = function(*args, **kwargs)
        if not given or operation in SHAPE_ONLY:
            return output
        self.names.append(name)
        self.operations.append(operation)
        self.inputs.append(numbers)
        self.kinds.append(_kind(operation, [self.kinds[number] for number in numbers]))
        for result in tensors_in(args[0] if operation == "setitem" else output):
            if operation == "setitem" or any(result is tensor for tensor in given):
                self._overwrite(result)
            self._numbers[result] = len(self.names) - 1
        return output

    def _overwrite(self, written: Tensor) -> None:
        """Views of the same memory have the new values, too."""
        memory = written.untyped_storage()._cdata
        for other in list(self._numbers.keys()):
            if other.untyped_storage()._cdata == memory:
                self._numbers[other] = len(self.names) - 1

    def node(self, tensor: Tensor) -> int:
        """The number of the operation that made a tensor; 0 if it does not depend on the picture, or is the picture."""
        return int(self._numbers.get(tensor, 0))

    def sources(self, number: int) -> set[int]:
        """The numbers of all operations that an operation depends on."""
        found: set[int] = set()
        left = list(self.inputs[number])
        while left:
            source = left.pop()
            if source not in found:
                found.add(source)
                left.extend(self.inputs[source])
        return found

    def last_operation(self, number: int) -> str:
        """The operation that computed the numbers, not their shape."""
        while self.operations[number] in _SAME:
            number = self.inputs[number][0]
        return str(self.operations[number])

    def layers(self, number: int) -> tuple[str, ...]:
        """The operations that an operation depends on and itself, from the last weighted one on."""
        found = sorted({number, *self.sources(number)} - {0})
        weighted = [source for source in found if self.operations[source] in WEIGHTED]
        return tuple(dict.fromkeys(self.names[source] for source in found if source >= max(weighted, default=0)))


def _kind(operation: str, kinds: list[str]) -> str:
    """The kind of the result of an operation on values of these kinds."""
    first = kinds[0]
    if operation in {"softmax", "softmin"}:
        return "softmax"
    if operation in {"sigmoid", "hardsigmoid", "special_expit"}:
        return "sigmoid"
    if operation in {"log_softmax", "log_sigmoid", "logsigmoid"}:
        return f"log {operation[-7:]}"
    if operation in {"log", "exp"}:
        return first.removeprefix("log ") if operation == "exp" else f"log {first}" if first else ""
    if operation in _SAME or (operation in _MEANS and set(kinds) == {first} and not first.startswith("log ")):
        return first
    if operation == "mul" and kinds == ["sigmoid", "sigmoid"]:
        return "sigmoid"
    if operation in {"add", "mul", "truediv"} and set(kinds) == {"softmax"}:  # a mean; its sum is checked at the end
        return "softmax"
    return "share" if operation == "normalize" or (operation == "truediv" and len(kinds) == 2) else ""
