from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import data.detection.image_store
import data.detection.pixel_cache
from data.detection.dataset import DetectionDataset
from data.detection.image_store import ImageStore
from data.detection.loader import build_loader
from data.detection.pixel_cache import StoredPixels
from data.image_record import ImageRecord, ground_truth_arrays
from data.letterbox import resize
from data.media.image_files import read_image
from data.tiling import Tiling, tile_records
from utils.errors import UserError

SIZES = [(200, 150), (80, 60), (64, 130)]


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    folder = tmp_path / "images"
    folder.mkdir()
    records = []
    for number, (width, height) in enumerate(SIZES):
        image = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), image)
        annotations = ground_truth_arrays([[10, 10, 40, 30]], [0])
        records.append(ImageRecord(folder / f"{number}.png", number, width, height, *annotations))
    return records


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> np.ndarray:
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(data.detection.image_store, "read_image", fail)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_images_are_kept_as_letterboxing_shrinks_them_and_never_enlarged(
    records: list[ImageRecord], cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = [read_image(record.path) for record in records]
    store = ImageStore(records, cache, side=96)
    refuse_to_decode(monkeypatch)
    sizes = [(96, 72), (80, 60), (48, 96)]
    for record, image, (width, height) in zip(records, native, sizes, strict=True):
        np.testing.assert_array_equal(store.shrunk(record), resize(image, width, height))
        np.testing.assert_array_equal(store.resized(record, width, height), resize(image, width, height))


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_tiles_and_crops_come_from_the_full_image_s_own_pixels(
    records: list[ImageRecord], cache: Any
) -> None:
    tiles = tile_records(records[:1], Tiling(96, 0.2))
    store = ImageStore(tiles, cache, side=64)
    x0, y0, x1, y1 = tiles[-1].tile or (0, 0, 0, 0)
    np.testing.assert_array_equal(store.shrunk(tiles[-1]), read_image(tiles[-1].path)[y0:y1, x0:x1])


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("kept_for", [96, 64])
def test_validation_is_the_same_with_a_cache_of_any_size(
    records: list[ImageRecord], cache: Any, rect: bool, kept_for: int
) -> None:
    plain = DetectionDataset(records, 96, rect=rect)
    cached = DetectionDataset(records, 96, rect=rect)
    cached.store = ImageStore(records, cache, side=kept_for)
    for first, second in zip(
        build_loader(plain, 2, False, 0), build_loader(cached, 2, False, 0), strict=True
    ):
        assert (first.images == second.images).all()
        assert (first.targets == second.targets).all()
        assert first.letterboxes == second.letterboxes


def test_a_second_run_decodes_nothing_and_another_size_has_files_of_its_own(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in (96, 64):
        ImageStore(records, "disk", side)
    names = {file.name for file in (records[0].path.parent / ".pixels").iterdir()}
    assert names == {f"{number}.png.{side}.bgr" for number in range(3) for side in (96, 64)}
    refuse_to_decode(monkeypatch)
    assert ImageStore(records, "disk", 96).shrunk(records[0]).shape == (72, 96, 3)


@pytest.mark.parametrize("harm", ["cut", "empty", "other", "older"])
def test_a_damaged_or_stale_file_is_made_again(records: list[ImageRecord], harm: str) -> None:
    expected = ImageStore(records, "disk", 96).shrunk(records[0]).copy()
    stored = records[0].path.parent / ".pixels" / "0.png.96.bgr"
    content = stored.read_bytes()
    if harm == "older":
        image = np.full((150, 200, 3), 9, np.uint8)
        cv2.imwrite(str(records[0].path), image)
        os.utime(records[0].path, ns=(1, 10**18))
        expected = resize(image, 96, 72)
    else:
        changed = {"cut": content[:-5], "empty": b"", "other": b"x" * len(content)}[harm]
        stored.write_bytes(changed)
    np.testing.assert_array_equal(ImageStore(records, "disk", 96).shrunk(records[0]), expected)
    if harm != "older":
        assert stored.read_bytes() == content


def test_on_a_full_disk_one_line_says_so_and_decoding_goes_on(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        """A file on a disk with room for the header only."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: Any) -> None:
            self.file.write(bytes(content)[:40])
            if len(content) > 40:
                raise OSError(errno.ENOSPC, "No space left on device")

    opened = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args, **options: Full(opened(*args, **options)))
    store = ImageStore(records * 4, "disk", 96)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error
    assert list((records[0].path.parent / ".pixels").iterdir()) == []
    np.testing.assert_array_equal(store.shrunk(records[1]), read_image(records[1].path))


@pytest.mark.parametrize("home_works", [True, False])
def test_beside_read_only_images_the_cache_moves_to_the_user_s(
    records: list[ImageRecord],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    home_works: bool,
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    writable = data.detection.pixel_cache._writable
    monkeypatch.setattr(
        data.detection.pixel_cache,
        "_writable",
        lambda folder: home_works and home in folder.parents and writable(folder),
    )
    store = ImageStore(records, "disk", 96)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written to" in error
    assert not (records[0].path.parent / ".pixels").exists()
    assert len(list(home.rglob("*.bgr"))) == (3 if home_works else 0)
    assert store.shrunk(records[1]).shape == (60, 80, 3)


def _build(records: list[ImageRecord], gate: Any) -> None:
    gate.wait()
    ImageStore(records, "disk", 96)


def test_two_runs_may_build_the_cache_at_once(records: list[ImageRecord]) -> None:
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    runs = [context.Process(target=_build, args=(records, gate)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    folder = records[0].path.parent / ".pixels"
    assert {file.suffix for file in folder.iterdir()} == {".bgr"}
    kept = ImageStore(records, "disk", 96).shrunk(records[0])
    np.testing.assert_array_equal(kept, resize(read_image(records[0].path), 96, 72))


def _answer(store: ImageStore, record: ImageRecord, pipe: Any) -> None:
    pixels = store.shrunk(record)
    before = pixels[0, 0].tolist()
    pipe.send(before)
    pipe.recv()  # by now the parent has changed the pixel
    pipe.send(pixels[0, 0].tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ram_pixels_are_shared_with_other_processes_and_not_copied(
    records: list[ImageRecord], method: str
) -> None:
    context = multiprocessing.get_context(method)
    store = ImageStore(records, "ram", 96)
    here, there = context.Pipe()
    worker = context.Process(target=_answer, args=(store, records[1], there))
    worker.start()
    pixel = store.shrunk(records[1])[0, 0]
    assert here.recv() == pixel.tolist()
    changed = (255 - pixel).tolist()
    pixel[:] = changed
    here.send(None)
    assert here.recv() == changed
    worker.join(60)


def test_what_does_not_fit_into_shared_memory_is_not_kept(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data.detection.image_store, "_free_shared_memory", lambda: 10)
    store = ImageStore(records, "ram", 96)
    assert "not kept" in capsys.readouterr().err
    np.testing.assert_array_equal(store.shrunk(records[0]), resize(read_image(records[0].path), 96, 72))


def test_training_sees_the_same_pixels_whatever_the_cache_had_room_for(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ImageStore(records, "disk", 96)
    expected = [whole.shrunk(record).copy() for record in records]
    kept = sorted((records[0].path.parent / ".pixels").iterdir())
    for file in kept:
        file.unlink()
    written = 0

    def put(self: StoredPixels, *args: Any) -> bool:
        nonlocal written
        written += 1
        if written > 1:
            raise UserError("cannot write: No space left on device")
        return original(self, *args)

    original = StoredPixels.put
    monkeypatch.setattr(StoredPixels, "put", put)
    partial = ImageStore(records, "disk", 96)
    assert len(list((records[0].path.parent / ".pixels").iterdir())) == 1
    for record, pixels in zip(records, expected, strict=True):
        np.testing.assert_array_equal(partial.shrunk(record), pixels)


def test_any_flipped_bit_of_a_kept_image_is_noticed_when_a_run_starts(
    records: list[ImageRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ImageStore(records, "disk", 96).shrunk(records[0]).copy()
    stored = records[0].path.parent / ".pixels" / "0.png.96.bgr"
    content = stored.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(60), *rng.integers(60, len(content), 40).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        stored.write_bytes(damaged)
        np.testing.assert_array_equal(ImageStore(records, "disk", 96).shrunk(records[0]), expected)
        assert stored.read_bytes() == content
    lines = capsys.readouterr().err.splitlines()
    assert lines and all("0.png is damaged; it is decoded again" in line for line in lines)


def test_an_image_that_takes_another_one_s_place_is_decoded_again(records: list[ImageRecord]) -> None:
    first, second = records[0].path, records[0].path.with_name("other.png")
    other = np.full((150, 200, 3), 9, np.uint8)
    ImageStore(records, "disk", 96)
    cv2.imwrite(str(second), other)
    second.write_bytes(second.read_bytes().ljust(first.stat().st_size, b"\0"))
    status = first.stat()
    os.utime(second, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(second, first)
    assert first.stat().st_size == status.st_size and first.stat().st_mtime_ns == status.st_mtime_ns
    np.testing.assert_array_equal(ImageStore(records, "disk", 96).shrunk(records[0]), resize(other, 96, 72))


def test_an_image_that_changes_while_it_is_decoded_is_not_kept_as_the_new_one(
    records: list[ImageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = np.full((150, 200, 3), 9, np.uint8)

    def read_and_change(path: Path) -> np.ndarray:
        image = read_image(path)
        if path == records[0].path:
            cv2.imwrite(str(path), changed)
        return image

    monkeypatch.setattr(data.detection.image_store, "read_image", read_and_change)
    ImageStore(records, "disk", 96)
    monkeypatch.undo()
    np.testing.assert_array_equal(ImageStore(records, "disk", 96).shrunk(records[0]), resize(changed, 96, 72))
