"""Devices by name: '' (the best there is), 'cpu', '0', 'cuda:1', 'mps'; and what is set for the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    import torch


def select_device(name: str = "") -> torch.device:
    """Return the device of that name; the empty name chooses CUDA, then MPS, then the CPU.

    Raises:
        UserError: the device is not there.
    """
    import torch

    name = name.strip().lower()
    if not name:
        mps = torch.backends.mps.is_available()
        name = "cuda:0" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if name.isdigit():
        name = f"cuda:{name}"
    available = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    if name == "cuda" and "cuda:0" in available:
        name = "cuda:0"
    if name not in available:
        raise UserError(f"no device '{name}' here. Choose from: {', '.join(available)}")
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, for the whole process."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
