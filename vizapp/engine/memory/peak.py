"""Peak memory of a pass, from the live tensors."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class PeakMemory:
    """Bytes of the live activations, counted by storage."""

    alive: dict[int, tuple[int, int]] = field(default_factory=dict)  # address -> holders, bytes
    now: int = 0
    peak: int = 0

    def track(self, tensor: Tensor) -> None:
        """Count the tensor's storage until the tensor is freed. A shared storage counts once."""
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
