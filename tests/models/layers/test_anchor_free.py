import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.training.tasks.detection import warn_of_long_boxes
from models import build_model, fuse_detector
from models.layers.anchor_free import AnchorFreeDetect
from utils.errors import UserError

BINS = 5


def make_head(num_classes: int = 3, channels: tuple[int, ...] = (8, 16)) -> AnchorFreeDetect:
    head = AnchorFreeDetect(num_classes, channels, BINS)
    head.stride = torch.tensor([8.0, 16.0])[: len(channels)]
    return head


def test_decoding_equals_the_formula_cell_by_cell() -> None:
    head = make_head()
    raw = [torch.randn(2, 1, 3, 5, 4 * BINS + 3), torch.randn(2, 1, 2, 4, 4 * BINS + 3)]
    expected = []
    for image in range(2):
        predictions = []
        for values, stride in zip(raw, (8, 16), strict=True):
            for row in range(values.shape[2]):
                for column in range(values.shape[3]):
                    cell = values[image, 0, row, column].tolist()
                    sides = []
                    for side in range(4):
                        powers = [math.exp(value) for value in cell[side * BINS : (side + 1) * BINS]]
                        sides.append(sum(i * power for i, power in enumerate(powers)) / sum(powers) * stride)
                    left, top, right, bottom = sides
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    box = [x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom]
                    scores = [1 / (1 + math.exp(-value)) for value in cell[4 * BINS :]]
                    predictions.append([*box, 1.0, *scores])
        expected.append(predictions)
    torch.testing.assert_close(head.decode(raw), torch.tensor(expected))


def test_raw_maps_hold_the_branches_of_each_cell() -> None:
    head = make_head().eval()
    maps = [torch.randn(2, 8, 3, 5), torch.randn(2, 16, 2, 4)]
    decoded, raw = head(maps)
    assert decoded.shape == (2, 3 * 5 + 2 * 4, 5 + 3)
    for level, x in enumerate(maps):
        assert raw[level].shape == (2, 1, *x.shape[2:], 4 * BINS + 3)
        box, score = head.boxes[level](x), head.scores[level](x)
        torch.testing.assert_close(raw[level][1, 0, 1, 2], torch.cat((box, score), 1)[1, :, 1, 2])


def test_strides_stay_in_float32_when_the_head_goes_to_half() -> None:
    head = make_head().half()
    assert head.stride.dtype == torch.float32
    assert head.scores[0][-1].weight.dtype == torch.float16


@pytest.mark.parametrize("name", ["yolov5n-spd-u", "yolov5n-u", "yolov5n-spd-p2-u"])
def test_the_first_scores_are_those_of_eight_objects_in_a_640_px_image(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=4)
    for score, stride in zip(model.head.scores, model.stride.tolist(), strict=True):
        expected = 8 / 4 / (640 / stride) ** 2
        assert score[-1].bias.exp().tolist() == pytest.approx([expected] * 4, rel=1e-5)


def test_fusing_changes_the_output_by_rounding_only() -> None:
    torch.manual_seed(0)
    model = build_model("yolov5n-spd-u", num_classes=2)
    for _ in range(2):  # statistics of BatchNorm
        model(torch.rand(2, 3, 64, 64))
    image = torch.rand(1, 3, 96, 64, dtype=torch.float64)
    model.double().eval()
    before: Tensor = model(image)[0].clone()
    after = fuse_detector(model)(image)[0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_row_of_anchors_is_not_needed_and_not_kept() -> None:
    model = build_model("yolov5n-u", num_classes=2)
    assert "anchors" not in model.yaml
    assert model.anchor_head is None
    with pytest.raises(ValueError, match="no anchors"):
        model.set_anchors(torch.ones(3, 3, 2))


def test_no_box_is_longer_than_the_head_says() -> None:
    head = make_head()
    raw = [torch.full((1, 1, *size, 4 * BINS + 3), -1e4) for size in ((3, 5), (2, 4))]
    for level in raw:
        level[..., BINS - 1 : 4 * BINS : BINS] = 1e4  # all of every share in the last bin
    assert head.decode(raw)[..., 2:4].max().item() == head.longest_side == 2 * (BINS - 1) * 16


def test_networks_for_small_objects_have_fewer_bins_and_older_checkpoints_theirs() -> None:
    assert [build_model(name).head.bins for name in ("yolov5n-p234-u", "yolov5n-spd-p234-u")] == [8, 8]
    assert build_model("yolov5n-p2-u").head.bins == 16
    assert "bins" not in build_model("yolov5n-p234").yaml
    row = build_model("yolov5n-p234-u").yaml["head"][-1]
    assert row[2:] == ["AnchorFreeDetect", ["nc", 8]]
    older = {**build_model("yolov5n-p234-u").yaml}
    older["head"] = [*older["head"][:-1], [row[0], 1, "AnchorFreeDetect", ["nc"]]]
    assert build_model(older).head.bins == 16
    older["head"][-1] = [row[0], 1, "AnchorFreeDetect", ["nc", 1]]
    with pytest.raises(UserError, match="bins must be at least 2, got 1"):
        build_model(older)


def test_training_tells_of_objects_that_the_head_cannot_frame(caplog: pytest.LogCaptureFixture) -> None:
    head = make_head()  # 128 pixels
    warn_of_long_boxes(head, np.array([[128.0, 20.0], [20.0, 128.0]]))
    assert not caplog.records
    warn_of_long_boxes(head, np.array([[129.0, 20.0], [20.0, 20.0]]))
    assert "1 object of 2 exceeds 128 px" in caplog.text
    warn_of_long_boxes(head, np.zeros((0, 2)))
    assert len(caplog.records) == 1
