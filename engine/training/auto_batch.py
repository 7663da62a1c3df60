"""The largest batch that fits into memory, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch

from utils.errors import UserError
from utils.memory import free_memory, process_memory, reset_peak

PROBES = (2, 4, 8)  # batch sizes tried; memory grows linearly
SHARE = 0.8  # of the free memory that a run may take
MULTIPLE = 8  # larger batch sizes are rounded down to a multiple of this
NOISE = 2**20  # bytes an image: on the CPU, a smaller slope may be memory that was freed but not given back
UNMEASURED = 64  # the largest batch where the slope is noise


def largest_batch(train: Callable[[int], None], device: torch.device, images: int) -> int:
    """Return the largest batch whose training step fits into the free memory of the device.

    Args:
        train: takes one training step with a batch of that many images.
        device: whose memory it is.
        images: in the data set; a batch is never larger.

    Raises:
        UserError: not even the first probe fits, or memory cannot be measured here.
    """
    try:
        free = _free_bytes(device)
        used = [_peak_bytes(train, batch, device) for batch in PROBES]
    except torch.OutOfMemoryError:
        raise UserError(f"no batch of {PROBES[-1]} fits into {device}; choose --batch-size") from None
    except OSError as error:
        raise UserError(f"--batch-size -1 cannot measure memory here ({error}); choose one") from error
    slope = max((used[-1] - used[0]) / (PROBES[-1] - PROBES[0]), 1.0)
    batch = int((SHARE * free - used[0]) / slope) + PROBES[0]
    if device.type == "cpu" and slope < NOISE:
        batch = min(batch, UNMEASURED)
    batch = max(min(batch, images), 1)
    return batch // MULTIPLE * MULTIPLE if batch > MULTIPLE else batch


def _peak_bytes(train: Callable[[int], None], batch: int, device: torch.device) -> float:
    """Return the peak memory of a step in bytes: of tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        train(batch)
        return float(torch.cuda.max_memory_allocated(device))
    reset_peak()
    train(batch)
    return float(process_memory()[1])


def _free_bytes(device: torch.device) -> float:
    """Return how much memory the process can use, including what it uses already, bytes."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    available = free_memory()
    if available is None:
        raise UserError("--batch-size -1 cannot see how much memory is free here; choose one")
    return float(available + process_memory()[0])
