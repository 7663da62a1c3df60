"""The detection loss against the reference's golden values, slow loops and its own properties."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training.losses import detection
from engine.training.losses.detection import Assignment, DetectionLoss, _write_last, assign
from utils.boxes import ciou

STRIDES = (8, 16, 32)
ANCHORS = torch.tensor(
    [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ]
) / torch.tensor(STRIDES).view(3, 1, 1)
NETWORKS = ["yolov5n", "yolov5n_spd"]


def load(golden: Path, name: str) -> dict[str, torch.Tensor]:
    with np.load(golden / f"{name}.npz") as values:
        return {key: torch.from_numpy(values[key]) for key in values.files}


@pytest.mark.parametrize("name", NETWORKS)
def test_assignment_matches_the_reference(golden: Path, name: str) -> None:
    values = load(golden, name)
    for level in range(3):
        grid = tuple(values[f"train_raw{level}"].shape[2:4])
        ours = assign(values["targets"], ANCHORS[level], grid)
        indices = torch.stack((ours.image, ours.anchor, ours.row, ours.column, ours.category), 1)
        assigned = torch.cat((indices, ours.box.mul(1000).round()), 1)
        expected = torch.cat((values[f"assign{level}"], values[f"assign_box{level}"].mul(1000).round()), 1)
        assert sorted(assigned.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_matches_the_reference(golden: Path, name: str) -> None:
    values = load(golden, name)
    raw = [values[f"train_raw{level}"] for level in range(3)]
    total, terms = DetectionLoss(ANCHORS, num_classes=5)(raw, values["targets"])
    torch.testing.assert_close(total.reshape(1), values["loss_total"], rtol=1e-5, atol=0)
    torch.testing.assert_close(terms, values["loss_box_obj_cls"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_gradient_norm_matches_the_reference(golden: Path, name: str) -> None:
    from models import load_model

    values = load(golden, name)
    model = load_model(golden / f"{name}.pt").train().double()
    raw = model((values["images_uint8"].float() / 255).double())
    loss, _ = DetectionLoss(ANCHORS, num_classes=5)(raw, values["targets"].double())
    loss.backward()
    names = json.loads((golden / f"{name}.json").read_text())["grad_names"]
    parameters = dict(model.named_parameters())
    norms = torch.stack([parameters[key].grad.double().norm() for key in names])
    # In float64 the rest is the reference's own float32 rounding: measured, 3e-5.
    torch.testing.assert_close(norms, values["grad_l2"].double(), rtol=1e-4, atol=1e-7)


def test_swapping_two_neighbors_of_the_assignment_is_caught(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = load(golden, "yolov5n")
    raw = [values[f"train_raw{level}"] for level in range(3)]
    itself, left, up, *others = detection.NEIGHBORS
    monkeypatch.setattr(detection, "NEIGHBORS", (itself, up, left, *others))
    total, _ = DetectionLoss(ANCHORS, num_classes=5)(raw, values["targets"])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(total.reshape(1), values["loss_total"], rtol=1e-5, atol=0)


def assign_by_loops(
    targets: torch.Tensor, anchors: torch.Tensor, grid: tuple[int, int], anchor_t: float
) -> set:
    """Match one object, anchor and neighboring cell at a time."""
    height, width = grid
    positives = set()
    for image, category, cx, cy, w, h in targets.tolist():
        x, y = np.float32(cx) * np.float32(width), np.float32(cy) * np.float32(height)
        cells = {(int(x), int(y))}
        if x % 1 < 0.5 and x > 1:
            cells.add((int(x) - 1, int(y)))
        if y % 1 < 0.5 and y > 1:
            cells.add((int(x), int(y) - 1))
        if (width - x) % 1 < 0.5 and width - x > 1:
            cells.add((int(x) + 1, int(y)))
        if (height - y) % 1 < 0.5 and height - y > 1:
            cells.add((int(x), int(y) + 1))
        for number, (aw, ah) in enumerate(anchors.tolist()):
            bw, bh = w * width, h * height
            if max(bw / aw, aw / bw, bh / ah, ah / bh) < anchor_t:
                positives |= {(image, number, row, column, category) for column, row in cells}
    return positives


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 12), width=st.integers(1, 12))
def test_assignment_equals_slow_loops(seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(20, 6, generator=generator) * 0.98 + 0.01
    targets[:, 0] = torch.arange(20)  # one object per image, so that positives are distinct
    targets[:, 1] = torch.randint(0, 3, (20,), generator=generator)
    ours = assign(targets, ANCHORS[0], (height, width))
    fields = (ours.image, ours.anchor, ours.row, ours.column, ours.category)
    assigned = [tuple(values) for values in torch.stack(fields, 1).tolist()]
    assert len(assigned) == len(set(assigned))
    assert set(assigned) == assign_by_loops(targets, ANCHORS[0], (height, width), 4.0)


def test_the_last_of_several_positives_in_a_cell_sets_its_target() -> None:
    cell = torch.tensor([0, 0, 0, 0])
    positives = Assignment(cell, cell, torch.tensor([1, 0, 1, 1]), cell, cell, torch.zeros(4, 4))
    written = _write_last(torch.zeros(1, 1, 2, 2), positives, torch.tensor([0.9, 0.5, 0.8, 0.2]))
    assert written.flatten().tolist() == pytest.approx([0.5, 0, 0.2, 0])


def test_images_without_objects_have_an_objectness_loss_only() -> None:
    torch.manual_seed(0)
    raw = [torch.randn(2, 3, size, size, 8, requires_grad=True) for size in (8, 4, 2)]
    loss, terms = DetectionLoss(ANCHORS, num_classes=3)(raw, torch.zeros(0, 6))
    loss.backward()
    assert terms[0] == terms[2] == 0 < terms[1]
    assert all((maps.grad[..., :4] == 0).all() and (maps.grad[..., 4] != 0).any() for maps in raw)


def test_a_single_class_has_no_class_loss() -> None:
    torch.manual_seed(0)
    raw = [torch.randn(1, 3, size, size, 6) for size in (8, 4, 2)]
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.4, 0.4]])
    _, terms = DetectionLoss(ANCHORS, num_classes=1)(raw, targets)
    assert terms[2] == 0 < terms[0]


def test_half_precision_maps_give_the_float32_loss() -> None:
    torch.manual_seed(0)
    raw = [torch.randn(2, 3, size, size, 8).bfloat16() for size in (8, 4, 2)]
    targets = torch.rand(12, 6) * torch.tensor([2, 3, 1, 1, 1, 1])
    loss = DetectionLoss(ANCHORS, num_classes=3)
    assert loss(raw, targets)[0] == loss([maps.float() for maps in raw], targets)[0]


def test_ignored_cells_have_no_objectness_loss_and_no_gradient() -> None:
    torch.manual_seed(0)
    raw = [torch.randn(2, 3, size, size, 8, requires_grad=True) for size in (8, 4, 2)]
    targets = torch.tensor([[0, 1, 0.3, 0.3, 0.2, 0.2], [1, 2, 0.7, 0.6, 0.3, 0.1]])
    left_half = torch.tensor([[0, 0.25, 0.5, 0.5, 1.0]])
    DetectionLoss(ANCHORS, num_classes=3)(raw, targets, left_half)[0].backward()
    for level, maps in enumerate(raw):
        height, width = maps.shape[2:4]
        positives = assign(targets, ANCHORS[level], (height, width))
        is_positive = torch.zeros(maps.shape[:4], dtype=torch.bool)
        is_positive[positives.image, positives.anchor, positives.row, positives.column] = True
        ignored = torch.zeros_like(is_positive)
        ignored[0, :, :, : width // 2] = True
        assert torch.equal(maps.grad[..., 4] != 0, is_positive | ~ignored)


def test_without_regions_to_ignore_the_loss_is_the_same() -> None:
    torch.manual_seed(0)
    raw = [torch.randn(2, 3, size, size, 8) for size in (8, 4, 2)]
    targets = torch.tensor([[0, 1, 0.3, 0.3, 0.2, 0.2]])
    loss = DetectionLoss(ANCHORS, num_classes=3)
    elsewhere = torch.tensor([[1, 0.5, 0.5, 0.0, 0.0]])
    plain = loss(raw, targets)[0]
    assert loss(raw, targets, torch.zeros(0, 5))[0] == plain
    torch.testing.assert_close(loss(raw, targets, elsewhere)[0], plain)


def options_case() -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(3)
    raw = [torch.randn(2, 3, size, size, 8, dtype=torch.float64) for size in (8, 4, 2)]
    targets = torch.rand(9, 6) * torch.tensor([2, 3, 1, 1, 0.4, 0.4]) + torch.tensor([0, 0, 0, 0, 0.02, 0.02])
    targets[:, :2] = targets[:, :2].floor()
    return raw, targets


def loss_by_loops(
    raw: list[torch.Tensor],
    targets: torch.Tensor,
    similarity: Callable[[float, float], float],
    gamma: float,
    smoothing: float,
) -> list[float]:
    """Box, objectness and class loss, one prediction at a time, in float64."""

    def entropy(logit: float, target: float) -> float:
        p = 1 / (1 + np.exp(-logit))
        value = -(target * np.log(p) + (1 - target) * np.log(1 - p))
        if gamma:
            missed = 1 - (target * p + (1 - target) * (1 - p))
            value *= (0.25 * target + 0.75 * (1 - target)) * missed**gamma
        return value

    box_loss = object_loss = class_loss = 0.0
    for level, maps in enumerate(raw):
        positives = assign(targets, ANCHORS[level], tuple(maps.shape[2:4]))
        objectness, boxes, classes = np.zeros(maps.shape[:4]), [], []
        for image, anchor, row, column, category, box in zip(*vars(positives).values(), strict=True):
            raw_prediction = maps[image, anchor, row, column]
            y = raw_prediction.sigmoid() * 2
            predicted = torch.cat((y[:2] - 0.5, y[2:4] ** 2 * ANCHORS[level][anchor].double()))
            iou = ciou(predicted[None], box[None].double()).item()
            distance, difference = (
                (predicted[:2] - box[:2]) * STRIDES[level],
                (predicted[2:] - box[2:]) * STRIDES[level],
            )
            nwd = np.exp(-np.sqrt((distance**2).sum() + (difference**2).sum() / 4) / 12.8)
            boxes.append(1 - similarity(iou, float(nwd)))
            objectness[image, anchor, row, column] = max(iou, 0)
            for number, logit in enumerate(raw_prediction[5:].tolist()):
                classes.append(entropy(logit, 1 - smoothing / 2 if number == category else smoothing / 2))
        logits = maps[..., 4].flatten().tolist()
        objects = [entropy(logit, target) for logit, target in zip(logits, objectness.flat, strict=True)]
        box_loss += np.mean(boxes or 0)
        object_loss += np.mean(objects) * (4.0, 1.0, 0.4)[level]
        class_loss += np.mean(classes or 0)
    return [0.05 * box_loss, object_loss, 0.5 * class_loss]


SIMILARITY = {
    "ciou": lambda iou, nwd: iou,
    "nwd": lambda iou, nwd: nwd,
    "ciou+nwd": lambda iou, nwd: (iou + nwd) / 2,
}


@pytest.mark.parametrize("box_loss", SIMILARITY)
@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.0), (1.5, 0.1)])
def test_every_option_equals_slow_loops(box_loss: str, gamma: float, smoothing: float) -> None:
    raw, targets = options_case()
    loss = DetectionLoss(
        ANCHORS, 3, box_loss=box_loss, fl_gamma=gamma, label_smoothing=smoothing, strides=STRIDES
    )
    _, terms = loss(raw, targets)
    expected = loss_by_loops(raw, targets, SIMILARITY[box_loss], gamma, smoothing)
    torch.testing.assert_close(terms, torch.tensor(expected, dtype=torch.float32), rtol=2e-5, atol=1e-6)


def test_options_that_are_off_change_not_a_bit() -> None:
    raw, targets = options_case()
    ignores = torch.tensor([[0, 0.25, 0.5, 0.5, 1.0]])
    off = DetectionLoss(ANCHORS, 3, box_loss="ciou", nwd_constant=1.0, fl_gamma=0.0, strides=STRIDES)
    assert torch.equal(off(raw, targets, ignores)[0], DetectionLoss(ANCHORS, 3)(raw, targets, ignores)[0])


@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("logit", [-300.0, -95.0, -20.0, 20.0, 95.0, 300.0])
def test_the_focal_loss_has_finite_gradients_however_sure_the_network_is(gamma: float, logit: float) -> None:
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.5]])
    grads = []
    for dtype in (torch.float32, torch.float64):
        anchors = torch.full((1, 1, 2), 2.0, dtype=dtype)
        raw = torch.full((1, 1, 4, 4, 7), logit, dtype=dtype, requires_grad=True)
        loss, _ = DetectionLoss(anchors, 2, fl_gamma=gamma)([raw], targets.to(dtype))
        loss.backward()
        assert loss.isfinite() and raw.grad is not None and raw.grad.isfinite().all()
        grads.append(raw.grad.double())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-7)


def test_the_focal_loss_has_no_gradient_in_ignored_cells() -> None:
    raw, targets = options_case()
    ignores = torch.tensor([[0, 0.25, 0.5, 0.5, 1.0], [1, 0.5, 0.5, 1.0, 1.0]])
    maps = [level.clone().requires_grad_() for level in raw]
    DetectionLoss(ANCHORS, 3, fl_gamma=2.0)(maps, targets[:0], ignores)[0].backward()
    for level in maps:
        half = level.shape[3] // 2
        assert (level.grad[0, :, :, :half, 4] == 0).all()
        assert (level.grad[1, ..., 4] == 0).all()
        assert (level.grad[0, :, :, half:, 4] > 0).all()


@pytest.mark.parametrize("box_loss", ["nwd", "ciou+nwd"])
def test_a_box_that_misses_its_object_still_gets_a_gradient_from_nwd(box_loss: str) -> None:
    torch.manual_seed(0)
    raw = [torch.zeros(1, 3, size, size, 8, requires_grad=True) for size in (8, 4, 2)]
    targets = torch.tensor([[0, 1, 0.5, 0.5, 5 / 64, 5 / 64]])
    loss = DetectionLoss(ANCHORS, 3, box_loss=box_loss, strides=STRIDES)
    loss(raw, targets)[0].backward()
    assert raw[0].grad[..., :4].abs().sum() > 0


def test_nwd_without_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the strides"):
        DetectionLoss(ANCHORS, 3, box_loss="nwd")
