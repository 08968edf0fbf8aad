"""The heads of a network: which of the tensors that it returns are class scores, and how they become probabilities.

Which tensor is computed from which is read from the operations of one pass; whether it holds probabilities, from its numbers
(`output_scale`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vizapp.engine.call_arguments import tensors_in
from vizapp.engine.operations import ACTIVATIONS, IDENTITIES, SHAPE_ONLY, SQUASHING, WEIGHTED
from vizapp.engine.tap import Trace, operation_name
from vizapp.engine.trace import output_scale
from vizapp.engine.trace.forward_override import override_forward
from vizapp.engine.trace.output_scale import Key, Link, Scale, VariedPasses, class_scores
from vizapp.errors import VizError

Probabilities = Literal["softmax", "sigmoid", "none"]  # what the caller says is applied to the scores

_RESHAPES = frozenset({"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "select", "chunk", "split",
                       "unbind", "narrow", "getattr"})  # fmt: skip
_SAME = IDENTITIES | _RESHAPES
_POOLS = frozenset({"mean", "adaptive_avg_pool2d", "avg_pool2d"})  # of features, or of class maps
_FEATURES = frozenset(ACTIVATIONS) | {"normalize", "layer_norm", "batch_norm"}
_PREFERRED = ("logits", "scores", "out")  # keys of class scores among others
_EMBEDDINGS = frozenset({"normalize", "layer_norm", "batch_norm"})  # what embeddings end in, and class scores do not
_LOGARITHMS = {"log", "log1p", "log_softmax", "logsigmoid", "log_sigmoid", "logaddexp", "logsumexp", "softplus"}


@dataclasses.dataclass(frozen=True)
class Head:
    """Class scores in what a network returns.

    `name` is the module's own name of it (`head_names`, one per item of the tuple that it returns), else the key or index of
    the tensor in a dict or tuple ("" if it is returned alone). `layers` are the operations that compute it, from the last
    weighted one on; `below`, all before these that it depends on. `answers`: it is no features, and not the probabilities of
    another head. `link` turns logits into probabilities: over all classes
    together (softmax), or for each class by itself (sigmoid). `scale` says what the network returns; `declared`, that the
    caller said so. `embedding`: it ends in a norm, as embeddings do.
    """

    name: str
    path: Key
    classes: int
    layers: tuple[str, ...]
    link: Link
    scale: Scale = "logits"
    features: bool = False  # whether it ends as features do, in an activation, a norm or a mean
    declared: bool = False
    answers: bool = True
    embedding: bool = False
    below: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)

    @property
    def key(self) -> str:
        """The key or index of the tensor, `a.1` if it is nested; "" if it is returned alone."""
        return ".".join(map(str, self.path))

    def pick(self, output: Any) -> Tensor | None:
        """The tensor in what the network returned; None if it is not there."""
        return output_scale.pick(output, self.path)

    def declare(self, probabilities: Probabilities) -> Head:
        """The head with probabilities as the caller says: a softmax or sigmoid of its scores, or "none", the scores.

        Raises:
            VizError: it returns something else, as far as could be found out.
        """
        returned = ""
        if probabilities == "none":
            if self.scale == "logits":
                return dataclasses.replace(self, scale="probabilities", link="sigmoid", declared=True)
            returned = "logarithms of probabilities" if self.scale == "log-probabilities" else ""
        elif self.classes == 1 and probabilities == "softmax":
            returned = "a single score, whose softmax is always 1"
        elif self.scale == "logits":
            return dataclasses.replace(self, link=probabilities)
        elif self.link != probabilities:
            returned = f"probabilities that {'' if self.link == 'softmax' else 'do not '}sum to 1"
        if returned:
            raise _contradiction(probabilities, returned)
        return self

    def logits(self, scores: Tensor) -> Tensor:
        """Logits `[N classes]` of the network's scores `[N classes]`: those whose `link` gives the network's probabilities.

        Behind a softmax they are logarithms of probabilities, which differ from the softmax's input by the same number for
        all classes of a picture. Probabilities that are rounded to 0 (or 1) give a large finite number.

        Raises:
            VizError: the caller said that the scores are probabilities, and they are not between 0 and 1.
        """
        if self.declared and not output_scale.are_inside(scores, output_scale.rounding(scores.dtype)):
            raise _contradiction("none", f"scores from {float(scores.min()):.4g} to {float(scores.max()):.4g}")
        if self.scale == "logits" or (self.scale == "log-probabilities" and self.link == "softmax"):
            return scores
        limits = torch.finfo(scores.dtype)
        chance = output_scale.as_chance(self.scale, scores)
        if self.link == "softmax":
            return chance.clamp_min(limits.tiny).log()
        return chance.clamp(limits.tiny, 1 - limits.eps / 2).logit()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of logits `[N classes]`."""
        return output_scale.apply_link(self.link, logits)

    @property
    def description(self) -> str:
        """Which scores these are and how they become probabilities, in a sentence."""
        of = f"{self.classes} classes" if self.classes > 1 else "one class"
        given = {
            "logits": f"logits; probabilities are their {self.link}" if self.link != "identity" else "a score",
            "probabilities": "probabilities as the network returns them; logits are computed from them",
            "log-probabilities": "logarithms of probabilities",
        }[self.scale]
        each = ", each class by itself" if self.link == "sigmoid" and self.classes > 1 else ""
        return f"{of}: {given}{each}."


