"""How much memory a pass takes at its widest, counted by what is alive."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class PeakMemory:
    """Bytes of the activations that are alive, counted by storage."""

    alive: dict[int, tuple[int, int]] = field(default_factory=dict)  # address -> holders, bytes
    now: int = 0
    peak: int = 0

    def track(self, tensor: Tensor) -> None:
        """Count the tensor's storage until the tensor is gone; one that other tensors hold too is counted once."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        holders, size = self.alive.get(address, (0, storage.nbytes()))
        if holders == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.alive[address] = (holders + 1, size)
        weakref.finalize(tensor, self._release, address)

    def _release(self, address: int) -> None:
        holders, size = self.alive.pop(address)
        if holders > 1:
            self.alive[address] = (holders - 1, size)
        else:
            self.now -= size
