from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import data.detection.image_store
from data.augment.settings import AugmentationSettings
from data.batch import Batch
from data.dataset_yaml import DatasetConfig
from data.detection.dataset import DetectionDataset
from data.detection.loader import build_loader
from data.detection.records import read_records
from data.image_record import ImageRecord, ground_truth_arrays
from data.media.image_files import read_image
from data.tiling import Tiling, tile_records

Make = Callable[..., DatasetConfig]
ALL = AugmentationSettings(degrees=5, shear=2, flipud=0.5, rot90=0.5, mosaic=0.7, mixup=0.3, tile_jitter=0.5)
ROW = "1 0.5 0.5 0.25 0.5\n"


def image_with_boxes(folder: Path, width: int, height: int, name: str = "a.png") -> ImageRecord:
    """White squares on black, one a box, on a grid."""
    image = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for y in range(10, height - 20, 40):
        for x in range(10, width - 20, 40):
            image[y : y + 16, x : x + 16] = 255
            boxes.append([x, y, x + 16, y + 16])
    assert cv2.imwrite(str(folder / name), image)
    return ImageRecord(folder / name, name, width, height, *ground_truth_arrays(boxes, [0] * len(boxes)))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for first, second in zip(left, right, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)
        assert first.indices == second.indices


def test_a_batch_holds_rgb_images_and_normalized_targets(yolo_set: Make) -> None:
    records, _ = read_records(yolo_set(ROW, None, ROW), "train")
    (batch,) = build_loader(DetectionDataset(records, 64), 4, shuffle=False, workers=0)
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    rgb = read_image(records[2].path)[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(batch.images[2, :, 8:56].numpy(), rgb)
    expected = [[0, 1, 0.5, 0.5, 0.25, 0.375], [2, 1, 0.5, 0.5, 0.25, 0.375]]
    np.testing.assert_allclose(batch.targets.numpy(), expected, atol=1e-6)
    assert batch.indices == [0, 1, 2]
    assert batch.letterboxes[0].pad_y == 8


def test_crowds_are_no_targets(tmp_path: Path) -> None:
    record = image_with_boxes(tmp_path, 100, 60)
    record = replace(record, crowd=np.arange(len(record.crowd)) == 0)
    for augmentation in (None, AugmentationSettings.only()):
        sample = DetectionDataset([record], 64, augmentation)[0]
        assert not isinstance(sample, str)
        assert len(sample.labels) == len(record.classes) - 1


def test_regions_to_ignore_and_crowds_move_with_the_pixels(tmp_path: Path) -> None:
    record = image_with_boxes(tmp_path, 200, 160)
    crowd = np.arange(len(record.crowd)) == 0
    same = replace(record, crowd=crowd, ignore=record.boxes_xyxy[~crowd])  # regions where the objects are
    for augmentation in (None, AugmentationSettings.only(), ALL):
        dataset = DetectionDataset([same] * 3, 96, augmentation, seed=1)
        (batch,) = build_loader(dataset, 3, shuffle=False, workers=0)
        ignores = batch.ignores.numpy()
        for row in batch.targets.numpy():
            distance = np.abs(ignores[ignores[:, 0] == row[0], 1:] - row[2:]).max(axis=1)
            assert distance.min() < 1e-6, "every target lies on a region"
        assert len(ignores) > len(batch.targets), "the crowds are there as well"


def test_a_batch_without_regions_to_ignore_has_none(yolo_set: Make) -> None:
    records, _ = read_records(yolo_set(ROW, None), "train")
    (batch,) = build_loader(DetectionDataset(records, 64), 2, shuffle=False, workers=0)
    assert batch.ignores.shape == (0, 5)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int) -> None:
    whole = [image_with_boxes(tmp_path, 300, 200, f"{number}.png") for number in range(2)]
    records = tile_records(whole, Tiling(96, 0.2))

    def batches(workers: int, epochs: list[int]) -> list[Batch]:
        loader = build_loader(DetectionDataset(records, 64, ALL, seed=3), 5, True, workers, seed=3)
        batches = []
        for epoch in epochs:
            loader.set_epoch(epoch)
            batches += list(loader)
        return batches

    alone = batches(0, [0, 1])
    assert_same(alone, batches(workers, [0, 1]))
    assert_same(alone[len(alone) // 2 :], batches(workers, [1]))  # a resumed run goes on with epoch 1
    assert not torch.equal(alone[0].images, alone[len(alone) // 2].images)


def test_every_record_comes_once_an_epoch_in_a_new_order(yolo_set: Make) -> None:
    records, _ = read_records(yolo_set(*[ROW] * 7), "train")
    loader = build_loader(DetectionDataset(records, 32), 3, True, 0, seed=1)
    orders = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        orders.append([index for batch in loader for index in batch.indices])
        assert sorted(orders[-1]) == list(range(7))
    assert orders[0] != orders[1]
    assert len(loader) == 3


def test_rect_batches_have_the_smallest_shape_that_holds_their_images(tmp_path: Path) -> None:
    sizes = [(200, 100), (100, 200), (200, 110), (100, 100), (110, 200)]
    records = [image_with_boxes(tmp_path, *size, f"{number}.png") for number, size in enumerate(sizes)]
    dataset = DetectionDataset(records, 128, rect=True)
    batches = list(build_loader(dataset, 2, False, 0))
    assert [tuple(batch.images.shape[2:]) for batch in batches] == [(96, 128), (128, 128), (128, 64)]
    assert sorted(index for batch in batches for index in batch.indices) == list(range(5))
    for batch in batches:
        for index, placed in zip(batch.indices, batch.letterboxes, strict=True):
            assert placed.scale == pytest.approx(128 / 200 if index != 3 else 1.28, rel=0.02)
    padded = DetectionDataset(records, 128, rect=True, rect_pad=0.5)
    shapes = [tuple(batch.images.shape[2:]) for batch in build_loader(padded, 2, False, 0)]
    assert shapes == [(96, 160), (160, 160), (160, 96)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_reported_once_and_left_out(
    yolo_set: Make, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    records, _ = read_records(yolo_set(*[ROW] * 4), "train")
    records[1].path.write_bytes(b"broken since")
    for augmentation in (None, AugmentationSettings.only(mosaic=1.0)):
        loader = build_loader(DetectionDataset(records, 32, augmentation), 1, False, workers)
        for _ in range(2):
            assert [index for batch in loader for index in batch.indices] == [0, 2, 3]
        assert capsys.readouterr().err.count("001.jpg") == 1


def test_a_moved_tile_has_the_boxes_of_its_new_place(tmp_path: Path) -> None:
    tiles = tile_records([image_with_boxes(tmp_path, 300, 260)], Tiling(96, 0.1))
    dataset = DetectionDataset(tiles, 96, AugmentationSettings.only(tile_jitter=1.0))
    seen = set()
    loader = build_loader(dataset, len(tiles), False, 0)
    for epoch in range(3):
        loader.set_epoch(epoch)
        for batch in loader:
            for place in range(len(batch.images)):
                bright = batch.images[place, 0] > 128
                inside = torch.zeros_like(bright)
                boxes = batch.targets[batch.targets[:, 0] == place, 2:] * 96
                for x, y, width, height in boxes.tolist():
                    x0, y0 = round(x - width / 2), round(y - height / 2)
                    inside[y0 : round(y + height / 2), x0 : round(x + width / 2)] = True
                assert not (inside & ~bright).any()  # every box is on a square
                assert (bright & ~inside).sum() <= 0.4 * 256 * 12  # slivers of less than 40% have none
                seen.add(bright.numpy().tobytes())
    assert len(seen) > 2 * len(tiles)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_changes_no_pixel(tmp_path: Path, cache: str) -> None:
    tiles = tile_records([image_with_boxes(tmp_path, 300, 200)], Tiling(96, 0.2))

    def batches(cache: str | None) -> list[Batch]:
        return list(build_loader(DetectionDataset(tiles, 96, ALL, cache=cache), 4, False, 0))

    plain = batches(None)
    assert_same(plain, batches(cache))
    assert_same(plain, batches(cache))
    assert (tmp_path / ".pixels").exists() == (cache == "disk")


def test_a_changed_image_is_decoded_again_by_the_disk_cache(tmp_path: Path) -> None:
    record = image_with_boxes(tmp_path, 64, 64)
    dataset = DetectionDataset([record], 64, cache="disk")
    dataset[0]
    cv2.imwrite(str(record.path), np.full((64, 64, 3), 9, np.uint8))
    os.utime(record.path, ns=(1, 10**18))
    for store in (dataset.store, DetectionDataset([record], 64, cache="disk").store):
        assert (store.pixels(record) == 9).all()


def test_a_full_image_is_decoded_once_for_all_its_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def counted(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_image(path)

    monkeypatch.setattr(data.detection.image_store, "read_image", counted)
    tiles = tile_records([image_with_boxes(tmp_path, 300, 200)], Tiling(96, 0.2))
    list(build_loader(DetectionDataset(tiles, 96, ALL), 4, True, 0))
    assert len(decoded) == 1


def test_a_data_set_travels_to_another_process_without_its_recent_images(tmp_path: Path) -> None:
    tiles = tile_records([image_with_boxes(tmp_path, 300, 200)], Tiling(96, 0.2))
    dataset = DetectionDataset(tiles, 96, ALL)
    before = dataset[3]
    sent = pickle.dumps(dataset)
    assert len(sent) < 50_000
    after = pickle.loads(sent)[3]
    assert not isinstance(before, str)
    assert not isinstance(after, str)
    assert torch.equal(before.image, after.image)


def test_wrong_uses_are_named(tmp_path: Path) -> None:
    record = image_with_boxes(tmp_path, 64, 64)
    with pytest.raises(ValueError, match="at least one record"):
        DetectionDataset([], 64)
    with pytest.raises(ValueError, match="imgsz 65 is not a multiple of the stride 32"):
        DetectionDataset([record], 65)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_page_locked_where_there_is_cuda(tmp_path: Path) -> None:
    record = image_with_boxes(tmp_path, 64, 64)
    (batch,) = build_loader(DetectionDataset([record], 64), 1, False, 0)
    assert batch.images.is_pinned()
