"""How many threads PyTorch computes with in a thread, without changing it for others."""

from __future__ import annotations

import threading

import torch

_LOCK = threading.Lock()  # while it is held, threads that are made take a number meant for another


def get_threads() -> int:
    """Return how many threads PyTorch computes with in the calling thread."""
    with _LOCK:
        return torch.get_num_threads()


def set_own_threads(count: int) -> None:
    """Let PyTorch compute with so many threads in the calling thread, and in no other.

    `torch.set_num_threads` sets the number of the thread that calls it and of all that first compute later; a
    thread of its own undoes the latter.
    """
    with _LOCK:
        usual = torch.get_num_threads()
        torch.set_num_threads(count)
        undo = threading.Thread(target=torch.set_num_threads, args=(usual,))
        undo.start()
        undo.join()
