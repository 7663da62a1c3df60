"""The processes that train one network together, started by torchrun and joined by torch.distributed."""

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
    """The processes that train together; by default this one alone.

    Attributes:
        rank: number of this process; 0 is the main one, which writes and prints.
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
        """Return the device name of this process: of several processes each has a GPU, or all use the CPU.

        Raises:
            UserError: one device was asked for, or there are fewer GPUs than processes.
        """
        import torch

        if self.size == 1 or asked == "cpu":
            return asked
        if asked not in ("", "cuda"):
            raise UserError(f"--device {asked} is one device for {self.size} processes; leave it out, or cpu")
        if not torch.cuda.is_available():
            return "cpu"
        if self.local_rank >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise UserError(f"process {self.local_rank} of this machine has no GPU: there are {count}")
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    def all_reduce_min(self, values: Tensor) -> Tensor:
        """Return the minimum over the processes, element by element; `values` are overwritten with it."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(values, dist.ReduceOp.MIN)
        return values

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

    def sync_gradients(self, network: nn.Module, sync: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a forward and backward pass.

        Args:
            network: what `wrap` returned.
            sync: average the gradients over the processes; else they are accumulated in each of them.
        """
        if self.size == 1 or sync:
            return contextlib.nullcontext()
        no_sync: Any = network.no_sync
        return no_sync()


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started; a World of one without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    import gc

    import torch
    import torch.distributed as dist

    # Imported before there is a group: its functions take the group of that moment as their defaults, and a
    # group that they hold is never destroyed. Its threads then outlive it, and one that drops the tensors of
    # its last message while Python closes aborts the process.
    import torch.distributed.nn.functional

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
        gc.collect()  # what still holds the group only in a circle: its threads end with it
