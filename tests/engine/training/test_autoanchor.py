"""Anchors stay where they fit and are replaced where they do not."""

from __future__ import annotations

import numpy as np
import torch

from engine.training.autoanchor import suit_anchors
from models import build_model


def test_anchors_that_fit_stay() -> None:
    model = build_model("yolov5n", num_classes=1)
    before = model.head.anchors.clone()
    message = suit_anchors(model, np.random.default_rng(0).uniform(10, 300, (500, 2)))
    assert torch.equal(model.head.anchors, before)
    assert message.startswith("anchors fit")


def test_tiny_boxes_get_anchors_that_a_checkpoint_keeps() -> None:
    model = build_model("yolov5n", num_classes=1)
    sizes = np.random.default_rng(0).uniform(2, 6, (500, 2))
    assert suit_anchors(model, sizes).startswith("new anchors fit 100.0%")
    pixels = model.head.anchors * model.head.stride.view(-1, 1, 1)
    assert pixels.max() < 8
    again = build_model(model.yaml)
    torch.testing.assert_close(again.head.anchors, model.head.anchors)


def test_without_boxes_nothing_changes() -> None:
    model = build_model("yolov5n", num_classes=1)
    before = model.head.anchors.clone()
    assert "no boxes" in suit_anchors(model, np.zeros((0, 2)))
    assert torch.equal(model.head.anchors, before)
