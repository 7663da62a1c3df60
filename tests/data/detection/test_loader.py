"""Which images a batch holds: ranks, weights, shapes, crops and epochs without mosaics."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.augment.crops import random_crop
from data.augment.settings import AugmentationSettings
from data.batch import Batch
from data.detection.dataset import DetectionDataset
from data.detection.image_weights import image_weights
from data.detection.loader import build_loader
from data.image_record import ImageRecord, ground_truth_arrays
from utils.distributed import World
from utils.errors import UserError
from utils.memory import ended_worker

SOME = AugmentationSettings.only(hsv_v=0.4, translate=0.1, scale=0.5, fliplr=0.5, mosaic=0.5, mixup=0.3)


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    records = []
    for number in range(11):
        width, height = [(64, 32), (32, 64), (64, 64)][number % 3]
        image = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        annotations = ground_truth_arrays([[10, 10, 30, 30]] * (number % 4), [number % 2] * (number % 4))
        records.append(ImageRecord(tmp_path / f"{number}.png", number, width, height, *annotations))
    return records


def epoch(
    dataset: DetectionDataset, batch: int, shuffle: bool, rank: int, size: int, number: int = 1
) -> list[Batch]:
    loader = build_loader(dataset, batch, shuffle, 0, seed=4, world=World(rank, size))
    loader.set_epoch(number)
    return list(loader)


@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_the_ranks_share_every_training_batch(records: list[ImageRecord], size: int, rect: bool) -> None:
    dataset = DetectionDataset(records, 64, SOME, rect=rect)
    whole = epoch(dataset, 4, True, 0, 1)
    ranks = [epoch(dataset, 4, True, rank, size) for rank in range(size)]
    assert {len(batches) for batches in ranks} == {len(whole)}
    for number, batch in enumerate(whole):
        shares = [batches[number] for batches in ranks]
        assert all(share.indices for share in shares)
        together = [index for share in shares for index in share.indices]
        assert set(together) == set(batch.indices)
        if len(batch.indices) >= size:
            assert sorted(together) == sorted(batch.indices)
        for share in shares:
            for place, index in enumerate(share.indices):
                assert torch.equal(share.images[place], batch.images[batch.indices.index(index)])


@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_in_validation_every_image_is_seen_once_by_one_rank(
    records: list[ImageRecord], size: int, rect: bool
) -> None:
    dataset = DetectionDataset(records, 64, rect=rect)
    ranks = [epoch(dataset, 4, False, rank, size) for rank in range(size)]
    seen = [index for batches in ranks for batch in batches for index in batch.indices]
    assert sorted(seen) == list(range(len(records)))


def test_weights_decide_how_often_an_image_comes(records: list[ImageRecord]) -> None:
    dataset = DetectionDataset(records, 32)
    loader = build_loader(dataset, 4, True, 0, seed=1)
    plain = [index for batch in loader for index in batch.indices]
    weights = np.zeros(len(records))
    weights[[2, 5]] = 1, 3
    loader.set_weights(weights)
    counts = np.zeros(len(records), int)
    for number in range(40):
        loader.set_epoch(number)
        drawn = [request.index for requests in loader._batches for request in requests]
        assert len(drawn) == len(records)
        counts += np.bincount(drawn, minlength=len(records))
    assert counts[[2, 5]].sum() == counts.sum()
    assert counts[5] / counts.sum() == pytest.approx(0.75, abs=0.08)
    loader.set_weights(None)
    loader.set_epoch(0)
    assert [index for batch in loader for index in batch.indices] == plain


def test_weights_that_cannot_be_used_are_refused(records: list[ImageRecord]) -> None:
    dataset = DetectionDataset(records, 32)
    loader = build_loader(dataset, 4, True, 0)
    for bad in (np.zeros(len(records)), np.ones(3), -np.ones(len(records))):
        with pytest.raises(ValueError, match="as many weights"):
            loader.set_weights(bad)
    rect = build_loader(DetectionDataset(records, 32, rect=True), 4, True, 0)
    with pytest.raises(ValueError, match="only shuffled square batches"):
        rect.set_weights(np.ones(len(records)))


def test_an_image_weighs_what_the_classes_of_its_objects_lack(records: list[ImageRecord]) -> None:
    weights = image_weights(records, 2, [0.9, None])
    totals = [sum(number % 4 for number in range(11) if number % 2 == kind) for kind in range(2)]
    expected = [
        (number % 4) / totals[number % 2] * ((1 - 0.9) ** 2 if number % 2 == 0 else 1) for number in range(11)
    ]
    np.testing.assert_allclose(weights, expected)
    assert image_weights(records, 2, [1.0, 1.0]).tolist() == [float(number % 4 > 0) for number in range(11)]
    with pytest.raises(ValueError, match="without objects"):
        image_weights(records[:1], 2)


def test_rect_training_batches_have_their_images_shape_and_no_mosaic(records: list[ImageRecord]) -> None:
    augmentation = SOME.model_copy(
        update={"mosaic": 1.0, "rot90": 1.0, "translate": 0.0, "scale": 0.0, "mixup": 0.0, "hsv_v": 0.0}
    )
    batches = epoch(DetectionDataset(records, 64, augmentation, rect=True), 3, True, 0, 1)
    plain = epoch(DetectionDataset(records, 64, rect=True), 3, True, 0, 1)
    assert [batch.images.shape for batch in batches] == [batch.images.shape for batch in plain]
    assert len({batch.images.shape[2:] for batch in batches}) > 1
    for batch in batches:
        counts = np.bincount(batch.targets[:, 0].int().numpy(), minlength=len(batch.indices))
        assert counts.tolist() == [index % 4 for index in batch.indices]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_last_epochs_have_no_mosaic_and_the_others_are_unchanged(
    records: list[ImageRecord], workers: int
) -> None:
    def epochs(augmentation: AugmentationSettings, mosaic_until: int | None) -> list[list[Batch]]:
        dataset = DetectionDataset(records, 64, augmentation, mosaic_until=mosaic_until)
        loader = build_loader(dataset, 4, True, workers)
        batches = []
        for number in range(3):
            loader.set_epoch(number)
            batches.append(list(loader))
        return batches

    def same(left: list[Batch], right: list[Batch]) -> bool:
        pairs = zip(left, right, strict=True)
        return all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs)

    mixing = SOME.model_copy(update={"mosaic": 1.0, "mixup": 0.5, "copy_paste": 0.5})
    never, closing = epochs(mixing, None), epochs(mixing, 2)
    single = epochs(mixing.without_mixing(), None)
    assert same(never[0], closing[0])
    assert same(never[1], closing[1])
    assert not same(never[2], closing[2])
    assert same(single[2], closing[2])


def large(tmp_path: Path) -> ImageRecord:
    """A black full image with one white object in a corner."""
    image = np.zeros((400, 500, 3), np.uint8)
    image[300:312, 420:436] = 255
    assert cv2.imwrite(str(tmp_path / "large.png"), image)
    return ImageRecord(tmp_path / "large.png", 0, 500, 400, *ground_truth_arrays([[420, 300, 436, 312]], [0]))


def test_crops_show_the_full_image_s_own_pixels_mostly_around_objects(tmp_path: Path) -> None:
    dataset = DetectionDataset([large(tmp_path)], 96, AugmentationSettings.only(crop=1.0))
    with_object = 0
    for number in range(40):
        (batch,) = epoch(dataset, 1, False, 0, 1, number)
        bright = batch.images[0, 0] > 128
        if len(batch.targets):
            x, y, width, height = (batch.targets[0, 2:] * 96).tolist()
            assert bright.sum() == round(width) * round(height)  # not shrunk, and the box is on it
            assert bright[round(y - height / 2), round(x - width / 2)]
            assert width <= 16
            assert height <= 12
            with_object += 1
    assert 20 <= with_object <= 38
    (whole,) = epoch(DetectionDataset([large(tmp_path)], 96, AugmentationSettings.only()), 1, False, 0, 1)
    assert whole.targets[0, 4] * 96 < 4


def test_crops_lie_inside_the_full_image(tmp_path: Path) -> None:
    record, rng = large(tmp_path), np.random.default_rng(0)
    for shape in ((96, 96), (1000, 64), (400, 500)):
        for _ in range(30):
            x0, y0, x1, y1 = random_crop(record, shape, rng)
            assert 0 <= x0 < x1 <= 500
            assert 0 <= y0 < y1 <= 400
            assert (y1 - y0, x1 - x0) == (min(shape[0], 400), min(shape[1], 500))


def test_small_images_and_crop_zero_draw_no_number(records: list[ImageRecord]) -> None:
    for first, second in zip(
        epoch(DetectionDataset(records, 64, SOME), 4, True, 0, 1),
        epoch(DetectionDataset(records, 64, SOME.model_copy(update={"crop": 1.0})), 4, True, 0, 1),
        strict=True,
    ):
        assert torch.equal(first.images, second.images)


def test_images_none_of_which_decodes_end_in_one_line(records: list[ImageRecord]) -> None:
    for record in records[:10]:
        record.path.write_bytes(b"x")
    loader = build_loader(DetectionDataset(records, 64), 4, False, 0)
    assert [batch.indices for batch in loader] == [[10]]
    records[10].path.write_bytes(b"x")
    for shuffle in (False, True):
        with pytest.raises(UserError, match=r"none of 11 images can be decoded, such as .*0\.png"):
            next(iter(build_loader(DetectionDataset(records, 64, SOME), 4, shuffle, 0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_with_a_broken_batch_goes_on_where_it_stopped(
    records: list[ImageRecord], workers: int
) -> None:
    loader = build_loader(DetectionDataset(records, 64), 1, True, workers)
    order = [batch.indices[0] for batch in loader]
    records[order[1]].path.write_bytes(b"x")
    batches = iter(loader)
    before = [next(batches).indices[0] for _ in range(3)]
    assert loader.position == 4
    loader.set_epoch(0, loader.position)
    after = [batch.indices[0] for batch in loader]
    assert before + after == [index for index in order if index != order[1]]
    loader.close()


def same_batches(loader: Iterable[Batch], other: Iterable[Batch]) -> bool:
    pairs = list(zip(loader, other, strict=True))
    return bool(pairs) and all(
        torch.equal(first.images, second.images) and torch.equal(first.targets, second.targets)
        for first, second in pairs
    )


@pytest.mark.parametrize("planned", [False, True])
def test_batches_go_through_pipes_where_there_is_no_shared_memory(
    records: list[ImageRecord],
    planned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = DetectionDataset(records, 64, SOME, augment_on="device" if planned else "cpu")
    device = "cpu" if planned else None
    expected = list(build_loader(dataset, 4, True, 0, device=device))

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)")

    for storage in (torch.UntypedStorage, torch.TypedStorage):
        monkeypatch.setattr(storage, "_new_shared", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "share_memory_", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    loader = build_loader(dataset, 4, True, 2, device=device)
    for _ in range(2):
        assert same_batches(loader, expected)
    loader.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "too little shared memory for batches" in lines[0]


def test_where_there_are_no_semaphores_one_process_reads_the_images(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    dataset = DetectionDataset(records, 64)
    expected = list(build_loader(dataset, 4, False, 0))
    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    assert same_batches(build_loader(dataset, 4, False, 2), expected)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "worker processes cannot be started (No space left on device" in error


def test_a_worker_that_is_killed_is_one_line(records: list[ImageRecord]) -> None:
    loader = build_loader(DetectionDataset(records, 64), 1, False, 2)
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises((UserError, RuntimeError)) as caught:  # torch's handler raises where it likes
        list(batches)
    said = str(caught.value) if isinstance(caught.value, UserError) else ended_worker(caught.value)
    assert said is not None and said.startswith("a process that reads images has ended")
    loader.close()


def test_so_many_workers_that_they_fill_the_memory_are_refused(records: list[ImageRecord]) -> None:
    with pytest.raises(UserError, match=r"--workers: 1,000 worker processes that read images, at most 64"):
        build_loader(DetectionDataset(records, 64), 4, False, 1000)