def find_heads(module: nn.Module, batch: Tensor) -> tuple[Head, ...]:
    """The heads of a network, the most likely class scores first, from a pass over `batch` `[1 C H W]`.

    Class scores are floating-point tensors `[N]`, `[N classes]` or `[N classes 1 1]`, alone or inside tuples, dicts and
    dataclasses. Of several, tensors from which others are computed are features and come last; keys such as "logits" and
    results of weighted layers come before activations, norms and means. A second tensor that is only the softmax or
    sigmoid of another comes after it and decides its link. The link of one logit is the sigmoid.
    """
    first = batch.clone()
    with torch.no_grad(), _Graph(module, first) as graph:
        output = module(first)
    found = {path: tensor for path, tensor in _parts(output, ()) if class_scores(tensor, len(batch)) is not None}
    nodes = {path: graph.node(tensor) for path, tensor in found.items()}
    sizes = {path: tensor.shape[1:].numel() for path, tensor in found.items()}
    tails = {path: graph.tail(node) for path, node in nodes.items()}
    weighted = frozenset(name for tail in tails.values() for name, operation in tail if operation in WEIGHTED)
    passes = VariedPasses(module, batch, found, weighted)
    scales = {path: passes.scale(path, any(name in _LOGARITHMS for _, name in tail)) for path, tail in tails.items()}
    links: dict[tuple[Key, Key], Link] = {}
    for logits, other in itertools.permutations(nodes, 2):
        link = passes.link(logits, other, scales[other][0]) if scales[logits][0] != "probabilities" else None
        if link is not None:
            links[logits, other] = link
    heads: list[tuple[tuple[int, ...], Head]] = []
    for path, node in nodes.items():
        scale, known = scales[path]
        own = {other: its for (logits, other), its in links.items() if logits == path}
        later = {other for other in nodes.keys() - own.keys() if other != path and node in graph.sources(nodes[other])}
        computed = {other for other in later if not _is_view_of(graph, nodes[other], node)}
        is_source = bool(computed)
        decided = known or next(iter(own.values()), None) or ("sigmoid" if sizes[path] == 1 else "softmax")
        last, peers = graph.last_operation(node), list(sizes.values()).count(sizes[path])
        features = scale == "logits" and (last in _FEATURES or (last in _POOLS and peers == 1))
        name = _name(module, output, path)
        rank = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
        is_second = any(other == path for _, other in links)
        layers = graph.layers(node)
        below = frozenset(graph.names[source] for source in graph.sources(node)).difference(layers)
        # Of the same number of classes, it is no features: heads are averaged, or fused.
        answers = not (is_second or features) and all(sizes[other] == sizes[path] for other in computed)
        head = Head(
            name, path, sizes[path], layers, decided, scale, features, answers=answers, below=below,
            embedding=scale == "logits" and last in _EMBEDDINGS,
        )  # fmt: skip
        heads.append(((is_source, is_second, rank, features), head))
    return tuple(head for _, head in sorted(heads, key=lambda ranked: ranked[0]))


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """Scores of classes at each cell in what a network returns, a tensor `[N classes h w]`.

    `head`: its name and key, and what the scores of a cell are, as for class scores. `shape`: classes, height and width.
    """

    head: Head
    shape: tuple[int, int, int]

    def logits(self, output: Any) -> Tensor | None:
        """The logits `[N classes h w]` in what the network returned; None if the map is not there."""
        found = self.head.pick(output)
        return None if found is None or found.ndim != 4 else self.head.logits(found)


