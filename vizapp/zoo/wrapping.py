"""The user's own module as a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

from vizapp.engine.memory.chunks import as_does_not_fit, is_out_of_memory
from vizapp.engine.trace.outputs import Head, Probabilities
from vizapp.errors import VizError
from vizapp.media.channels import read_channel_map
from vizapp.zoo.devices import choose_device
from vizapp.zoo.exported import open_program
from vizapp.zoo.labels import Classes, numbered_names, read_classes
from vizapp.zoo.network import Network, check_probabilities, freeze
from vizapp.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

# What the user's `forward` may raise for an unsuitable input. Only `forward` runs where these are caught.
_MODULE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


def wrap(
    module: nn.Module | ExportedProgram,
    input_size: tuple[int, int, int] = (3, 224, 224),
    categories: Classes = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    name: str | None = None,
    resize: int | None = None,
    device: str | torch.device | None = None,
    output: str | None = None,
    probabilities: Probabilities | None = None,
    channel_map: str | Sequence[str | int] = (),
) -> Network:
    """The user's own module as a network. The module itself is put into evaluation mode and frozen (no gradients).

    To train it further, pass a `copy.deepcopy`.

    Args:
        module: takes `[N C H W]`. A `DataParallel` is unwrapped. An `ExportedProgram` is copied, without its checks of shapes.
        input_size: channels, height and width of its input.
        categories: class names, as a list or the path of a labels file. Default: numbered names; none for a vector that
            ends in a norm, which is an embedding. 0: it has no classes.
        mean: subtracted from pixels from 0 to 1, and from the values of stacks: integers divided by the largest value of their
            type (255, 65535 or 32767), floats as they are. Default: ImageNet's for 3 channels, else 0.
        std: divides the difference. Default: ImageNet's for 3 channels, else 1.
        name: the network's name. Default: the name of its class.
        resize: shorter side of a photo before the centre crop. Default: the larger side of `input_size`.
        device: default: the device of its weights.
        output: which of several outputs the class scores are: its key, its index ("0"), or the layer that computes it.
            Default: the first with a score per category.
        probabilities: "softmax" or "sigmoid" of the class scores ("sigmoid" for labels that do not exclude each other), or
            "none" if the scores are probabilities. Default: as found; of logits the softmax, of one logit the sigmoid.
        channel_map: what feeds each channel, such as "R,G,B,mean" or (7, 3, 2): the number of a band from 0, "R", "G" or "B" of
            the photo as it is shown, "L" for its luminance, "mean" of all bands, or "zero". Default: the bands of a stack that
            has as many as the network has channels, else the photo for 3 channels and its luminance for 1.

    Raises:
        VizError: it cannot be traced (scripted, compiled, quantized), does not accept such an input, or has no such output
            or probabilities.
    """
    if isinstance(module, ExportedProgram):
        module = open_program(module, name or "the program")
    while isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module
    module = _usable(module)
    where = _module_device(module) if device is None else choose_device(device)
    channels, height, width = _check_input_size(input_size)
    shape = Preprocessing(
        channels,
        height,
        width,
        resize or max(height, width),
        "bilinear",
        _per_channel(mean, channels, IMAGENET_MEAN if channels == 3 else (0.0,)),
        _per_channel(std, channels, IMAGENET_STD if channels == 3 else (1.0,)),
        channel_map=read_channel_map(channel_map),
    )
    freeze(module, where, channels_last=False)
    is_embedding = categories == 0 and isinstance(categories, int)
    asked, given = (None, ()) if is_embedding else read_classes(categories)
    names = given or numbered_names(asked or 0)
    facts = {"weights": "the module's"}
    network = Network(
        name or type(module).__name__,
        module,
        where,
        shape,
        names,
        "own",
        facts,
        output,
        check_probabilities(probabilities),
    )
    if is_embedding:
        _find_heads(network)
        return network
    return name_classes(network, asked)


def name_classes(network: Network, asked: int | None) -> Network:
    """The network with a name for each of its classes, found in one forward pass. `asked`: how many there should be.

    Raises:
        VizError: it does not accept its input, or returns another number of class scores than asked for.
    """
    heads = _find_heads(network)
    head = network.head if heads or network.output is not None else None
    if head is None:
        return _name_map(network, asked)
    if head.classes == len(network.categories):
        return network
    if asked is not None:
        raise VizError(
            f"{network.name} returns {head.classes} class scores, but {asked} categories were given.",
            code="class-count-mismatch",
        )
    if head.embedding and network.output is None and network.probabilities is None:
        return network
    network = replace(network, categories=numbered_names(head.classes))
    vars(network)["_heads"] = heads  # already found
    return network


def _name_map(network: Network, asked: int | None) -> Network:
    """The network with a name for each class of the class map that it returns, if it returns one."""
    counts = [one.shape[0] for one in network.class_maps[:1]]
    if not counts or counts[0] == len(network.categories):
        return network
    if asked is not None:
        raise VizError(
            f"{network.name} returns a map of {counts[0]} classes, but {asked} categories were given.",
            code="class-count-mismatch",
        )
    named = replace(network, categories=numbered_names(counts[0]))
    vars(named).update(_heads=network.heads, _class_maps=network.class_maps)  # already found
    return named


def _usable(module: Any) -> nn.Module:
    """The module, if it is one that can be traced."""
    if not isinstance(module, nn.Module):
        raise VizError(f"wrap takes a torch.nn.Module; a {type(module).__name__} was given.", code="not-a-module")
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise VizError(
            "TorchScript modules cannot be traced; use the original Python module.",
            code="unsupported-module",
        )
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in module.modules()):
        raise VizError(
            "Compiled modules cannot be traced; use the module as it was before torch.compile or compile().",
            code="unsupported-module",
        )
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise VizError(
            "The module has lazy layers, which have no weights yet; run it once on an input first.",
            code="module-without-weights",
        )
    if any(str(part.eval.__module__).startswith("torch.export") for part in module.modules()):
        raise VizError(
            "Exported modules cannot be set to evaluation; give the ExportedProgram itself, its .pt2 file, or the original "
            "module.",
            code="unsupported-module",
        )
    for path, part in module.named_modules():
        if ".quantized" in type(part).__module__ or ".qat" in type(part).__module__:
            raise VizError(
                f"Layer {path!r} is quantized and cannot be traced; use the float module.", code="unsupported-module"
            )
    return module


def _module_device(module: nn.Module) -> torch.device:
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise VizError(
            f"The module is on several devices ({names}); choose one (device=…), or move it to one first.",
            code="several-devices",
        )
    home = devices.pop() if devices else torch.device("cpu")
    if home.type == "meta":
        raise VizError(
            "The module has no weights yet (it is on torch's meta device); load them first.",
            code="module-without-weights",
        )
    return choose_device(home)


def _check_input_size(input_size: Sequence[int]) -> tuple[int, int, int]:
    sizes = tuple(input_size)
    if len(sizes) != 3 or not all(isinstance(size, int) for size in sizes):
        raise VizError(
            f"input_size is channels, height and width, such as (3, 224, 224); {input_size!r} was given.",
            code="bad-input-size",
        )
    return sizes[0], sizes[1], sizes[2]


def _per_channel(given: float | Sequence[float] | None, channels: int, default: Sequence[float]) -> tuple[float, ...]:
    if given is None:
        given = default
    values = (float(given),) if isinstance(given, (int, float)) else tuple(float(value) for value in given)
    return values * channels if len(values) == 1 else values


def _find_heads(network: Network) -> tuple[Head, ...]:
    """The heads of the network, from one forward pass."""
    try:
        return network.heads
    except _MODULE_ERRORS as error:
        if is_out_of_memory(error):
            raise as_does_not_fit(error).named(f"a pass through {network.name}", "") from None
        reason = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        raise VizError(
            f"{network.name} could not be run on an input of {' × '.join(map(str, (1, *network.input_size)))}: {reason} "
            "Is input_size (channels, height, width) right?",
            code="bad-input-size",
        ) from error
