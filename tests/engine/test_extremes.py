"""Black and saturated images, boxes of every size, no objects and thousands: finite and reproducible."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.training import command as train
from engine.training.hyperparameters import Hyperparameters
from engine.training.losses.classification import ClassificationLoss
from engine.training.losses.detection import DetectionLoss
from engine.training.losses.task_aligned import TaskAlignedLoss
from engine.training.optimizer import Schedule
from engine.training.state import TrainState
from models import build_model
from models.detection_model import DetectionModel
from models.downsample import DOWNSAMPLERS, RESAMPLERS, make_downsampler
from models.layers.anchor_free import AnchorFreeDetect
from models.registry import Scale, make_layer
from tests.training_cases import assert_same_end, config

SIDE, CLASSES, BINS = 64, 3, 4
STRIDES = (8.0, 16.0, 32.0)
IMAGES = {"black": 0.0, "white": 1.0, "far too bright": 255.0}
LOGITS = {"zeros": 0.0, "ones": 1.0, "large": 50.0, "saturated": 6e4, "negative": -6e4}
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
TARGETS = {  # image, class, cx, cy, w, h
    "no objects": torch.zeros(0, 6),
    "a box of one pixel": torch.tensor([[0, 0, 0.5, 0.5, 1 / SIDE, 1 / SIDE]]),
    "a box of one pixel in a corner": torch.tensor([[1, 2, 1.0, 1.0, 1 / SIDE, 1 / SIDE]]),
    "a box of no size": torch.tensor([[0, 1, 0.5, 0.5, 0.0, 0.0]]),
    "a box as large as the image": torch.tensor([[0, 1, 0.5, 0.5, 1.0, 1.0]]),
    "a box larger than the image": torch.tensor([[1, 1, 0.5, 0.5, 40.0, 40.0]]),
    "a line": torch.tensor([[0, 1, 0.5, 0.5, 1.0, 1e-4]]),
    "10,000 objects": torch.cat(
        (torch.arange(10_000)[:, None] % 2, torch.arange(10_000)[:, None] % CLASSES,
         torch.rand(10_000, 4, generator=torch.Generator().manual_seed(0))), 1,
    ),
}  # fmt: skip
BLOCKS: dict[str, list] = {
    "Conv": [8, 3, 2], "DWConv": [8, 3, 2], "Bottleneck": [8], "C3": [8], "GhostConv": [8, 1, 1],
    "GhostBottleneck": [8, 3, 2], "C3Ghost": [8], "BottleneckCSP": [8], "C3x": [8], "C3SPP": [8, [3, 5]],
    "CrossConv": [8, 3, 1], "Contract": [2], "Expand": [2], "nn.ConvTranspose2d": [8, 2, 2], "C3TR": [8],
    "SPP": [8, [3, 5]], "SPPF": [8, 5], "Focus": [8, 3], "SpaceToDepth": [1], "nn.MaxPool2d": [2, 2],
    "nn.Upsample": [None, 2, "nearest"], "nn.ZeroPad2d": [[0, 1, 0, 1]],
    **{f"Downsample {name}": [8, name] for name in (*DOWNSAMPLERS, *RESAMPLERS)},
}  # fmt: skip


def finite(*values: Tensor | None) -> bool:
    return all(bool(value.isfinite().all()) for value in values if value is not None)


def check_block(block: nn.Module, x: Tensor, autocast: torch.dtype | None = None) -> None:
    """Output, statistics and gradients are finite, in training and in eval mode."""
    for training in (True, False):
        block.train(training).zero_grad()
        x = x.detach().requires_grad_()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            y = block(x)
        y.float().mean().backward()
        assert finite(y, x.grad, *block.state_dict().values())
        assert finite(*(parameter.grad for parameter in block.parameters()))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_finite_for_black_and_for_saturated_images(name: str) -> None:
    torch.manual_seed(0)
    block, _ = make_layer(name.split()[0], [8], Scale(1.0, 1.0, 8), BLOCKS[name], 1)
    for value in IMAGES.values():
        for dtype in PRECISIONS:
            check_block(block.to(dtype), torch.full((2, 8, 8, 8), value, dtype=dtype))
        for dtype in (torch.bfloat16, torch.float16):
            check_block(block.float(), torch.full((2, 8, 8, 8), value), autocast=dtype)


def test_every_block_that_a_yaml_can_name_is_tried() -> None:
    from models.registry import BLOCKS as REGISTERED

    tried = {name.split()[0] for name in BLOCKS}
    aliases = {"space_to_depth", "Upsample", "Concat", "Detect", "AnchorFreeDetect"}
    assert set(REGISTERED) - tried == aliases


def maps(value: float, dtype: torch.dtype, anchors: int, values: int) -> list[Tensor]:
    """Raw maps of one value; (2, anchors, H, W, values) of each level, with gradients."""
    sides = [SIDE // int(stride) for stride in STRIDES]
    return [torch.full((2, anchors, s, s, values), value, dtype=dtype, requires_grad=True) for s in sides]


def check_loss(loss_fn: object, raw: list[Tensor], targets: Tensor) -> None:
    ignores = torch.tensor([[0, 0.5, 0.5, 1.0, 1.0]])
    loss, terms = loss_fn(raw, targets, ignores)  # type: ignore[operator]
    loss.backward()
    assert finite(loss, terms, *(level.grad for level in raw))


@pytest.mark.parametrize("objects", TARGETS)
@pytest.mark.parametrize("kind", ["ciou", "nwd", "ciou+nwd", "focal", "smoothed"])
def test_the_detection_loss_is_finite(objects: str, kind: str) -> None:
    settings = {
        "focal": {"fl_gamma": 2.0},
        "smoothed": {"label_smoothing": 0.1, "cls_pw": 4.0, "obj_pw": 4.0},
    }.get(kind, {"box_loss": kind, "strides": STRIDES})
    anchors = torch.tensor([[[1.25, 1.6], [64.0, 64.0]]]).repeat(3, 1, 1)
    loss_fn = DetectionLoss(anchors, CLASSES, **settings)  # type: ignore[arg-type]
    for value in LOGITS.values():
        for dtype in PRECISIONS if len(TARGETS[objects]) < 100 else PRECISIONS[:1]:
            check_loss(loss_fn, maps(value, dtype, 2, 5 + CLASSES), TARGETS[objects])


@pytest.mark.parametrize("objects", TARGETS)
def test_the_loss_of_anchor_free_heads_is_finite(objects: str) -> None:
    head = AnchorFreeDetect(CLASSES, (8, 8, 8), BINS)
    head.stride = torch.tensor(STRIDES)
    loss_fn = TaskAlignedLoss(head)
    for value in LOGITS.values():
        for dtype in PRECISIONS if len(TARGETS[objects]) < 100 else PRECISIONS[:1]:
            check_loss(loss_fn, maps(value, dtype, 1, 4 * BINS + CLASSES), TARGETS[objects])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_classification_loss_is_finite(dtype: torch.dtype) -> None:
    loss_fn = ClassificationLoss(0.1, lambda: torch.tensor(2.0), 0.1)
    for value in LOGITS.values():
        logits = (torch.eye(CLASSES) * value).to(dtype).requires_grad_()
        loss, terms = loss_fn(logits, torch.eye(CLASSES).flip(0))
        loss.backward()
        assert finite(loss, terms, logits.grad)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_loss_of_a_whole_network_is_finite(autocast: torch.dtype | None) -> None:
    torch.manual_seed(0)
    model = build_model("yolov5n-spd", CLASSES)
    assert isinstance(model, DetectionModel)
    loss_fn = DetectionLoss(model.head.anchors, CLASSES)
    for value in IMAGES.values():
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            raw = model(torch.full((2, 3, SIDE, SIDE), value))
        for targets in TARGETS.values():
            loss, terms = loss_fn(raw, targets)
            gradients = torch.autograd.grad(loss, raw, retain_graph=True)
            assert finite(loss, terms, *gradients, *model.state_dict().values())


def test_a_batch_of_black_images_does_not_break_the_weights() -> None:
    """BatchNorm multiplies the gradient by 1 / sqrt(eps) where an image is of one color: it can overflow."""
    torch.manual_seed(0)
    model = build_model("yolov5n", CLASSES)
    hyp = Hyperparameters(nominal_batch=2, warmup_epochs=0, warmup_iterations=0)
    state = TrainState(model, hyp, Schedule(1, 100, 2, 2, warmup_epochs=0.0))
    loss_fn = DetectionLoss(model.head.anchors, CLASSES)
    dropped, iteration = 0, 0
    for value in (0, 255):
        for targets in (TARGETS["no objects"], TARGETS["a box as large as the image"]):
            noise = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
            for images in (torch.full_like(noise, value), noise):
                terms = state.step(images, [targets], loss_fn, iteration)
                dropped, iteration = dropped + (terms is None), iteration + 1
                state.check_finite()
    assert dropped, "the overflow that this test is about"


@pytest.mark.parametrize("name", ["spd", "diffstride"])
def test_a_downsampler_trained_on_black_images_stays_finite(name: str) -> None:
    torch.manual_seed(0)
    block = make_downsampler(name, 4, 8)
    optimizer = torch.optim.SGD(block.parameters(), 1.0, 0.9)
    for _ in range(30):
        optimizer.zero_grad()
        block(torch.zeros(2, 4, 9, 8)).square().sum().backward()
        optimizer.step()
    assert finite(*block.state_dict().values())


def test_a_seed_gives_the_same_weights_to_the_bit_for_any_number_of_workers(
    squares: Path, tmp_path: Path
) -> None:
    for number, workers in enumerate((0, 0, 1, 2)):
        cfg = config(squares, tmp_path, name=f"run{number}", epochs=2, workers=workers, seed=7)
        assert train.main(cfg) == 0
    for number in (1, 2, 3):
        assert_same_end(tmp_path / "run0", tmp_path / f"run{number}")
    assert train.main(config(squares, tmp_path, name="other", epochs=2, seed=8)) == 0
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / "run0", tmp_path / "other")