def find_class_maps(module: nn.Module, batch: Tensor) -> tuple[ClassMap, ...]:
    """The class maps that a network returns, the most likely first, from a pass over `batch` `[1 C H W]`.

    They are floating-point tensors `[N classes h w]` with several cells that are computed from the picture and do not end in
    a rectifier or a norm, as features do. Keys such as "logits" and "out" come first. The link and scale of a map are those
    of its mean over all cells.
    """
    first = batch.clone()
    with torch.no_grad(), _Graph(module, first) as graph:
        output = module(first)
    found = []
    for path, tensor in _parts(output, ()):
        if not tensor.is_floating_point() or tensor.ndim != 4 or tensor.shape[2:].numel() < 2:
            continue
        node = graph.node(tensor)
        if len(tensor) != len(batch) or not node or graph.last_operation(node) in _FEATURES - SQUASHING:
            continue
        name = _name(module, output, path)
        rank = _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)
        found.append((rank, name, path, (tensor.shape[1], tensor.shape[2], tensor.shape[3])))
    return tuple(
        ClassMap(dataclasses.replace(_head_of_mean(module, batch, path), name=name, path=path), shape)
        for _, name, path, shape in sorted(found, key=lambda ranked: ranked[0])
    )


def _head_of_mean(module: nn.Module, batch: Tensor, path: Key) -> Head:
    """The head of a network that returns the mean of a class map over its cells."""

    def mean(self: nn.Module, run: Callable[..., Any], batch: Tensor) -> Tensor:
        scores = output_scale.pick(run(batch), path)
        assert scores is not None, "a pass found it"
        return scores.mean((2, 3))

    def averaged(module: nn.Module) -> nn.Module:
        return override_forward(module, mean, averaged)

    return find_heads(averaged(module), batch)[0]


def _parts(output: Any, path: Key) -> Iterator[tuple[Key, Any]]:
    """The tensors in what a network returned, with their keys."""
    if isinstance(output, Tensor):
        yield path, output
        return
    items: Any = ()
    if isinstance(output, Mapping):
        items = output.items()
    elif output_scale.is_record(output):
        names = getattr(output, "_fields", None) or [field.name for field in dataclasses.fields(output)]
        items = [(name, getattr(output, name)) for name in names]
    elif isinstance(output, (tuple, list)) and not all(isinstance(item, Mapping) for item in output):
        items = enumerate(output)  # a list of dicts is a dict for each picture, as of detection networks
    for key, item in items:
        yield from _parts(item, (*path, key))


def _name(module: nn.Module, output: Any, path: Key) -> str:
    """The module's own name of a tensor in the tuple that it returned, else its key."""
    names = getattr(module, "head_names", None)
    if isinstance(names, tuple) and isinstance(output, tuple) and len(names) == len(output) and len(path) == 1:
        return str(names[int(path[0])])
    return ".".join(map(str, path))


def _is_view_of(graph: _Graph, later: int, earlier: int) -> bool:
    """Whether a tensor is another one, or a part of it, in another shape."""
    while later > earlier and graph.operations[later] in _SAME:
        later = graph.inputs[later][0]
    return later == earlier


def _contradiction(probabilities: str, kind: str) -> VizError:
    return VizError(
        f"probabilities={probabilities!r} does not fit: the network returns {kind}. Leave it out, or wrap a module that "
        "returns something else.",
        code="contradicting-probabilities",
    )


class _Graph(Trace):
    """The operations of a pass that depend on the picture, and for each the numbers of the operations that it reads."""

    def __init__(self, module: nn.Module, batch: Tensor) -> None:
        super().__init__(module)
        self.names, self.operations, self.inputs = [""], [""], [()]  # type: tuple[Any, Any, Any]
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
        for result in tensors_in(args[0] if operation == "setitem" else output):
            if operation == "setitem" or any(result is tensor for tensor in tensors_in((args, kwargs))):
                self._overwrite(result)
            self._numbers[result] = len(self.names) - 1
        return output

    def _overwrite(self, written: Tensor) -> None:
        """Views of the same memory have the new values, too, and so has what it is a view of (a padded batch)."""
        memory = written.untyped_storage()._cdata
        for other in [*self._numbers.keys(), written._base]:
            if other is not None and other.untyped_storage()._cdata == memory:
                self._numbers[other] = len(self.names) - 1

    def node(self, tensor: Tensor) -> int:
        """The number of the operation that made a tensor; 0 if it does not depend on the picture, or is the picture."""
        return int(self._numbers.get(tensor, 0))

    def sources(self, number: int, of: Container[str] = ()) -> set[int]:
        """The numbers of all operations that an operation depends on, back to the operations called `of`."""
        found: set[int] = set()
        left = [] if self.operations[number] in of else list(self.inputs[number])
        while left:
            source = left.pop()
            if source not in found:
                found.add(source)
                left.extend(() if self.operations[source] in of else self.inputs[source])
        return found

    def tail(self, number: int) -> set[tuple[str, str]]:
        """Names and functions of the operations from the last weighted ones to this one, without further ones between."""
        found = {number, *self.sources(number, WEIGHTED)}
        return {(self.names[source], self.operations[source]) for source in found}

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
