"""The networks without stride 32, for data where all objects are small, build, train and export."""

from __future__ import annotations

import pytest
import torch

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.runtimes import load_predictor
from engine.training.losses.detection import DetectionLoss
from models import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from models.summary import count_parameters

PARAMETERS = {  # at 80 classes
    "yolov5n-p234": 567_869,
    "yolov5s-p234": 2_141_565,
    "yolov5m-p234": 6_616_125,
    "yolov5n-spd-p234": 996_413,
    "yolov5s-spd-p234": 3_855_741,
    "yolov5m-spd-p234": 10_473_021,
}
NAMES = ["yolov5n-p234", "yolov5n-spd-p234"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_documented_ones(name):
    assert count_parameters(build_model(name)) == PARAMETERS[name]


def test_the_spd_form_has_the_papers_block_wherever_the_other_has_a_strided_3x3_convolution():
    assert build_model("yolov5n-spd-p234-u").yaml == build_model("yolov5n-p234-u", downsample="spd").yaml


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_strides_4_8_and_16_at_every_multiple_of_16(name):
    model = build_model(name, num_classes=3)
    assert model.stride.tolist() == [4, 8, 16]
    for height, width in ((48, 80), (16, 112)):
        maps = model(torch.rand(2, 3, height, width))
        assert [level.shape for level in maps] == [(2, 3, height // s, width // s, 8) for s in (4, 8, 16)]
    with pytest.raises(ValueError, match="multiples of the stride, 16"):
        model(torch.rand(1, 3, 40, 48))


@pytest.mark.parametrize("name", NAMES)
def test_training_steps_lower_the_loss(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=2)
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), 0.01), DetectionLoss(model.head.anchors, 2)
    images = torch.rand(2, 3, 48, 80)
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.1, 0.15], [1, 1, 0.3, 0.6, 0.2, 0.2]])
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss, _ = loss_fn(model(images), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_export_equals_pytorch_at_a_size_that_stride_32_refuses(tmp_path):
    model = build_model("yolov5n-spd-p234", num_classes=2)
    save_checkpoint(tmp_path / "best.pt", to_checkpoint(model))
    assert export.main(ExportConfig.of(weights=tmp_path / "best.pt", imgsz=(48, 80))) == 0
    ours, theirs = load_predictor(tmp_path / "best.pt"), load_predictor(tmp_path / "best.onnx")
    images = torch.rand(1, 3, 48, 80)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)
