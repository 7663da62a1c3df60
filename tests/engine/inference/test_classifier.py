"""`Classifier`: the most probable classes of paths, arrays and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.inference.classifier import Classifier, ClassProbabilities
from tests.rectangles import draw_image, save, save_video
from utils.errors import UserError


class Brightness:
    """A classifier that is 90% sure of what is bright and what is dark."""

    stride, imgsz, task = 1, None, "classify"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.names, self.config, self.shapes = ["dark", "bright"], {"imgsz": 32}, []

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        sure = torch.tensor(0.9).logit()
        is_bright = images.mean((1, 2, 3)) > 0.5
        return torch.stack((torch.zeros(len(images)), torch.where(is_bright, sure, -sure)), 1)


@pytest.fixture
def network(monkeypatch) -> Brightness:
    network = Brightness()
    asked = network.__dict__.setdefault("asked", {})
    monkeypatch.setattr(
        "engine.runtimes.load_predictor", lambda weights, device, **options: asked.update(options) or network
    )
    return network


BRIGHT, DARK = np.full((40, 60, 3), 230, np.uint8), np.full((60, 40, 3), 20, np.uint8)


def test_images_come_back_with_their_classes_in_order(network, tmp_path):
    classifier = Classifier("stub.pt", device="cpu")
    bright, dark = classifier([BRIGHT, DARK])
    assert bright.names == ("bright", "dark") and dark.names == ("dark", "bright")
    assert bright.probabilities == pytest.approx((0.9, 0.1), abs=1e-5)
    path = save(tmp_path / "a.png", DARK)
    [from_file] = classifier(path)
    assert from_file == ClassProbabilities(str(path), dark.names, pytest.approx(dark.probabilities))
    assert classifier.names == ["dark", "bright"]


def test_a_video_streams_frame_by_frame_in_batches(network, tmp_path):
    classifier = Classifier("stub.pt", device="cpu")
    video = save_video(tmp_path / "walk.avi", frames=7)
    assert len(list(classifier.stream(video, batch_size=3, vid_stride=2))) == 4
    assert [shape[0] for shape in network.shapes] == [3, 1]


def test_the_side_of_the_input_is_as_trained_unless_given(network):
    Classifier("stub.pt", device="cpu")(BRIGHT)
    Classifier("stub.pt", device="cpu", imgsz=48)(BRIGHT)
    assert [shape[2:] for shape in network.shapes] == [(32, 32), (48, 48)]


def test_half_precision_is_asked_of_the_network(network):
    Classifier("stub.pt", device="cpu", half=True)
    assert network.asked == {"half": True, "task": "classify"}


def test_half_precision_without_a_gpu_is_one_clear_line(tmp_path):
    weights = Path(__file__).parents[2] / "golden" / "yolov5n.pt"
    with pytest.raises(UserError, match="16-bit inference needs a GPU"):
        Classifier(weights, device="cpu", half=True)


@pytest.mark.parametrize(
    "source, message",
    [
        ("nowhere.jpg", "no such source"),
        ([], "no source given"),
        (draw_image()[..., :2], r"not \(240, 320, 2\)"),
    ],
)
def test_wrong_input_is_one_clear_line(network, source, message):
    with pytest.raises(UserError, match=message):
        Classifier("stub.pt", device="cpu")(source)
