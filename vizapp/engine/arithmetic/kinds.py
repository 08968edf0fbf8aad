"""What the operations of a pass are to the arithmetic of one number: moved, changed by itself, or made of several."""

from __future__ import annotations

from vizapp.engine.operations import ACTIVATIONS, IDENTITIES, POINTWISE
from vizapp.engine.receptive_field.moves import MOVES
from vizapp.engine.trace.recording import Step, value_refs

JOINS = frozenset({"cat", "stack", "hstack", "vstack", "dstack", "row_stack", "column_stack"})
NORMS = frozenset({
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize",
})  # fmt: skip
_SELECT = frozenset({"overlay", "copy", "where", "masked_fill"})  # a number of one of those that they read
_MOVES = (MOVES - JOINS) | _SELECT | IDENTITIES
_STAGES = ((POINTWISE | ACTIVATIONS) - IDENTITIES - _SELECT - {"getattr"}) | NORMS
_WORDS = {
    "relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "leaky ReLU", "prelu": "PReLU", "rrelu": "RReLU", "elu": "ELU",
    "selu": "SELU", "celu": "CELU", "gelu": "GELU", "silu": "SiLU", "hardswish": "hard swish",
    "hardsigmoid": "hard sigmoid", "hardtanh": "hard tanh", "log_sigmoid": "log sigmoid", "logsigmoid": "log sigmoid",
    "clamp_min": "clamp", "clamp_max": "clamp", "rms_norm": "RMS norm", "mul": "times a constant",
    "truediv": "divided by a constant", "add": "plus a constant", "sub": "minus a constant",
    "rdiv": "a constant divided by it", "rsub": "subtracted from a constant", "neg": "negated",
}  # fmt: skip


def base_name(step: Step) -> str:
    """The operation of a step, without the `_` of one in place."""
    return step.operation.rstrip("_")


def words(step: Step) -> str:
    """The operation for people: `batch norm`, `ReLU`."""
    name = base_name(step)
    return _WORDS.get(name, name.replace("_", " "))


def is_move(step: Step) -> bool:
    """Whether each number of the result is one of the numbers read, or a constant."""
    return base_name(step) in _MOVES


def is_stage(step: Step) -> bool:
    """Whether each number of the result is a function of the number at its place (a norm: with the photo's statistics)."""
    return base_name(step) in _STAGES and len(list(value_refs((step.args, step.kwargs)))) == 1
