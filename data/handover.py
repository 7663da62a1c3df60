"""Batches on their way from worker processes: in shared memory, or through pipes where there is too little.

Docker gives a container 64 MB of shared memory unless told otherwise. What does not fit fails only when it is
sent, in a thread of the worker, and the process that waits for it would wait for ever.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

LOG = logging.getLogger(__name__)
SEMAPHORES = 8  # of each worker process, and of the queue that they share
_HINT = "docker run --shm-size 2g gives a container more"


@dataclasses.dataclass(frozen=True)
class Piped:
    """What a worker process sends, as bytes, without shared memory."""

    content: bytes


class Handover:
    """A collate function whose result is sent in shared memory as long as there is room.

    Args:
        collate: returns a dataclass of tensors, or None, and the problems.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], tuple[Any, list[str]]]) -> None:
        self.collate = collate

    def __call__(self, results: Sequence[Any]) -> tuple[Any, list[str]] | Piped:
        """Return the collated samples; in a worker process, ready to be sent."""
        batch, problems = self.collate(results)
        if batch is None or get_worker_info() is None:
            return batch, problems
        try:
            for field in dataclasses.fields(batch):
                value = getattr(batch, field.name)
                if isinstance(value, Tensor) and value.numel():
                    value.share_memory_()
        except RuntimeError as error:
            if not is_lack_of_shared_memory(error):
                raise
            return Piped(pickle.dumps((batch, problems)))  # pickle's own: multiprocessing's would share
        return batch, problems


def is_lack_of_shared_memory(error: RuntimeError) -> bool:
    """Whether torch could not create a block of shared memory."""
    return "shared memory" in str(error)


def received(sent: Any, piped_before: bool) -> tuple[Any, list[str]]:
    """Return what a `Handover` sent.

    Args:
        sent: by a worker process.
        piped_before: nothing is logged again.
    """
    if not isinstance(sent, Piped):
        return sent
    if not piped_before:
        LOG.warning(
            "too little shared memory for batches%s: they go through pipes, which is slower; %s",
            _free(),
            _HINT,
        )
    return pickle.loads(sent.content)


def usable_workers(workers: int) -> int:
    """Return how many worker processes there can be: none where the system has no semaphores for them."""
    if workers:
        try:  # as many as a DataLoader makes, or more: what it cannot finish it leaves with a traceback
            _ = [multiprocessing.Lock() for _ in range(SEMAPHORES * (workers + 1))]
        except OSError as error:
            LOG.warning(
                "worker processes cannot be started (%s%s): images are read in this one; %s",
                error.strerror,
                _free(),
                _HINT,
            )
            return 0
    return workers


def _free() -> str:
    try:
        return f", {shutil.disk_usage('/dev/shm').free / 2**20:.0f} MiB free in /dev/shm"
    except OSError:
        return ""
