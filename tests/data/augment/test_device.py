from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.augment.device import PlannedBatch, render
from data.augment.settings import AugmentationSettings
from data.batch import Batch
from data.dataset_yaml import DatasetConfig
from data.detection.dataset import DetectionDataset
from data.detection.loader import build_loader
from data.image_record import ImageRecord, ground_truth_arrays

PLAIN = AugmentationSettings.only()
MOSAIC = AugmentationSettings.only(translate=0.1, scale=0.5, mosaic=1.0, fliplr=0.5, flipud=0.5, rot90=0.5)
COLORS = MOSAIC.model_copy(update={"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4})
WARPED = MOSAIC.model_copy(update={"degrees": 20.0, "shear": 5.0, "perspective": 0.0003, "mosaic": 0.5})
EVERYTHING = WARPED.model_copy(
    update={"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "mixup": 0.5, "copy_paste": 0.8}
)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    """Smooth images of several sizes, with small objects."""
    import cv2

    records = []
    for number, (width, height) in enumerate([(160, 120), (90, 130), (300, 260), (96, 96)]):
        rng = np.random.default_rng(number)
        image = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (width, height))
        boxes = np.array([[20, 20, 34, 30], [50, 60, 66, 70], [60, 20, 70, 34]], np.float32)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        annotations = ground_truth_arrays(boxes, [0, 1, 0], crowd=[False, False, number == 1])
        records.append(ImageRecord(tmp_path / f"{number}.png", number, width, height, *annotations))
    return records


def batches(
    records: list[ImageRecord], augmentation: AugmentationSettings, workers: int = 0, **options: object
) -> tuple[list[Batch], list[Batch]]:
    """The same batches made by workers and by `render`."""
    cpu = DetectionDataset(records * 3, 96, augmentation, **options)  # type: ignore[arg-type]
    device = DetectionDataset(records * 3, 96, augmentation, augment_on="device", **options)  # type: ignore[arg-type]
    loaders = [build_loader(dataset, 5, True, workers) for dataset in (cpu, device)]
    for loader in loaders:
        loader.set_epoch(2)
    return list(loaders[0]), [render(batch, "cpu") for batch in loaders[1]]


@pytest.mark.parametrize("cache", [None, "ram"])
@pytest.mark.parametrize(
    ("augmentation", "far"),
    [(PLAIN, 0.0), (MOSAIC, 0.02), (COLORS, 0.02), (WARPED, 0.05), (EVERYTHING, 0.05)],
    ids=["plain", "mosaic", "colors", "warped", "everything"],
)
def test_pixels_agree_and_boxes_are_equal(
    records: list[ImageRecord], augmentation: AugmentationSettings, far: float, cache: str | None
) -> None:
    for ours, theirs in zip(*batches(records, augmentation, cache=cache), strict=True):
        assert torch.equal(ours.targets, theirs.targets)
        assert torch.equal(ours.ignores, theirs.ignores)
        assert ours.indices == theirs.indices
        assert theirs.images.dtype == torch.uint8
        difference = (ours.images.int() - theirs.images.int()).abs()
        if augmentation is PLAIN:
            assert difference.max() == 0
        # where images meet, and on their rims, the two interpolate differently
        assert (difference > 6).float().mean() <= far
        assert difference.float().mean() < 2.5


def test_no_mean_or_spread_tells_the_two_apart(records: list[ImageRecord]) -> None:
    ours, theirs = batches(records, EVERYTHING.model_copy(update={"copy_paste": 0.0}))
    one, other = (torch.cat([batch.images for batch in side]).float() for side in (ours, theirs))
    torch.testing.assert_close(one.mean((0, 2, 3)), other.mean((0, 2, 3)), atol=1.0, rtol=0)
    torch.testing.assert_close(one.std((0, 2, 3)), other.std((0, 2, 3)), atol=1.5, rtol=0)


def test_planned_batches_do_not_depend_on_workers_or_chunks(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, alone = batches(records, EVERYTHING)
    monkeypatch.setattr("data.augment.device.CHUNK", 2)
    _, shared = batches(records, EVERYTHING, workers=2)
    for first, second in zip(alone, shared, strict=True):
        assert torch.equal(first.images, second.images)


def test_workers_send_only_pixels_that_are_seen(records: list[ImageRecord]) -> None:
    dataset = DetectionDataset(records[2:3] * 4, 96, MOSAIC, augment_on="device")
    (batch,) = build_loader(dataset, 4, False, 0)
    assert isinstance(batch, PlannedBatch)
    assert len(batch.pixels) < 4 * 96 * 96 * 3  # of four mosaics of images of 300 x 260


def test_a_broken_image_leaves_its_quarter_gray_and_is_reported(
    yolo_set: Callable[..., DatasetConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    from data.detection.records import read_records

    records, _ = read_records(yolo_set(*["0 0.5 0.5 0.2 0.2\n"] * 4), "train")
    records[1].path.write_bytes(b"broken since")
    dataset = DetectionDataset(records, 64, MOSAIC, augment_on="device")
    batches = list(build_loader(dataset, 2, False, 0))
    assert sorted(index for batch in batches for index in batch.indices) == [0, 2, 3]
    assert "001.jpg" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_gpu_draws_what_the_cpu_draws(records: list[ImageRecord]) -> None:
    dataset = DetectionDataset(records * 3, 96, EVERYTHING, augment_on="device")
    for batch in build_loader(dataset, 5, True, 0):
        there, here = render(batch, "cuda"), render(batch, "cpu")
        assert there.images.is_cuda
        assert (there.images.cpu().int() - here.images.int()).abs().float().mean() < 0.01
