"""Distributed gallery passes: of the processes that torchrun starts, process i mod n handles batch i."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")


@dataclass(frozen=True)
class Shards:
    """This process's rank and the world size; 0 of 1 without torchrun."""

    rank: int = 0
    world: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def gather(self, thing: Value) -> list[Value]:
        """The values of all processes in rank order on the leader, an empty list elsewhere."""
        if self.world == 1:
            return [thing]
        found: list[Value | None] | None = [None] * self.world if self.is_leader else None
        distributed.gather_object(thing, found)
        return [item for item in found if item is not None] if found else []

    def broadcast(self, thing: Value) -> Value:
        """The leader's value, on all processes."""
        if self.world == 1:
            return thing
        box = [thing]
        distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def connect_shards(device: torch.device) -> Iterator[Shards]:
    """The process group that torchrun started (NCCL on GPUs, gloo on CPUs), or this process alone.

    The block ends with a barrier. The group lives until the processes exit, because torch cannot connect them twice.
    """
    rank, world = rank_and_world_size()
    if world == 1:
        yield Shards()
        return
    if not distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
    yield Shards(rank, world)
    distributed.barrier()


def rank_and_world_size() -> tuple[int, int]:
    """Rank and world size from torchrun's environment; (0, 1) without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
