"""Pixels of records, decoded as rarely as memory and disk allow."""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.detection.pixel_cache import Shape, SharedPixels, StoredPixels
from data.handover import is_lack_of_shared_memory
from data.image_record import ImageRecord
from data.letterbox import Interpolation, fit, resize
from data.media.image_files import ImageReadError, read_image
from utils.errors import UserError
from utils.memory import free_memory
from utils.stamps import stamp_of

LOG = logging.getLogger(__name__)
CacheMode = Literal["ram", "disk"]
_RECENT_BYTES = 512 * 2**20  # of decoded images that a process keeps because their other tiles will follow
_GIB = 2**30


class ImageStore:
    """Reads the pixels of records; tiles of one full image share its decoded pixels.

    Args:
        records: those that will be read.
        cache: "ram" decodes every image now and keeps it in memory that worker processes share; "disk"
            keeps it in mapped files, which later runs and other processes share as well; None keeps only
            the full images of recently read tiles, up to 512 MiB in each process.
        side: longest side to which full images are shrunk before they are kept, as letterboxing does;
            None, and always for a full image that is read as tiles: they are kept as they are.
        interpolation: of images that shrink.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        cache: CacheMode | None = None,
        side: int | None = None,
        interpolation: Interpolation = "area",
    ) -> None:
        side = side if interpolation == "area" else None  # what is kept shrunk was averaged
        self._side, self._interpolation = side, interpolation
        self._recent: OrderedDict[Path, np.ndarray] = OrderedDict()
        wholes = {record.path: record for record in records} if cache else {}  # any one of an image's tiles
        self._shapes = {path: self._kept_shape(record) for path, record in wholes.items()}
        self._cache: SharedPixels | StoredPixels | None = None
        if cache == "ram" and _fits_memory(self._shapes.values()):
            self._cache = _shared_pixels(self._shapes)
        elif cache == "disk":
            self._cache = StoredPixels({path.parent for path in wholes}, side)
        if self._cache is not None:
            self._fill(list(wholes.values()))

    def pixels(self, record: ImageRecord) -> np.ndarray:
        """Return a record's pixels, (height, width, 3) uint8 BGR; not to be written to.

        Raises:
            ImageReadError: it cannot be read, or its size is not the record's.
        """
        whole = record.parent or record
        image = self._image(record.path, (whole.height, whole.width), keep=record.tile is not None)
        if image.shape[:2] != (whole.height, whole.width):
            actual, expected = f"{image.shape[1]}x{image.shape[0]}", f"{whole.width}x{whole.height}"
            raise ImageReadError(f"{record.path}: is {actual} pixels, expected {expected}")
        if record.tile is None:
            return image
        x0, y0, x1, y1 = record.tile
        return image[y0:y1, x0:x1]

    def shrunk(self, record: ImageRecord) -> np.ndarray:
        """Return a record's pixels for augmentation: with a cache, shrunk as it keeps them, else as they are.

        With a cache that had no room for an image, or was lost, they are the same as with one that had.
        """
        if record.tile is not None or record.path not in self._shapes:
            return self.pixels(record)
        height, width = self._shapes[record.path]
        return self.resized(record, width, height)

    def resized(self, record: ImageRecord, width: int, height: int) -> np.ndarray:
        """Return a record's pixels resized to this size, the same with a cache and without."""
        kept = self._kept(record.path, (height, width)) if record.tile is None else None
        return resize(self.pixels(record), width, height, self._interpolation) if kept is None else kept

    def _kept_shape(self, record: ImageRecord) -> Shape:
        """Height and width with which the record's image is kept."""
        whole = record.parent or record
        if self._side is None or record.tile is not None or max(whole.width, whole.height) <= self._side:
            return whole.height, whole.width
        _, width, height = fit(whole.width, whole.height, (self._side, self._side), rounding=math.ceil)
        return height, width

    def _kept(self, path: Path, shape: Shape) -> np.ndarray | None:
        return self._cache.get(path, shape) if self._cache is not None else None

    def _image(self, path: Path, shape: Shape, keep: bool) -> np.ndarray:
        image = self._kept(path, shape)
        if image is not None:
            return image
        if path in self._recent:
            self._recent.move_to_end(path)
            return self._recent[path]
        image = read_image(path)
        if keep:
            self._recent[path] = image
            while (
                len(self._recent) > 1 and sum(kept.nbytes for kept in self._recent.values()) > _RECENT_BYTES
            ):
                self._recent.popitem(last=False)
        return image

    def _fill(self, records: list[ImageRecord]) -> None:
        """Decode what is not kept yet, until there is no room left."""
        if isinstance(self._cache, StoredPixels):  # processes that build at once share the work
            random.Random(os.getpid()).shuffle(records)
        with ThreadPoolExecutor() as pool:
            try:
                for _ in pool.map(self._keep, records):
                    pass
            except (UserError, OSError) as error:  # OSError: an image vanished
                pool.shutdown(cancel_futures=True)
                LOG.warning("--cache disk: %s; what is not kept is decoded each time", error)

    def _keep(self, record: ImageRecord) -> None:
        whole, (height, width) = record.parent or record, self._shapes[record.path]
        if self._cache is None or (
            isinstance(self._cache, StoredPixels) and self._cache.is_whole(record.path, (height, width))
        ):
            return
        try:
            stamp = stamp_of(record.path)
            image = read_image(record.path)
        except ImageReadError:
            return  # reported when it is loaded
        if image.shape[:2] != (whole.height, whole.width):  # reported when it is loaded
            return
        small = resize(image, width, height)
        if isinstance(self._cache, StoredPixels):
            self._cache.put(record.path, small, stamp)
        else:
            self._cache.put(record.path, small)

    def __getstate__(self) -> dict[str, Any]:
        """Images kept only because they were read lately do not travel to worker processes."""
        return {**self.__dict__, "_recent": OrderedDict()}


def _shared_pixels(shapes: Mapping[Path, Shape]) -> SharedPixels | None:
    """Return room for images, None where the system has none after all."""
    try:
        return SharedPixels(shapes)
    except RuntimeError as error:
        if not is_lack_of_shared_memory(error):
            raise
        LOG.warning("--cache ram: too little shared memory: decoded images are not kept")
        return None


def _fits_memory(shapes: Iterable[Shape]) -> bool:
    """Whether images of these shapes take less than 80% of the memory that is free, where that is known."""
    need = sum(3 * height * width for height, width in shapes)
    free = _free_shared_memory()
    if free is None or need < 0.8 * free:
        return True
    LOG.warning(
        "--cache ram: decoded images take %.1f GiB and %.1f are free: not kept", need / _GIB, free / _GIB
    )
    return False


def _free_shared_memory() -> int | None:
    """Free bytes of the memory that processes share: of /dev/shm, which counts it, and of the machine."""
    free = free_memory()
    try:
        return min(shutil.disk_usage("/dev/shm").free, free or sys.maxsize)
    except OSError:
        return free
