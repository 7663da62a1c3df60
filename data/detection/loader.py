"""Batches of a data set, made in worker processes and the same for any number of them."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import signal
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from data.augment.device import collate_planned, render
from data.batch import Request, collate
from data.handover import Handover, Piped, received, usable_workers
from utils.distributed import World
from utils.errors import UserError
from utils.limits import WORKERS
from utils.memory import ended_worker

if TYPE_CHECKING:
    from data.detection.dataset import DetectionDataset

LOG = logging.getLogger(__name__)


class BatchLoader:
    """Iterates over batches; `set_epoch` decides the order and the augmentation.

    A broken image is reported once, in a line of the log, and left out of its batch.

    Args:
        dataset: what to load.
        batch_size: images per batch; the last batch may be smaller.
        shuffle: a new order in each epoch; with rect batches, a new order of batches.
        workers: processes that prepare batches; 0 prepares them in this one.
        seed: of the order.
        world: the processes that share each batch; the order is the same for any number of them.
        device: where planned images are made; None leaves the batches planned.

    Attributes:
        position: batches of the epoch up to the one just yielded, with those whose images are all broken: the
            `start` from which the epoch goes on.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batch_size: int,
        shuffle: bool,
        workers: int,
        seed: int = 0,
        world: World = World(),  # noqa: B008  (frozen)
        device: torch.device | str | None = None,
    ) -> None:
        self.dataset, self.device = dataset, device
        self.batch_size, self.workers = batch_size, workers
        self._batches = _Batches(dataset, batch_size, shuffle, seed, world)
        self.position = 0
        self._reported: set[str] = set()
        self._piped = False
        self._loader = self._make(workers)
        if workers:
            _close_at_exit().add(self)

    def _make(self, workers: int) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=Handover(collate_planned if self.dataset.planned else collate),
            worker_init_fn=_prepare_worker,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration will load, and the batch it starts with."""
        self._batches.epoch, self._batches.start = epoch, start

    def set_weights(self, weights: np.ndarray | None) -> None:
        """Draw training images in proportion to weights (n,), with repetition; None: each of them once.

        Raises:
            ValueError: the batches are rect ones or not shuffled, or the weights cannot be used.
        """
        if weights is not None:
            if self.dataset.rect or not self._batches.shuffle:
                raise ValueError("only shuffled square batches can be drawn by weight")
            if weights.shape != (len(self.dataset),) or not (weights >= 0).all() or not weights.sum() > 0:
                raise ValueError(f"{len(self.dataset)} images need as many weights >= 0, some above 0")
        self._batches.weights = weights

    def __len__(self) -> int:
        return len(self._batches)

    def requests(self) -> Iterator[list[Request]]:
        """Yield what each batch consists of, without loading it."""
        return iter(self._batches)

    def close(self) -> None:
        """End the worker processes; iterating again starts new ones."""
        iterator: Any = self._loader._iterator
        if iterator is None:
            return
        self._loader._iterator = None
        iterator._shutdown_workers()
        for worker in iterator._workers:
            if worker.is_alive():  # busy for longer than the loader waits, and deaf to its SIGTERM
                worker.kill()
                worker.join()

    def __iter__(self) -> Iterator[Any]:
        """Yield each `Batch`, or `PlannedBatch` where no device makes its images.

        Raises:
            UserError: there are images, but none of them can be decoded; or a worker process has ended.
        """
        last, yielded = None, 0
        self.position = self._batches.start
        for batch, problems in self._received():
            self.position += 1
            for problem in problems:
                if problem not in self._reported:
                    self._reported.add(problem)
                    LOG.warning("left out: %s", problem)
            if batch is None and self._batches.shuffle and self._batches.world.size > 1:
                batch = (
                    last  # all images of this process's share are broken, but the others wait for its step
                )
            last = batch
            if batch is not None:
                yielded += 1
                yield batch if self.device is None or not self.dataset.planned else render(batch, self.device)
        if not yielded and not self._batches.start and self._is_whole_or_needed():
            count, first = len(self.dataset), self.dataset.records[0].path
            raise UserError(f"none of {count} images can be decoded, such as {first}")

    def _received(self) -> Iterator[tuple[Any, list[str]]]:
        workers = self._loader.num_workers
        if workers and self._loader._iterator is None and not usable_workers(workers):
            self._loader = self._make(0)
        try:
            for sent in self._loader:
                batch = received(sent, self._piped)
                self._piped = self._piped or isinstance(sent, Piped)
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            ended = ended_worker(error)
            if ended is None:
                raise
            raise UserError(ended) from error

    def _is_whole_or_needed(self) -> bool:
        """Whether this process sees all images, or the others wait for its steps."""
        return self._batches.world.size == 1 or self._batches.shuffle


def build_loader(
    dataset: DetectionDataset,
    batch_size: int,
    shuffle: bool,
    workers: int,
    seed: int = 0,
    world: World = World(),  # noqa: B008  (frozen)
    device: torch.device | str | None = None,
) -> BatchLoader:
    """Return a loader of `dataset`; see BatchLoader.

    Raises:
        UserError: there would be so many workers that they fill the memory.
    """
    WORKERS.check(workers, "--workers")
    return BatchLoader(dataset, batch_size, shuffle, workers, seed, world, device)


class _Batches(Sampler[list[Request]]):
    """The requests of each batch; a request carries its epoch, which persistent workers cannot know."""

    def __init__(
        self, dataset: DetectionDataset, batch_size: int, shuffle: bool, seed: int, world: World
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.world = world
        self.epoch, self.start = 0, 0
        self.weights: np.ndarray | None = None

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[list[Request]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        batches = self._rect_batches(rng) if self.dataset.rect else self._batches(rng)
        for requests in itertools.islice(batches, self.start, None):
            share = self._share(requests)
            if share:
                yield share

    def _share(self, requests: list[Request]) -> list[Request]:
        """This process's share of a batch: in training never empty, in validation without repetitions."""
        rank, size = self.world.rank, self.world.size
        if self.shuffle and len(requests) < size:
            requests = [requests[i % len(requests)] for i in range(size)]
        return requests[rank::size]

    def _batches(self, rng: np.random.Generator) -> Iterator[list[Request]]:
        count = len(self.dataset)
        if self.weights is not None:
            order = rng.choice(count, count, p=self.weights / self.weights.sum())
        else:
            order = rng.permutation(count) if self.shuffle else np.arange(count)
        for start in range(0, count, self.batch_size):
            yield [Request(int(index), self.epoch) for index in order[start : start + self.batch_size]]

    def _rect_batches(self, rng: np.random.Generator) -> Iterator[list[Request]]:
        """Batches of neighbors in aspect ratio, each with the smallest input that holds them."""
        records = self.dataset.records
        aspect = np.array([record.height / record.width for record in records])
        order = np.argsort(aspect, kind="stable")
        starts = np.arange(0, len(order), self.batch_size)
        for start in rng.permutation(starts) if self.shuffle else starts:
            members = order[start : start + self.batch_size]
            shape = self._shape(aspect[members])
            yield [Request(int(index), self.epoch, shape) for index in members]

    def _shape(self, aspect: np.ndarray) -> tuple[int, int]:
        """Height and width of an input that holds images of these height-to-width ratios."""
        sides = np.array([min(aspect.max(), 1.0), min(1 / aspect.min(), 1.0)])
        strides = self.dataset.imgsz * sides / self.dataset.stride + self.dataset.rect_pad
        height, width = (np.ceil(strides - 1e-6).astype(int) * self.dataset.stride).tolist()
        return height, width


@functools.cache
def _close_at_exit() -> weakref.WeakSet[BatchLoader]:
    """The loaders whose workers have to be ended before Python's exit waits for them, for ever."""
    loaders: weakref.WeakSet[BatchLoader] = weakref.WeakSet()

    def close() -> None:
        for loader in list(loaders):
            loader.close()

    atexit.register(close)
    return loaders


def _prepare_worker(_worker: int) -> None:
    """One thread per worker; Ctrl-C and a scheduler's SIGTERM are left to the main process."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
