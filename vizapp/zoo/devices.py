"""Which device a network runs on."""

from __future__ import annotations

import os

import torch

from vizapp.errors import VizError
from vizapp.settings import settings


def choose_device(wanted: str | torch.device = "auto") -> torch.device:
    """The device to use: the one asked for; else that of `VIZAPP_DEVICE`; else the first GPU; else the CPU.

    Raises:
        VizError: there is no such device on this machine, or torch computes no double precision on it.
    """
    name = str(wanted)
    if name == "auto":
        name = settings().device
    if name == "auto":
        return _free_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise VizError(
            f'There is no device called {name!r}; say "auto", "cpu" or "cuda:0".', code="no-such-device"
        ) from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda":
        return _gpu(name, device.index or 0)
    if device.type == "mps":
        raise VizError(
            'Apple\'s GPU ("mps") has no double precision, which vizapp adds up in; say "cpu", or "cuda:0" for an NVIDIA GPU.',
            code="device-unsupported",
        )
    raise VizError(f'Device {name!r} cannot be used here; say "auto", "cpu" or "cuda:0".', code="device-unsupported")


def _free_gpu() -> torch.device:
    """The first GPU; of several processes that torchrun started on a machine, each has its own."""
    place = os.environ.get("LOCAL_RANK", "0")
    return torch.device("cuda", int(place) % torch.cuda.device_count() if place.isdecimal() else 0)


def _gpu(name: str, index: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise VizError(
            f'Device {name!r} was asked for and torch finds no GPU on this machine; use "cpu" or "auto".',
            code="no-such-device",
        )
    if index >= count:
        raise VizError(
            f"Device {name!r} was asked for; the GPUs of this machine are cuda:0 to cuda:{count - 1}.",
            code="no-such-device",
        )
    return torch.device("cuda", index)
