"""hubconf.py: torch.hub.load works as with YOLOv5, from a local folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine.inference import Detector
from tests.golden_values import GOLDEN

ROOT = Path(__file__).parents[1]


def test_torch_hub_loads_a_detector_from_the_checkout() -> None:
    weights = str(GOLDEN / "yolov5n.pt")
    detector = torch.hub.load(str(ROOT), "custom", path=weights, source="local", device="cpu", _verbose=False)
    assert type(detector).__name__ == Detector.__name__
    [result] = detector(np.zeros((64, 96, 3), np.uint8), conf=0.0001, imgsz=64)
    assert result.orig_shape == (64, 96)
