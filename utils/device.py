"""Where to compute: '' (best there is), 'cpu', '0', 'cuda:1', 'mps'."""

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
    found = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    if name == "cuda" and "cuda:0" in found:
        name = "cuda:0"
    if name not in found:
        raise UserError(f"no device '{name}' here. Choose from: {', '.join(found)}")
    return torch.device(name)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, for the whole process."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
