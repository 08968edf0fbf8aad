"""Choose the device of a network."""

from __future__ import annotations

import os

import torch

from vizapp.errors import VizError
from vizapp.settings import settings


def choose_device(wanted: str | torch.device = "auto") -> torch.device:
    """The requested device, else `VIZAPP_DEVICE`, else the first GPU, else the CPU.

    Raises:
        VizError: this machine has no such device, or the device has no double precision.
    """
    name = str(wanted)
    if name == "auto":
        name = settings().device
    if name == "auto":
        return _free_gpu() if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise VizError(f'There is no device {name!r}; use "auto", "cpu" or "cuda:0".', code="no-such-device") from None
    if device.type == "cpu":
        if device.index:
            raise VizError(f'There is no device {name!r}; the CPU is "cpu", with all its cores.', code="no-such-device")
        return torch.device("cpu")
    if device.type == "cuda":
        return _gpu(name, device.index or 0)
    if device.type == "mps":
        raise VizError(
            'Apple\'s GPU ("mps") has no double precision, which vizapp needs; use "cpu", or "cuda:0" for an NVIDIA GPU.',
            code="device-unsupported",
        )
    raise VizError(f'Device {name!r} is not supported; use "auto", "cpu" or "cuda:0".', code="device-unsupported")


def _free_gpu() -> torch.device:
    """The first GPU; under torchrun, one per local process."""
    place = os.environ.get("LOCAL_RANK", "0")
    return torch.device("cuda", int(place) % torch.cuda.device_count() if place.isdecimal() else 0)


def _gpu(name: str, index: int) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise VizError(
            f'Device {name!r} is not available: torch finds no GPU; use "cpu" or "auto".', code="no-such-device"
        )
    if index >= count:
        raise VizError(f"There is no device {name!r}; the GPUs are cuda:0 to cuda:{count - 1}.", code="no-such-device")
    return torch.device("cuda", index)
