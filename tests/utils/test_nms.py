"""utils/nms.py against the reference's results and a slow, obvious loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.boxes import box_iou, xywh_to_xyxy
from utils.nms import non_max_suppression

GOLDEN = Path(__file__).parents[1] / "golden" / "nms.npz"
CASES = {
    "val": {"conf_thres": 0.001, "iou_thres": 0.6, "multi_label": True, "max_det": 300},
    "detect": {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000},
    "agnostic": {"conf_thres": 0.25, "iou_thres": 0.45, "agnostic": True, "max_det": 300},
    "classes": {"conf_thres": 0.1, "iou_thres": 0.5, "classes": [0, 2], "max_det": 300},
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def random_prediction(n: int = 400, nc: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(1, n, 5 + nc, generator=generator)
    pred[..., :2] *= 100
    pred[..., 2:4] = pred[..., 2:4] * 30 + 2
    return pred


def slow_nms(image, conf_thres, iou_thres, multi_label, max_det):
    candidates = []
    for row in image:
        scores = row[4] * row[5:]
        labels = range(len(scores)) if multi_label else [int(scores.argmax())]
        candidates += [(float(scores[c]), c, row[:4]) for c in labels if scores[c] > conf_thres]
    candidates.sort(key=lambda item: -item[0])
    boxes = torch.stack([xywh_to_xyxy(xywh) for _, _, xywh in candidates])
    overlap = (box_iou(boxes, boxes) > iou_thres).tolist()
    kept = []
    for i, (_, label, _) in enumerate(candidates):
        if not any(label == candidates[k][1] and overlap[i][k] for k in kept):
            kept.append(i)
    return torch.tensor([[*boxes[i].tolist(), *candidates[i][:2]] for i in kept[:max_det]])


@pytest.mark.parametrize("case", CASES)
def test_nms_matches_reference(golden, case):
    kept = non_max_suppression(torch.from_numpy(golden["pred"]), **CASES[case])
    for i, detections in enumerate(kept):
        expected = golden[f"{case}{i}"]
        assert set(map(tuple, detections.tolist())) == set(map(tuple, expected.tolist()))
        assert (detections[:-1, 4] >= detections[1:, 4]).all()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("max_det", [5, 1000])
def test_nms_equals_the_loop(multi_label, max_det):
    pred = random_prediction()
    (kept,) = non_max_suppression(pred, 0.05, 0.5, multi_label=multi_label, max_det=max_det)
    torch.testing.assert_close(kept, slow_nms(pred[0], 0.05, 0.5, multi_label, max_det), atol=1e-4, rtol=0)


def test_early_stop_keeps_a_prefix_of_the_full_result():
    pred = random_prediction(2000)
    (full,) = non_max_suppression(pred, 0.001, 0.6, multi_label=True, max_det=10_000)
    (short,) = non_max_suppression(pred, 0.001, 0.6, multi_label=True, max_det=50)
    assert len(full) > 300
    assert torch.equal(full[:50], short)


def test_predictions_that_are_not_finite_are_dropped():
    pred = random_prediction(20)
    (expected,) = non_max_suppression(pred[:, 6:], 0.01, 0.5, multi_label=True)
    pred[0, 0, 0] = pred[0, 1, 4] = float("nan")
    pred[0, 2, 5:] = float("nan")
    pred[0, 3, 2] = pred[0, 4, 4] = float("inf")
    pred[0, 5, 1] = -float("inf")
    for multi_label in (True, False):
        (kept,) = non_max_suppression(pred, 0.01, 0.5, multi_label=multi_label)
        assert kept.isfinite().all()
    assert torch.equal(non_max_suppression(pred, 0.01, 0.5, multi_label=True)[0], expected)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_one_bad_class_score_does_not_hide_the_others(bad):
    pred = torch.tensor([[[10.0, 10, 4, 4, 1, float(bad), 0.9], [50, 50, 4, 4, 1, float(bad), float(bad)]]])
    for multi_label in (True, False):
        (kept,) = non_max_suppression(pred, multi_label=multi_label)
        assert kept[:, 4:].tolist() == [[pytest.approx(0.9), 1.0]]


def test_half_precision_gives_float32_near_the_full_result():
    pred = random_prediction(50)
    (full,) = non_max_suppression(pred.half().float(), 0.3)
    (half,) = non_max_suppression(pred.half(), 0.3)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full)


def test_no_detections_are_an_empty_result_for_each_image():
    kept = non_max_suppression(torch.zeros(2, 7, 8))
    assert [tuple(detections.shape) for detections in kept] == [(0, 6), (0, 6)]
    assert tuple(non_max_suppression(torch.zeros(1, 0, 8))[0].shape) == (0, 6)


def test_input_is_not_changed_and_may_be_strided():
    pred = random_prediction(100)
    wide = pred.repeat_interleave(2, 1)[:, ::2]
    before = pred.clone()
    assert torch.equal(non_max_suppression(wide)[0], non_max_suppression(pred)[0])
    assert torch.equal(pred, before)


def test_classes_that_do_not_exist_give_no_detections():
    assert len(non_max_suppression(random_prediction(), 0.1, classes=[7])[0]) == 0
    assert len(non_max_suppression(random_prediction(), 0.1, classes=[])[0]) == 0


@pytest.mark.parametrize(
    ("pred", "options", "message"),
    [
        (torch.zeros(3, 8), {}, r"\(B, N, 5 \+ classes\)"),
        (torch.zeros(1, 3, 5), {}, r"got \(1, 3, 5\)"),
        (torch.zeros(1, 3, 8), {"conf_thres": 1.5}, "0..1"),
    ],
)
def test_wrong_input_is_an_error_that_says_what_is_right(pred, options, message):
    with pytest.raises(ValueError, match=message):
        non_max_suppression(pred, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nms_on_the_gpu_equals_the_cpu():
    pred = random_prediction(2000)
    (cpu,) = non_max_suppression(pred, 0.01, 0.5, multi_label=True)
    (gpu,) = non_max_suppression(pred.cuda(), 0.01, 0.5, multi_label=True)
    assert gpu.is_cuda
    torch.testing.assert_close(gpu.cpu(), cpu)
