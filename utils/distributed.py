"""Processes that train one network together: those of torchrun, over torch.distributed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """Who trains together; by default this process alone.

    Attributes:
        rank: number of this process; 0 writes and prints.
        size: number of processes.
        local_rank: number among the processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """Return the device name of this process: with several processes a GPU each, or the CPU.

        Raises:
            UserError: one GPU was asked for, or there are fewer than processes.
        """
        import torch

        if self.size == 1 or asked == "cpu":
            return asked
        if asked not in ("", "cuda"):
            raise UserError(f"--device {asked} is one device for {self.size} processes; leave it out, or cpu")
        if not torch.cuda.is_available():
            return "cpu"
        if self.local_rank >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise UserError(f"process {self.local_rank} of this machine has no GPU: there are {found}")
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def everywhere(self, flags: Tensor) -> Tensor:
        """(n,) float flags, 1 or 0 -> 1 where they are 1 in every process."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(flags, dist.ReduceOp.MIN)
        return flags

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, without a gradient."""
        if self.size > 1:
            import torch.distributed as dist

            values = values.detach().clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in order of rank; plain data or arrays."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value."""
        return self.gather(value)[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the module to call in training: its gradients are the mean over the processes."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        return DistributedDataParallel(model, [device] if device.type == "cuda" else None)

    def reducing(self, network: nn.Module, reduce: bool) -> contextlib.AbstractContextManager:
        """Return the context of a forward and backward pass whose gradients are only kept unless `reduce`."""
        if self.size == 1 or reduce:
            return contextlib.nullcontext()
        no_sync: Any = network.no_sync
        return no_sync()


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started; a World of one without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    import torch
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
