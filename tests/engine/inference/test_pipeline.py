"""Detection in several threads at once: the same detections, in order; tiles that cannot be read; threads."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from data.media.image_files import ImageReadError
from data.tiling import Tiling
from engine.inference import pipeline
from engine.inference.pipeline import MOST_WORKERS, detect_images
from engine.inference.settings import DetectSettings, usual_batch
from engine.runtimes.exported_file import ByThreads
from tests.rectangles import RectangleFinder, draw_image
from utils.torch_threads import get_threads


@dataclass(eq=False)
class Item:
    image: Any


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest):
    """So many threads of PyTorch, and afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


class SlowAtTimes(RectangleFinder):
    """Takes longer for some batches than for those after them, and notes who calls with how many threads."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: set[tuple[int, int]] = set()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.callers.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.01 * (len(self.shapes) % 3 == 0))
        return super().__call__(images)


def pictures(count: int) -> list[Item]:
    """Images of three sizes, each with a square of its own and one that all have."""
    sizes = [(240, 320), (200, 480), (400, 400)]
    boxes = [[(10 + 5 * i, 20, 40 + 5 * i, 50), (150, 150, 190, 180)] for i in range(count)]
    return [Item(draw_image(*each, size=sizes[i % 3])) for i, each in enumerate(boxes)]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("tiling", [None, Tiling(128, 0.25)])
def test_threads_find_the_same_in_the_same_order(threads, batch_size, tiling):
    items = pictures(12)
    settings = DetectSettings((320, 320), tiling=tiling, batch_size=batch_size, conf_thres=0.5)
    one_by_one = [next(detect_images(RectangleFinder(), [item], settings, threads=False)) for item in items]
    network = SlowAtTimes()
    found = list(detect_images(network, iter(items), settings))
    assert [one.item for one in found] == items
    for one, expected in zip(found, one_by_one, strict=True):
        np.testing.assert_array_equal(one.detections.to_array(), expected.detections.to_array())
        assert (one.tiles, one.shape) == (expected.tiles, expected.shape)
        assert len(one.detections) >= 2 and one.stages.inference > 0
    assert max(shape[0] for shape in network.shapes) <= batch_size
    workers = min(threads, MOST_WORKERS)
    assert len(network.callers) <= workers and {count for _, count in network.callers} == {1}
    assert torch.get_num_threads() == threads


class Torn:
    """An image whose lower right tiles cannot be read."""

    shape = (256, 256, 3)

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        if place[0].start > 0 and place[1].start > 0:
            raise ImageReadError("torn.tif: broken image")
        return np.zeros((place[0].stop - place[0].start, place[1].stop - place[1].start, 3), np.uint8)


def test_an_image_with_an_unreadable_tile_is_told_once_and_the_others_are_whole(threads):
    items = [*pictures(2), Item(Torn()), *pictures(3)]
    settings = DetectSettings((128, 128), tiling=Tiling(128, 0.5), batch_size=2, conf_thres=0.5)
    told: list[str] = []
    found = list(detect_images(RectangleFinder(), items, settings, report=told.append))
    assert told == ["torn.tif: broken image"]
    assert [one.item for one in found] == items[:2] + items[3:]
    with pytest.raises(ImageReadError, match="torn"):
        list(detect_images(RectangleFinder(), items, settings))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_what_came_before_a_source_broke_is_detected(threads, batch_size):
    items = pictures(5)

    def broken():
        yield from items
        raise ImageReadError("no more")

    results = detect_images(RectangleFinder(), broken(), DetectSettings((320, 320), batch_size=batch_size))
    assert [next(results).item for _ in items] == items
    with pytest.raises(ImageReadError, match="no more"):
        next(results)


def test_a_result_does_not_wait_for_the_next_image(threads):
    items, wanted = pictures(3), threading.Semaphore(1)

    def slow():
        for item in items:
            assert wanted.acquire(timeout=5)
            yield item

    results = detect_images(RectangleFinder(), slow(), DetectSettings((320, 320), batch_size=1))
    for item in items:
        assert next(results).item is item
        wanted.release()


@pytest.mark.parametrize("images, most", [(0.5, 1), (1, 1), (2.5, 2), (100, 8)])
def test_a_batch_has_few_large_images_but_all_tiles_of_one(threads, monkeypatch, images, most):
    items = [Item(draw_image((20 + 5 * i, 20, 50 + 5 * i, 50), size=(256, 256))) for i in range(17)]
    monkeypatch.setattr(pipeline, "BATCH_PIXELS", int(images * 256 * 256))
    for tiling, largest in ((None, most), (Tiling(64, 0.0), 8)):
        network = RectangleFinder()
        settings = DetectSettings((64, 64), tiling=tiling, batch_size=8)
        assert [one.item for one in detect_images(network, iter(items), settings)] == items
        assert max(shape[0] for shape in network.shapes) == largest


def test_a_slow_user_has_two_batches_for_each_thread_in_memory(threads):
    alive = weakref.WeakSet()

    def images():
        for item in pictures(40):
            item = Item(item.image.copy())
            alive.add(item)
            yield item

    batch_size, most = 2, 0
    settings = DetectSettings((320, 320), batch_size=batch_size)
    for _ in detect_images(SlowAtTimes(), images(), settings):
        time.sleep(0.005)
        most = max(most, len(alive))
    assert most <= batch_size * (2 * min(threads, MOST_WORKERS) + 2)


def test_detection_that_is_given_up_leaves_no_threads(threads):
    before = threading.active_count()
    results = detect_images(RectangleFinder(), pictures(12), DetectSettings((320, 320), batch_size=1))
    next(results)
    results.close()
    assert threading.active_count() == before and torch.get_num_threads() == threads


def test_threads_that_are_made_while_others_detect_have_all_cores(threads):
    settings, items = DetectSettings((320, 320), batch_size=1), pictures(6)
    counts: list[int] = []

    def detect() -> None:
        counts.append(get_threads())
        network = SlowAtTimes()
        assert [one.item for one in detect_images(network, items, settings)] == items
        assert {count for _, count in network.callers} == {1}
        counts.append(torch.get_num_threads())

    results = detect_images(RectangleFinder(), pictures(12), settings)
    next(results)
    users = [threading.Thread(target=detect) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(list(results)) == 11 and counts == [threads] * 6


def test_a_cpu_gets_fewer_large_inputs_at_a_time():
    network = RectangleFinder()
    sizes = [usual_batch(network, (side, side)) for side in (64, 256, 512, 640, 1280)]
    assert sizes == [8, 4, 1, 1, 1]
    network.device = torch.device("cuda")
    assert usual_batch(network, (640, 640)) == 8


def test_a_file_is_opened_once_for_each_number_of_threads():
    opened: list[int] = []
    runs = ByThreads(lambda count: opened.append(count) or object())
    before = torch.get_num_threads()
    try:
        made = []
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            made.append(runs.get())
    finally:
        torch.set_num_threads(before)
    assert opened == [1, 2] and made[0] is made[2] is not made[1] is made[3]
