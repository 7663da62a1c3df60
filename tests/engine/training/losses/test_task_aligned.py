"""The loss of anchor-free heads against slow loops, and its own properties."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.training.losses.task_aligned import (
    Cells,
    Objects,
    TaskAlignedLoss,
    assign,
    distribution_focal_loss,
)
from models.layers.anchor_free import AnchorFreeDetect
from utils.boxes import box_iou, ciou, xyxy_to_xywh

BINS, CLASSES, STRIDES = 6, 3, (8.0, 16.0)
GRIDS = ((4, 6), (2, 3))
SIZE = torch.tensor([48.0, 32.0, 48.0, 32.0])  # width, height, pixels


def make_head() -> AnchorFreeDetect:
    head = AnchorFreeDetect(CLASSES, (8, 8), BINS)
    head.stride = torch.tensor(STRIDES)
    return head


def random_raw(images: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(images, 1, h, w, 4 * BINS + CLASSES, dtype=dtype) for h, w in GRIDS]


def random_targets(*images: int) -> Tensor:
    targets = torch.rand(len(images), 6)
    targets[:, 0] = torch.tensor(images)
    targets[:, 1] = torch.randint(CLASSES, (len(images),))
    targets[:, 2:4] = targets[:, 2:4] * 0.6 + 0.2
    targets[:, 4:6] = targets[:, 4:6] * 0.5 + 0.02
    return targets


def decoded(raw: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes as corners and scores, from the head's own decoding, which has a slow test of its own."""
    values = make_head().decode(raw)
    center, half = values[..., :2], values[..., 2:4] / 2
    return torch.cat((center - half, center + half), -1), values[..., 5:]


def slow_assignment(
    scores: Tensor, boxes: Tensor, cells: Cells, targets: list[list[float]], topk: int
) -> dict[int, tuple[int, float]]:
    """Return, for one image, cell -> (object, target of the score); objects are class, x1, y1, x2, y2."""
    claims: dict[int, list[tuple[float, int, float]]] = {}
    for number, (category, x1, y1, x2, y2) in enumerate(targets):
        reach_x, reach_y = max((x2 - x1) / 2, min(STRIDES)), max((y2 - y1) / 2, min(STRIDES))
        candidates = []
        for cell in range(len(cells.centers)):
            x, y = cells.centers[cell].tolist()
            if abs(x - (x1 + x2) / 2) < reach_x and abs(y - (y1 + y2) / 2) < reach_y:
                overlap = max(float(box_iou(torch.tensor([[x1, y1, x2, y2]]), boxes[cell][None])), 1e-4)
                alignment = float(scores[cell, int(category)]) ** 0.5 * overlap**6
                candidates.append((alignment, cell, overlap))
        for alignment, cell, overlap in sorted(candidates, reverse=True)[:topk]:
            claims.setdefault(cell, []).append((overlap, number, alignment))
    winners = {cell: max(claim) for cell, claim in claims.items()}
    result = {}
    for cell, (_, number, alignment) in winners.items():
        own = [claim for claim in winners.values() if claim[1] == number]
        largest, overlap = max(claim[2] for claim in own), max(claim[0] for claim in own)
        result[cell] = number, alignment / largest * overlap
    return result


@pytest.mark.parametrize("seed", range(20))
def test_the_assignment_equals_a_slow_loop(seed: int) -> None:
    torch.manual_seed(seed)
    raw, targets = random_raw(), random_targets(1, 0, 1, 1, 0)
    boxes, scores = decoded(raw)
    cells, objects = Cells.of(raw, STRIDES), Objects.of(targets, 2, SIZE)
    ours = assign(scores, boxes, cells, objects, topk=4)
    for image in range(2):
        own = [
            [float(category), *corners]
            for category, corners in zip(
                objects.classes[image].tolist(), objects.boxes_xyxy[image].tolist(), strict=True
            )
        ]
        own = [box for box, exists in zip(own, objects.exist[image].tolist(), strict=True) if exists]
        expected = slow_assignment(scores[image], boxes[image], cells, own, topk=4)
        assert ours.positive[image].nonzero()[:, 0].tolist() == sorted(expected)
        for cell, (number, score) in expected.items():
            assert ours.object[image, cell] == number
            assert float(ours.score[image, cell]) == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_a_slow_loop(seed: int) -> None:
    torch.manual_seed(seed)
    raw, targets = random_raw(), random_targets(0, 1, 1)
    loss_fn = TaskAlignedLoss(make_head(), box=2.0, cls=3.0, dfl=5.0)
    total, terms = loss_fn(raw, targets)

    boxes, scores = decoded(raw)
    cells, objects = Cells.of(raw, STRIDES), Objects.of(targets, 2, SIZE)
    matched = assign(scores, boxes, cells, objects)
    values = torch.cat([maps.flatten(1, 3) for maps in raw], 1)
    box_term = class_term = dfl_term = 0.0
    for image in range(2):
        for cell in range(len(cells.centers)):
            weight, number = float(matched.score[image, cell]), int(matched.object[image, cell])
            for category in range(CLASSES):
                is_own = bool(matched.positive[image, cell]) and objects.classes[image, number] == category
                goal, p = (weight if is_own else 0.0), float(scores[image, cell, category])
                class_term -= goal * math.log(p) + (1 - goal) * math.log(1 - p)
            if not matched.positive[image, cell]:
                continue
            target = objects.boxes_xyxy[image, number]
            pair = xyxy_to_xywh(boxes[image, cell][None]), xyxy_to_xywh(target[None])
            box_term += (1 - float(ciou(*pair))) * weight
            x, y = cells.centers[cell].tolist()
            sides = [x - target[0], y - target[1], target[2] - x, target[3] - y]
            for side, pixels in enumerate(sides):
                distance = min(max(float(pixels) / float(cells.strides[cell]), 0), BINS - 1.01)
                logs = values[image, cell, side * BINS : (side + 1) * BINS].log_softmax(0).tolist()
                below, share = int(distance), distance - int(distance)
                dfl_term -= (logs[below] * (1 - share) + logs[below + 1] * share) * weight / 4
    scale = max(float(matched.score.sum()), 1.0)
    expected = [2 * box_term / scale, 3 * class_term / scale, 5 * dfl_term / scale]
    assert terms.tolist() == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(2 * sum(expected), rel=1e-4)


