"""utils/boxes.py and utils/overlap.py against slow, obvious loops."""

import math

import numpy as np
import pytest
import torch

from utils.boxes import box_area, box_iou, ciou, nwd, xywh_to_xyxy, xyxy_to_xywh
from utils.overlap import coverage_matrix, iou_matrix, spread_classes, suppress


def random_xywh(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 4, generator=generator, dtype=torch.float64) * 20 + 1


def slow_iou(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union else 0.0


def slow_ciou(a, b) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    corners_a = (ax - aw / 2, ay - ah / 2, ax + aw / 2, ay + ah / 2)
    corners_b = (bx - bw / 2, by - bh / 2, bx + bw / 2, by + bh / 2)
    iou = slow_iou(corners_a, corners_b)
    width = max(corners_a[2], corners_b[2]) - min(corners_a[0], corners_b[0])
    height = max(corners_a[3], corners_b[3]) - min(corners_a[1], corners_b[1])
    distance = ((ax - bx) ** 2 + (ay - by) ** 2) / (width**2 + height**2)
    v = 4 / math.pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2
    return iou - distance - v * v / (1 - iou + v) if v else iou - distance


def test_formats_are_inverse_of_each_other():
    boxes = random_xywh(50)
    torch.testing.assert_close(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes)
    assert xywh_to_xyxy(torch.tensor([10.0, 20, 4, 6])).tolist() == [8, 17, 12, 23]


def test_area_of_swapped_corners_is_zero():
    assert box_area(torch.tensor([[0.0, 0, 2, 3], [2, 3, 0, 0]])).tolist() == [6, 0]


@pytest.mark.parametrize("function", [box_iou, iou_matrix], ids=["torch", "numpy"])
def test_iou_of_every_pair_equals_the_loop(function):
    a, b = xywh_to_xyxy(random_xywh(30)), xywh_to_xyxy(random_xywh(20, seed=1))
    expected = [[slow_iou(row, column) for column in b.tolist()] for row in a.tolist()]
    ours = function(a, b) if function is box_iou else function(a.numpy(), b.numpy())
    np.testing.assert_allclose(np.asarray(ours), expected, atol=1e-12)


@pytest.mark.parametrize("function", [box_iou, iou_matrix], ids=["torch", "numpy"])
def test_empty_boxes_have_iou_zero_and_empty_sets_are_fine(function):
    make = torch.zeros if function is box_iou else np.zeros
    assert function(make((1, 4)), make((1, 4))).tolist() == [[0.0]]
    assert function(make((0, 4)), make((3, 4))).shape == (0, 3)


def test_coverage_is_the_share_inside():
    crowd = np.array([[0.0, 0, 10, 10]])
    boxes = np.array([[0.0, 0, 5, 5], [5, 5, 15, 15], [20, 20, 30, 30], [1, 1, 1, 1]])
    assert coverage_matrix(boxes, crowd)[:, 0].tolist() == [1.0, 0.25, 0.0, 0.0]


def test_ciou_equals_the_loop():
    a, b = random_xywh(100), random_xywh(100, seed=1)
    expected = [slow_ciou(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(ciou(a, b, eps=0), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(ciou(a, b), ciou(b, a))
    torch.testing.assert_close(ciou(a, a), torch.ones(100, dtype=torch.float64), atol=1e-6, rtol=0)


def test_ciou_of_strided_input_is_the_same():
    a, b = random_xywh(20), random_xywh(20, seed=1)
    torch.testing.assert_close(ciou(a[::2], b[::2]), ciou(a[::2].clone(), b[::2].clone()), rtol=0, atol=0)


def test_nwd_equals_the_distance_of_two_gaussians():
    a, b = random_xywh(50), random_xywh(50, 1)
    expected = []
    for left, right in zip(a.tolist(), b.tolist(), strict=True):
        # the 2-Wasserstein distance of N(m, S) and N(n, T) with diagonal S, T: |m - n|^2 + |S^.5 - T^.5|^2
        centers = (left[0] - right[0]) ** 2 + (left[1] - right[1]) ** 2
        deviations = (left[2] / 2 - right[2] / 2) ** 2 + (left[3] / 2 - right[3] / 2) ** 2
        expected.append(math.exp(-math.sqrt(centers + deviations) / 12.8))
    torch.testing.assert_close(nwd(a, b, 12.8, eps=0), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(nwd(a, a, 12.8), torch.ones(50, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(nwd(a, b, 12.8), nwd(3 * a, 3 * b, 3 * 12.8), atol=1e-4, rtol=0)


def test_gradients_of_nwd_match_finite_differences_and_are_finite_at_equality():
    a, b = random_xywh(10).requires_grad_(), random_xywh(10, 1)
    assert torch.autograd.gradcheck(lambda x: nwd(x, b, 12.8), (a,))
    (at_equality,) = torch.autograd.grad(nwd(a, a.detach(), 12.8).sum(), a)
    assert at_equality.isfinite().all()


def test_gradients_match_finite_differences():
    a, b = random_xywh(6).requires_grad_(), random_xywh(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: box_iou(xywh_to_xyxy(x), xywh_to_xyxy(y)), (a, b))
    # alpha is held constant in CIoU's gradient; with boxes of equal shape it vanishes and leaves the rest
    same = (a.detach() * torch.tensor([1.0, 1, 1.5, 1.5])).requires_grad_()
    shifted = same.detach() + torch.tensor([1.0, -0.5, 0, 0])
    assert torch.autograd.gradcheck(lambda x: ciou(x, shifted), (same,), atol=1e-4)


def test_alpha_is_constant_to_the_gradient():
    a, b = random_xywh(1).requires_grad_(), random_xywh(1, seed=1)
    (ours,) = torch.autograd.grad(ciou(a, b).sum(), a)

    def terms(x):
        v = 4 / math.pi**2 * (torch.atan(b[:, 2] / b[:, 3]) - torch.atan(x[:, 2] / x[:, 3])).square()
        iou = box_iou(xywh_to_xyxy(x), xywh_to_xyxy(b))[0]
        return v, v / (1 - iou + v)

    v, alpha = terms(a)
    (through_alpha,) = torch.autograd.grad((alpha * v.detach()).sum(), a)
    probe = torch.eye(4, dtype=torch.float64) * 1e-6
    numeric = torch.stack([(ciou(a + d, b) - ciou(a - d, b))[0] / 2e-6 for d in probe])
    torch.testing.assert_close(ours[0], numeric.detach() + through_alpha[0], atol=1e-5, rtol=1e-4)


def slow_suppress(boxes, iou_thres, max_keep):
    kept = []
    for i, box in enumerate(boxes):
        if len(kept) < max_keep and all(slow_iou(box, boxes[k]) <= iou_thres for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("max_keep", [3, 20, 1000])
def test_suppression_equals_the_loop_whatever_the_block(max_keep):
    boxes = xywh_to_xyxy(random_xywh(150)).numpy()
    expected = slow_suppress(boxes.tolist(), 0.3, max_keep)
    for block in (1, 7, 64, 1000):
        assert suppress(boxes, 0.3, max_keep, block).tolist() == expected


def test_classes_spread_apart_and_tiny_boxes_stay_sharp():
    boxes = np.array([[600.1, 600.1, 602.2, 602.3], [600.1, 600.1, 602.2, 602.3]], np.float32)
    spread = spread_classes(boxes, np.array([0, 79]))
    assert iou_matrix(spread[:1], spread[1:]).item() == 0
    np.testing.assert_allclose(spread[1, 2] - spread[1, 0], boxes[1, 2] - boxes[1, 0], atol=1e-4)
    assert spread_classes(np.zeros((0, 4)), np.zeros(0)).shape == (0, 4)
