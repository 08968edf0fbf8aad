"""The processes that share one pass, as torchrun starts them: batch i belongs to process i modulo their number."""

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
    """This process's number and how many there are; alone it is 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def gather(self, thing: Value) -> list[Value]:
        """The things of all processes in order, at the one that leads; elsewhere nothing."""
        if self.world == 1:
            return [thing]
        found: list[Value | None] | None = [None] * self.world if self.is_leader else None
        distributed.gather_object(thing, found)
        return [item for item in found if item is not None] if found else []

    def broadcast(self, thing: Value) -> Value:
        """What the leading process has, at all of them."""
        if self.world == 1:
            return thing
        box = [thing]
        distributed.broadcast_object_list(box)
        return box[0]


@contextmanager
def connect_shards(device: torch.device) -> Iterator[Shards]:
    """The processes that torchrun started, connected (NCCL between GPUs, gloo between CPUs); else this one alone.

    At the end of the block all wait for each other. They stay connected until they exit: torch cannot connect the same
    processes a second time.
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
    """Number and count of processes that torchrun wrote into the environment; (0, 1) without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
