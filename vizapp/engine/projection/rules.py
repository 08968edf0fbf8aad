"""Rules by which signals go back from a unit to the pixels: deconvnet, guided backpropagation, gradient.

A rule decides, for each family of operations, what the signal at the output becomes at the input. Linear operations
transpose it, max pools send it to their switches, and the rules of the three papers differ at the rectifier. The papers
do not cover every operation of today's networks:

- Other activations (ReLU6, SiLU, GELU …) get the rectifier's rule, or their true derivative without `extended`.
- A gate (squeeze and excitation, Highway) is held constant, or differentiated with `gates="derivative"`.
- Local response norm is passed as the identity, or differentiated with `response_norm="derivative"`.
- A custom autograd function gets its own backward pass. If that is the derivative of its forward pass, the operations of
  the forward pass get their rules instead.
- A ReLU of the negated numbers, min(x, 0), gets the rectifier's rule between two negations.
- Everything else gets its true derivative. So do clamps that keep a divisor, a root or a logarithm from zero, and divisions
  by values of the picture.

An activation is one however it is written (see `elementwise`), and so is a gate (see `gates`). Masks and indices pass no
signal; what they switch is differentiated.

`Certificate` counts how often each was used. A new rule is one subclass of `Rule`: it overrides the families that its
paper treats differently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vizapp.engine.call_arguments import argument, tensors_in
from vizapp.engine.operations import (
    ACTIVATIONS,
    BILINEAR,
    CLAMPS,
    DROPOUTS,
    FLAT,
    IDENTITIES,
    LINEAR,
    LINEAR_IN_FIRST,
    RECTIFIERS,
    SUMS_WITH_PRODUCTS,
    WEIGHTED,
)  # fmt: skip
from vizapp.engine.projection.elementwise import Elementwise, elementwise, guards
from vizapp.engine.projection.gates import Gates, as_division, gates_of
from vizapp.engine.projection.max_pools import UNPOOLS, Overlap, is_max_pool, pool_with_switches, unpool
from vizapp.engine.projection.transposes import derivative, transpose_linear, transpose_sum, windowed_transpose
from vizapp.engine.projection.windowed_signal import (
    Signal,
    WindowedSignal,
    as_signal,
    as_tensor,
    map_values,
    scale,
    sum_to_shape,
)  # fmt: skip
from vizapp.engine.trace.recording import Call, GateOrigin, Step, ValueRef
from vizapp.errors import VizError

Shapes = list[tuple[int, ...]]
RuleName = Literal["deconvnet", "guided", "gradient"]
# Which part of a rule an operation falls under; "activation" is any but the rectifier, "slope" one that is differentiated.
Family = Literal[
    "rectifier",
    "activation",
    "slope",
    "max pool",
    "max unpool",
    "gate",
    "identity",
    "linear",
    "flat",
    "custom",
    "other",
]
# The fields of a Certificate.
Counted = Literal["paper", "extended", "differentiated", "switches", "gates", "custom", "detached"]


@dataclass(frozen=True)
class Rule(ABC):
    """What the rules share. A subclass says what a rectifier passes on, and may override any other family.

    `capture` runs during the forward pass, `backward` for each step on the way back.
    """

    pools: Overlap = "sum"
    response_norm: Literal["identity", "derivative"] = "identity"
    gates: Literal["held", "derivative"] = "held"
    extended: bool = True

    rectifiers_count_as: ClassVar[Counted] = "paper"

    # ------------------------------------------------------------------------------------------------ forward pass

    def capture(self, call: Call) -> tuple[dict[str, Any], Any]:
        """Run an operation unchanged; what its backward step needs (`Step.ctx`), and its output."""
        return self.run(*self.classify(call), call)

    def classify(self, call: Call) -> tuple[Family, dict[str, Any]]:
        """The family of an operation that is about to run, and what its backward step needs to know of that."""
        family = self.family(call)
        if family in {"other", "linear", "activation", "slope", "max pool"}:
            return self._written_out(family, call)
        return family, {}

    def run(self, family: Family, ctx: dict[str, Any], call: Call) -> tuple[dict[str, Any], Any]:
        """Run an operation of that family; what its backward step needs, and its output."""
        if family == "max pool":
            more, output = pool_with_switches(call)
        else:
            more, output = _before(family, call, ctx), call.run()  # in this order: the operation may work in place
        result = output
        if "merged" in ctx:
            result = next(iter(tensors_in(call.args[0] if output is None else output))) * (-1 if ctx["negated"] else 1)
        kept = self.keep(family, call, result)
        return {"family": family, **ctx, **more, **kept}, output

    def _written_out(self, family: Family, call: Call) -> tuple[Family, dict[str, Any]]:
        """The family of an operation that completes an activation or a gate, and what its backward step needs to know of that.

        If it completes an activation, the signal goes from it to what the activation reads, past the operations between.
        """
        gates = gates_of(call) if family == "other" and self.gates == "held" else None
        ctx: dict[str, Any] = {}
        if isinstance(gates, Gates):
            family, ctx = "gate", {"gate": gates.places, "count": gates.number}
        elif gates is not None:
            ctx = {"origin": gates}
        if family == "other" and (division := as_division(call)) is not None:
            ctx |= division
        found = elementwise(call)
        if found is None:
            return family, ctx
        if found.kind == "squashing":
            ctx = {"origin": GateOrigin(1, True)}
        became = self._family_of(found, family, call)
        if became is None or (became == family == "activation" and call.step.inputs == (found.root,)):
            return family, ctx
        if became == "other":
            return became, {}
        call.step.inputs, call.step.dtypes = (found.root,), (call.recording.dtypes[found.root],)
        ctx = {"merged": True, "negated": found.kind == "negated relu", "clamp": found.kind == "clamp"} | ctx
        if became == "slope":
            root = call.recording.tensor_of(found.root)
            assert root is not None
            ctx["slope"] = root.sign()
        return became, ctx

    def _family_of(self, found: Elementwise, family: Family, call: Call) -> Family | None:
        """The family of a function of each number; None if its operations keep their own."""
        if found.kind == "identity":
            return "identity"
        if found.kind in {"relu", "negated relu"}:
            return "rectifier"
        if found.kind == "absolute":  # rectifiers of both signs would cancel out
            return "slope" if call.recording.tensor_of(found.root) is not None else None
        if found.kind == "unknown" and family != "gate":
            return None
        if self.extended:
            return "activation"
        return "other" if family == "gate" else None

    def family(self, call: Call) -> Family:
        """Which part of the rule the operation falls under."""
        name = call.operation
        if _is_random(call):
            raise VizError(
                f"This network draws new random numbers on every pass ({name}), although it is set to evaluation. A projection "
                "needs a network that gives one answer: F.dropout, for one, takes training=self.training.",
                code="random-network",
            )
        if name in {"grad", "backward"}:
            raise VizError(
                "This network computes gradients inside its forward pass. Signals cannot be sent back through that.",
                code="no-derivative",
            )
        if is_max_pool(call) or name in UNPOOLS:
            return "max unpool" if name in UNPOOLS else "max pool"
        if name in ACTIVATIONS and call.depends_on_input_alone:
            return "rectifier" if name in RECTIFIERS else "activation" if self.extended else "slope"
        if name in IDENTITIES or (name == "local_response_norm" and self.response_norm == "identity"):
            return "identity"
        if self.gates == "held" and name == "glu":
            return "gate"
        return "flat" if name in FLAT else "linear" if _is_linear(call) else "other"

    def keep(self, family: Family, call: Call, output: Any) -> dict[str, Any]:
        """What else of the forward pass the rule needs. Clone what a later in-place operation could overwrite."""
        return {}

    def refine(self, steps: list[Step]) -> None:
        """Correct the steps of a whole pass where what follows shows what they are for: clamps that guard a division."""
        for step in guards(steps):
            if step.ctx.get("family") == "activation":
                step.ctx["family"] = "other"
                step.inputs = step.reads
                step.dtypes = tuple(tensor.dtype for tensor in step.ctx["at"])
        for step in steps:
            if step.ctx.get("family") in {"activation", "slope"}:
                step.ctx.pop("at", None)

    # ----------------------------------------------------------------------------------------------- backward pass

    def backward(
        self, step: Step, signals: list[Signal | None], shapes: Shapes
    ) -> tuple[list[Signal | None], str | None]:
        """The signals at the inputs of a step, in the order of `step.inputs`, and what the step counts as.

        `signals` are those at its outputs (None: zero). `shapes[v]` is the shape of value v.
        """
        family, signal = step.ctx["family"], signals[0]
        if family == "flat":
            return [None] * len(step.inputs), "differentiated"
        if family == "max pool" and signal is not None:
            return [unpool(step, signal, shapes, self.pools)], "switches"
        if (len(signals) == 1 or "merged" in step.ctx) and signal is not None:
            if family in {"rectifier", "activation"}:
                sign = -1 if step.ctx.get("negated") else 1
                below = self.rectifier(_times(signal, sign), step)
                return [_times(below, sign)], self.rectifiers_count_as if family == "rectifier" else "extended"
            if family == "slope":
                return [scale(signal, step.ctx["slope"])], "differentiated"
            if family == "gate":
                return self.gate(signal, step, shapes), "gates"
            if family == "identity":
                return self.identity(signal, step), None
            if family == "linear":
                return self.linear(signal, step, shapes), None
        counted: Mapping[str, Counted] = {"other": "differentiated", "max unpool": "switches", "custom": "custom"}
        return derivative(step, signals, shapes), counted.get(family)

    @abstractmethod
    def rectifier(self, signal: Signal, step: Step) -> Signal:
        """The signal below a rectifier (or, with `extended`, another activation)."""

    def linear(self, signal: Signal, step: Step, shapes: Shapes) -> list[Signal | None]:
        """The signals below a convolution, a linear layer, a batch norm, a sum …: by the transpose."""
        found = windowed_transpose(step, signal, shapes) if isinstance(signal, WindowedSignal) else None
        if found is not None:
            return found
        if step.operation == "linear" and step.depends_on_input_alone:
            return [transpose_linear(step, signal, shapes)]
        same = all(shapes[value] == shapes[step.outputs[0]] for value in step.inputs)
        if step.operation.rstrip("_") in {"add", "sub"} and same:
            return transpose_sum(step, signal)
        return derivative(step, [signal], shapes)

    def gate(self, signal: Signal, step: Step, shapes: Shapes) -> list[Signal | None]:
        """The signals below a product with a gate, which is taken for a constant factor."""
        product = shapes[step.outputs[0]]
        if "dim" in step.ctx:  # of a gated linear unit
            dim = step.ctx["dim"] % len(product) + 1
            values = as_tensor(signal, product) * step.ctx["held"]
            return [as_signal(torch.cat([values, torch.zeros_like(values)], dim), shapes[step.inputs[0]])]
        if "at" in step.ctx:
            given = derivative(step, [signal], shapes)
            return [None if place in step.ctx["gate"] else below for place, below in enumerate(given)]
        (gate,) = step.ctx["gate"]
        gated = 1 - gate
        below: list[Signal | None] = [None, None]
        below[gated] = sum_to_shape(scale(signal, step.ctx["held"]), product, shapes[step.inputs[gated]])
        return below

    def identity(self, signal: Signal, step: Step) -> list[Signal | None]:
        """The signals below an operation that changes nothing; `x.to(y)` reads y for its type alone."""
        if "merged" in step.ctx:
            return [signal]
        passes = isinstance(argument(step.args, step.kwargs, 0, "input", None), ValueRef)
        return [*[signal] * passes, *[None] * (len(step.inputs) - passes)]


# ----------------------------------------------------------------------------------------------------- one per paper


class Deconvnet(Rule):
    """Zeiler & Fergus 2013, section 2.1: "we pass the reconstructed signal through a relu non-linearity"."""

    def rectifier(self, signal: Signal, step: Step) -> Signal:
        return _positive(signal)


class GuidedBackprop(Rule):
    """Springenberg et al. 2014, section 3.4: passes the positive signal where the unit itself was active, too."""

    def keep(self, family: Family, call: Call, output: Any) -> dict[str, Any]:
        return _active(family, output)

    def rectifier(self, signal: Signal, step: Step) -> Signal:
        return scale(_positive(signal), step.ctx["active"])


@dataclass(frozen=True)
class Gradient(Rule):
    """Simonyan et al. 2013, section 3: the derivative of the unit by the pixels. Only the pools leave a choice."""

    response_norm: Literal["identity", "derivative"] = field(default="derivative", init=False)
    gates: Literal["held", "derivative"] = field(default="derivative", init=False)
    extended: bool = field(default=False, init=False)

    rectifiers_count_as: ClassVar[Counted] = "differentiated"

    def keep(self, family: Family, call: Call, output: Any) -> dict[str, Any]:
        return _active(family, output)

    def rectifier(self, signal: Signal, step: Step) -> Signal:
        return scale(signal, step.ctx["active"])


RULES: Mapping[str, type[Rule]] = {"deconvnet": Deconvnet, "guided": GuidedBackprop, "gradient": Gradient}


def rule_named(name: str, **options: Any) -> Rule:
    """The rule of that name, one of `RULES`, with those of the options that it has (see the fields of `Rule`)."""
    rule = RULES[name]
    known = {option.name for option in fields(rule) if option.init}
    return rule(**{key: value for key, value in options.items() if key in known})


# ------------------------------------------------------------------------------------------------------ forward values


def _active(family: Family, output: Any) -> dict[str, Any]:
    return {"active": output > 0} if family in {"rectifier", "activation"} else {}


def _positive(signal: Signal) -> Signal:
    return map_values(signal, lambda values: values.clamp_min(0))


def _times(signal: Signal, sign: int) -> Signal:
    return signal if sign == 1 else map_values(signal, lambda values: values * sign)


def _before(family: Family, call: Call, known: dict[str, Any]) -> dict[str, Any]:
    """What is needed of the inputs, before the operation can overwrite them."""
    ctx: dict[str, Any] = {"slope": _slope(call)} if family == "slope" and "slope" not in known else {}
    guards_maybe = family in {"activation", "slope"} and (call.operation in CLAMPS or known.get("clamp"))
    if "at" not in known and (family in {"other", "max unpool"} or guards_maybe):
        ctx["at"] = [tensor.clone() for tensor in call.inputs]
    if family == "gate" and call.operation == "glu":
        dim = argument(call.args, call.kwargs, 1, "dim", -1)
        return {"held": call.inputs[0].chunk(2, dim)[1].sigmoid(), "dim": dim}
    if family == "gate" and call.operation == "mul":
        (gate,) = known["gate"]
        return {"held": call.inputs[gate].clone()}
    return _before("other", call, known) if family == "gate" else ctx


def _is_linear(call: Call) -> bool:
    """Whether an operation is linear in the inputs that depend on the picture, given all others."""
    args, kwargs, name = call.args, call.kwargs, call.operation
    if not all(call.sloped):  # a mask or index that depends on the picture switches
        return name in {"add", "sub", "cat", "stack"}
    if name in WEIGHTED:
        factors = [argument(args, kwargs, position, key, None) for position, key in enumerate(("input", "weight"))]
        return not all(any(factor is tensor for tensor in call.inputs) for factor in factors)
    if name in BILINEAR:
        return len(call.inputs) == 1
    if name in SUMS_WITH_PRODUCTS:
        return sum(any(factor is tensor for tensor in call.inputs) for factor in (*args[1:3], *kwargs.values())) < 2
    if name == "lerp":
        weight = argument(args, kwargs, 2, "weight", None)
        return len(call.inputs) == 1 or all(tensor is not weight for tensor in call.inputs)
    if name == "truediv":
        divides = any(argument(args, kwargs, 1, "other", None) is tensor for tensor in call.inputs)
        return not divides and not kwargs.get("rounding_mode")
    if name in LINEAR_IN_FIRST:
        return call.depends_on_input_alone
    if name == "where":  # of a constant condition
        return True
    if name == "batch_norm":
        return call.depends_on_input_alone and not argument(args, kwargs, 5, "training", False)
    return name in LINEAR and not kwargs.get("reduce")


def _is_random(call: Call) -> bool:
    """Whether the operation draws a new mask on every pass: dropout that is left on."""
    args, kwargs, name = call.args, call.kwargs, call.operation
    if name in DROPOUTS:
        on = argument(args, kwargs, 2, "training", kwargs.get("train", "alpha" not in name))
        return bool(on) and argument(args, kwargs, 1, "p", 0.5) > 0
    if name == "rrelu":
        return bool(argument(args, kwargs, 3, "training", False))
    if name in {"multi_head_attention_forward", "scaled_dot_product_attention"}:
        on = name == "scaled_dot_product_attention" or argument(args, kwargs, 13, "training", True)
        position = 4 if name == "scaled_dot_product_attention" else 10
        return bool(on) and argument(args, kwargs, position, "dropout_p", 0.0) > 0
    return name == "gumbel_softmax"


def _slope(call: Call) -> Tensor:
    """The derivative of an elementwise function at its input."""
    with torch.enable_grad():
        at = argument(call.args, call.kwargs, 0, "input", None).detach().clone().requires_grad_()
        kwargs = {name: value for name, value in call.kwargs.items() if name != "input"}
        value = call.function(at.clone(), *call.args[1:], **kwargs)
        return torch.autograd.grad(value.sum(), at)[0]
