"""The largest batch that fits into memory, measured."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

from utils.errors import UserError
from utils.memory import free_memory

PROBES = (2, 4, 8)  # batch sizes tried; memory grows linearly
SHARE = 0.8  # of the free memory that a run may take
MULTIPLE = 8  # larger batch sizes are rounded down to a multiple of this


def largest_batch(train: Callable[[int], None], device: torch.device, images: int) -> int:
    """Return the largest batch whose training step fits into the free memory of the device.

    Args:
        train: takes one training step with a batch of that many images.
        device: whose memory it is.
        images: in the data set; a batch is never larger.

    Raises:
        UserError: not even the first probe fits.
    """
    free = _free_bytes(device)
    try:
        used = [_peak_bytes(train, batch, device) for batch in PROBES]
    except torch.OutOfMemoryError:
        raise UserError(f"no batch of {PROBES[-1]} fits into {device}; choose --batch-size") from None
    slope = max((used[-1] - used[0]) / (PROBES[-1] - PROBES[0]), 1.0)
    batch = int((SHARE * free - used[0]) / slope) + PROBES[0]
    batch = max(min(batch, images), 1)
    return batch // MULTIPLE * MULTIPLE if batch > MULTIPLE else batch


def _peak_bytes(train: Callable[[int], None], batch: int, device: torch.device) -> float:
    """Return the peak memory of a step in bytes: of tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        train(batch)
        return float(torch.cuda.max_memory_allocated(device))
    train(batch)
    return float(_peak_of_process())


def _free_bytes(device: torch.device) -> float:
    """Return how much memory the process can use, including what it uses already, bytes."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    available = free_memory()
    if available is None:
        raise UserError("--batch-size -1 cannot see how much memory is free here; choose one")
    return float(available + _peak_of_process())


def _peak_of_process() -> int:
    """Return the largest amount of memory that the process has used so far, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