def test_the_order_of_the_targets_does_not_matter() -> None:
    torch.manual_seed(0)
    raw, targets = random_raw(3), random_targets(0, 2, 0, 2, 2)
    loss_fn = TaskAlignedLoss(make_head())
    torch.testing.assert_close(loss_fn(raw, targets)[0], loss_fn(raw, targets.flip(0))[0])


def test_an_object_smaller_than_a_cell_still_gets_cells() -> None:
    raw = random_raw(1)
    tiny = torch.tensor([[0, 1, 0.501, 0.501, 1 / 48, 1 / 32]])  # 1 px
    boxes, scores = decoded(raw)
    cells, objects = Cells.of(raw, STRIDES), Objects.of(tiny, 1, SIZE)
    center = objects.boxes_xyxy[0, 0].view(2, 2).mean(0)
    near = torch.cat((center - 2, center + 2)).expand_as(boxes)  # every cell predicts about that box
    assert int(assign(scores, near, cells, objects).positive.sum()) >= 4


def test_without_objects_only_the_class_term_remains() -> None:
    raw = random_raw()
    total, terms = TaskAlignedLoss(make_head())(raw, torch.zeros(0, 6))
    assert terms[0] == terms[2] == 0
    assert terms[1] > 0 and torch.isfinite(total)


def test_cells_in_an_ignored_region_have_no_class_loss() -> None:
    raw = random_raw(1)
    everywhere = torch.tensor([[0, 0.5, 0.5, 1.0, 1.0]])
    loss_fn = TaskAlignedLoss(make_head())
    assert float(loss_fn(raw, torch.zeros(0, 6), everywhere)[0]) == 0
    left = torch.tensor([[0, 0.25, 0.5, 0.5, 1.0]])
    changed = [maps.clone() for maps in raw]
    changed[0][:, :, :, :3] += 5  # the left half of the finer level
    torch.testing.assert_close(
        loss_fn(raw, torch.zeros(0, 6), left)[0], loss_fn(changed, torch.zeros(0, 6), left)[0]
    )


def test_the_distribution_loss_is_least_at_the_distance() -> None:
    distance = torch.tensor([2.3], dtype=torch.float64)
    shares = torch.tensor([[1e-9, 1e-9, 0.7, 0.3, 1e-9]], dtype=torch.float64)
    best = distribution_focal_loss(shares.log(), distance)
    for step in (-0.05, 0.05):
        moved = shares.clone()
        moved[0, 2] += step
        moved[0, 3] -= step
        assert distribution_focal_loss(moved.log(), distance) > best
    logits = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distribution_focal_loss, (logits, torch.rand(7, dtype=torch.float64) * 4))


def test_gradients_are_finite_for_extreme_maps_and_boxes() -> None:
    head, targets = make_head(), random_targets(0, 0, 1)
    targets[0, 4:] = 1e-6
    targets[1, 2:] = torch.tensor([0.5, 0.5, 2.0, 2.0])
    for value in (-1e4, 0.0, 1e4):
        raw = [torch.full((2, 1, h, w, 4 * BINS + CLASSES), value, requires_grad=True) for h, w in GRIDS]
        TaskAlignedLoss(head)(raw, targets)[0].backward()
        assert all(torch.isfinite(maps.grad).all() for maps in raw if maps.grad is not None)


def test_steps_on_one_image_find_its_objects() -> None:
    from models import build_model
    from utils.nms import non_max_suppression

    torch.manual_seed(0)
    model = build_model("yolov5n-u", num_classes=2)
    image = torch.rand(1, 3, 64, 64)
    targets = torch.tensor([[0, 0, 0.3, 0.3, 0.3, 0.3], [0, 1, 0.7, 0.6, 0.2, 0.4]])
    loss_fn = TaskAlignedLoss(model.head)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss_fn(model(image), targets)[0].backward()
        optimizer.step()
    boxes = non_max_suppression(model.head.decode(model(image)), 0.5)[0]  # statistics of this image
    expected = {0: [9.6, 9.6, 28.8, 28.8], 1: [38.4, 25.6, 51.2, 51.2]}
    assert sorted(boxes[:, 5].tolist()) == [0, 1]
    for box in boxes.tolist():
        assert box[:4] == pytest.approx(expected[int(box[5])], abs=3)
