"""The processes that share one pass, as torchrun starts them: batch i belongs to process i modulo their number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Shards:
    """This process's number and how many there are; alone it is 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def gathered(self, thing: Thing) -> list[Thing]:
        """The things of all processes in order, at the one that leads; elsewhere nothing."""
        if self.world == 1:
            return [thing]
        from torch import distributed

        found: list[Thing | None] | None = [None] * self.world if self.leads else None
        distributed.gather_object(thing, found)
        return [item for item in found if item is not None] if found else []

    def told(self, thing: Thing) -> Thing:
        """What the leading process has, at all of them."""
        if self.world == 1:
            return thing
        from torch import distributed

        box = [thing]
        distributed.broadcast_object_list(box)
        return box[0]


def running() -> Shards:
    """The processes that torchrun started, connected (NCCL between GPUs, gloo between CPUs); else this one alone."""
    rank, world = shard_of_environment()
    if world == 1:
        return Shards()
    from torch import distributed

    if not distributed.is_initialized():
        cuda = torch.cuda.is_available() and torch.cuda.device_count() > 0
        if cuda:
            torch.cuda.set_device(local_device())
        distributed.init_process_group("nccl" if cuda else "gloo")
    return Shards(rank, world)


def shard_of_environment() -> tuple[int, int]:
    """Number and count of processes that torchrun wrote into the environment; (0, 1) without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def local_device() -> str:
    """The GPU of this process on its machine."""
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(1, torch.cuda.device_count())}"
