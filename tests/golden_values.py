"""The reference's outputs, as tests use them; tests/golden/README.md says what the files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = ("yolov5n", "yolov5n_spd")


def read_golden(network: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the arrays as tensors, `images` in 0..1 among them, and the facts of the JSON file."""
    with np.load(GOLDEN / f"{network}.npz") as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    values["images"] = values["images_uint8"].float() / 255
    return values, json.loads((GOLDEN / f"{network}.json").read_text(encoding="utf-8"))


def assert_close(ours: Tensor, reference: Tensor, relative: float) -> None:
    """Compare in float64 with a tolerance relative to the largest reference value."""
    ours, reference = ours.double(), reference.double()
    torch.testing.assert_close(ours, reference, rtol=0, atol=relative * reference.abs().max().item())
