"""Sees every operation of a pass through any network, by name, without changing the network.

A `TorchFunctionMode` sees what hooks on modules do not: functional, in-place and reused operations. It belongs to one
thread and one `with` block and runs operations unchanged, so that several threads can trace one network at once. The
module that an operation belongs to is found on the Python stack (the innermost `Module.__call__`), without hooks.

It cannot see inside scripted and compiled modules (`vizapp.load` and `vizapp.wrap` refuse those), other threads
(`DataParallel`), and Python functions that torch overrides as a whole
(`F.multi_head_attention_forward` is one operation).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Container, Iterable
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vizapp.errors import VizError

# Torch 2.14.1 on the CPU: for one picture, the backward pass of these gives wrong numbers when the gradient is laid out in
# memory as tokens are, `[1 C h w]` with strides (C, 1, w·C, C), or channels last (instance norm).
_BATCH_NORMS = frozenset({"batch_norm", "instance_norm"})
_MODULE_CALL = nn.Module._call_impl.__code__
# torch.fx spells the operators as Python's `operator` module does; torch's own name of `x += y` is `add_`.
_FX_SPELLING = {"__get__": "getattr", "div": "truediv", "add_": "add", "sub_": "sub", "mul_": "mul", "div_": "truediv"}

_ATEN_BATCH_NORM = (
    "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled",
)  # fmt: skip


def operation_name(function: Callable[..., Any]) -> str:
    """The name of a torch function as torch.fx writes it: `relu`, `add`, `flatten`, `getitem`."""
    name = str(getattr(function, "__name__", type(function).__name__)).partition(".")[0]  # aten has relu.default
    name = _FX_SPELLING.get(name, name)
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        return name[1:] if name in {"radd", "rsub", "rmul", "rtruediv", "rpow", "rmatmul"} else name
    return name


def qualified_name(function: Callable[..., Any]) -> str:
    """The name of a function for rules: that of `operation_name`, with the library before it if it is not torch.

    A custom operation `somelib::relu` may compute anything.
    """
    packet = getattr(function, "_overloadpacket", function)
    library = str(getattr(packet, "_qualified_op_name", "aten::")).partition("::")[0]
    return operation_name(function) if library == "aten" else f"{library}::{operation_name(function)}"


def _usual_call(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[..., Any], Any, Any]:
    """The call of a torch function as most networks write it: `torch.batch_norm` has other positions than `F.batch_norm`."""
    if getattr(function, "__self__", None) is Tensor.data:
        return Tensor.detach, args, kwargs
    if qualified_name(function) == "batch_norm" and function is not F.batch_norm:
        given = dict(zip(_ATEN_BATCH_NORM, args, strict=False)) | kwargs
        return F.batch_norm, (), {name: value for name, value in given.items() if name != "cudnn_enabled"}
    return function, args, kwargs


def first_tensor(output: Any) -> Tensor | None:
    """The output itself or, of a tuple or list, its first tensor."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)):
        return next((item for item in output if isinstance(item, Tensor)), None)
    return None


def _is_leaf(module: nn.Module) -> bool:
    """Whether a call of the module is one operation: torch's own layers, as for torch.fx, and those of exported programs."""
    if getattr(module, "one_operation", False):
        return True
    if not type(module).__module__.startswith("torch.nn"):
        return False
    return isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None


