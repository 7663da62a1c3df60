"""What detection and validation take from the weights' training: how images shrink."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.inference.sizes import interpolation_for

OURS, EARLIER, YOLOV5 = {"interpolation": "area", "imgsz": 256}, {"imgsz": 256}, {}


@pytest.mark.parametrize(
    ("config", "validation", "expected"),
    [
        (OURS, False, "area"),
        (OURS, True, "area"),
        ({**OURS, "interpolation": "linear"}, False, "linear"),
        (EARLIER, False, "area"),  # trained here before checkpoints noted it
        (YOLOV5, False, "linear"),
        (YOLOV5, True, "area"),  # as in YOLOv5's own validation
    ],
)
def test_images_shrink_as_in_the_training_of_the_weights_unless_told(
    config: dict[str, Any], validation: bool, expected: str
) -> None:
    predictor: Any = SimpleNamespace(config=config)
    assert interpolation_for(predictor, None, validation) == expected
    for chosen in ("area", "linear"):
        assert interpolation_for(predictor, chosen, validation) == chosen