def run_as(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function inside a pass as a part of the operation called `name`, which is its name in every `Trace`."""
    return function(*args, **kwargs)


_RUN_AS = run_as.__code__


class StopForward(BaseException):
    """Ends a pass when all that is wanted was seen. Not an Exception, so that no network swallows it."""


def check_computed(wanted: Iterable[str], found: Container[str]) -> None:
    """Check that a pass gave all wanted sites.

    Raises:
        VizError: It did not; the message names the first one that is missing.
    """
    for name in wanted:
        if name not in found:
            raise VizError(
                f"The network did not compute {name!r} on this input; pick another layer.", code="layer-not-computed"
            )


def check_differentiable(value: Tensor) -> None:
    """Check that autograd followed a value from the pixels.

    Raises:
        VizError: It did not.
    """
    if not value.requires_grad:
        raise VizError(
            "The unit has no gradient by the pixels: the network computes it under torch.no_grad or torch.inference_mode, "
            "or detaches it. Method projection follows such networks.",
            code="detached-unit",
        )


class Trace(TorchFunctionMode):
    """Names each operation of the passes inside the `with` block; subclasses override `operate`.

    An override may end the pass, and the block, by raising `self.enough`.

    The names are those of torchvision's feature extraction:

    1. A layer of torch is named by its path: `layer1.0.conv1`.
    2. Any other operation is named by the path of the running module and its own name: `layer1.0.add`.
    3. The second operation of a name gets `_1`, the third `_2`.
    4. What `run_as` runs has the name that it is told.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._paths = {id(part): path for path, part in module.named_modules()}
        self._module = module  # keeps the ids above valid
        self.enough = StopForward()
        self._times: dict[str, int] = {}
        self._names: set[str] = set()
        self._call: FrameType | None = None  # the running call of a leaf module …
        self._call_name = ""  # … and the name that all its operations share

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation called `name`; the network continues with the result."""
        return function(*args, **kwargs)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.operate(self._name(func), *_usual_call(func, args, kwargs or {}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._call = None  # a frame keeps its local variables alive
        if isinstance(error, StopForward):  # so does a traceback
            error.__traceback__ = None
        super().__exit__(kind, error, trace)
        return error is self.enough

    def _name(self, function: Callable[..., Any]) -> str:
        frame, module, path = self._running()
        if frame is not None and module is None:
            return path
        if frame is not None and module is not None and path and _is_leaf(module):
            if frame is not self._call:
                self._call, self._call_name = frame, self._numbered(path)
            return self._call_name
        self._call = None
        name = operation_name(function)
        return self._numbered(f"{path}.{name}" if path else name)

    def _running(self) -> tuple[FrameType | None, nn.Module | None, str]:
        """The innermost running call of a part of the network, that part, and its path; of `run_as`, None and its name."""
        frame: FrameType | None = sys._getframe(3)
        while frame is not None:
            if frame.f_code is _RUN_AS:
                return frame, None, frame.f_locals["name"]
            if frame.f_code is _MODULE_CALL:
                module = frame.f_locals["self"]
                path = self._paths.get(id(module))
                if path is not None:
                    return frame, module, path
            frame = frame.f_back
        return None, None, ""

    def _numbered(self, name: str) -> str:
        times = self._times.get(name, 0)
        numbered = f"{name}_{times}" if times else name
        while numbered in self._names:  # a module may really be called `conv_1`
            times += 1
            numbered = f"{name}_{times}"
        self._times[name] = times + 1
        self._names.add(numbered)
        return numbered


class Tap(Trace):
    """Keeps the activations of some sites during one pass.

        with Tap(module, {"layer1.0.relu"}) as tap:
            module(batch)
        tap.kept["layer1.0.relu"]

    `kept` holds clones, because a later in-place operation may overwrite the original. Gradients flow through them if
    the pass runs with gradients. With `stop`, the pass ends before the first operation after the last wanted one. One
    pass per Tap; a name that the pass does not produce is missing from `kept`.
    """

    def __init__(self, module: nn.Module, keep: Collection[str], stop: bool = True) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}
        self._wanted = frozenset(keep)
        self._stop = stop

    def operate(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation and keep a clone of its result if its name is wanted."""
        if self._stop and name not in self._wanted and self.kept.keys() == self._wanted:
            raise self.enough
        output = function(*args, **kwargs)
        followed = torch.is_grad_enabled() and operation_name(function) in _BATCH_NORMS
        if followed and output.requires_grad and output.shape[0] == 1:
            output.register_hook(Tensor.contiguous)
        # A hook on a layer (DeepLIFT's) may look at what the layer gave: it runs inside the layer's call.
        if name in self._wanted and not (name in self.kept and operation_name(function) == "detach"):
            tensor = first_tensor(output)
            if tensor is not None:
                self.keep(name, tensor)
        return output

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep a clone of the activation of a wanted site."""
        self.kept[name] = tensor.clone()
