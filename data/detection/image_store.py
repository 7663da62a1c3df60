"""Pixels of a record's view, decoded as rarely as memory and disk allow."""

from __future__ import annotations

import math
import os
import random
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.detection.image_record import ImageRecord
from data.detection.pixel_cache import Shape, SharedPixels, StoredPixels
from data.letterbox import Interpolation, fit, resize
from data.media.image_files import ImageReadError, read_image
from utils.memory import free_memory

CacheMode = Literal["ram", "disk"]
_RECENT_BYTES = 512 * 2**20  # of decoded images that a process keeps because their other tiles will follow
_GIB = 2**30


class ImageStore:
    """Reads views; tiles of one full image share its decoded pixels.

    Args:
        records: the views that will be asked for.
        cache: "ram" decodes every image now and keeps it in memory that worker processes share; "disk" in
            mapped files that further runs and processes share as well; None keeps only recent full images
            that are read as tiles, up to 512 MiB a process.
        side: longest side that full images are kept with, as letterboxing shrinks them; None, and a
            full image that is read as tiles, is their own.
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
        wholes = {record.path: record for record in records} if cache else {}  # of a full image's tiles, any
        self._shapes = {path: self._kept_shape(record) for path, record in wholes.items()}
        self._pixels: SharedPixels | StoredPixels | None = None
        if cache == "ram" and _fits_memory(self._shapes.values()):
            self._pixels = SharedPixels(self._shapes)
        elif cache == "disk":
            self._pixels = StoredPixels({path.parent for path in wholes}, side)
        if self._pixels is not None:
            self._fill(list(wholes.values()))

    def view(self, record: ImageRecord) -> np.ndarray:
        """Return the pixels of a view, (height, width, 3) uint8 BGR; not to be written to.

        Raises:
            ImageReadError: it cannot be read, or its size is not the record's.
        """
        whole = record.parent or record
        image = self._image(record.path, (whole.height, whole.width), keep=record.tile is not None)
        if image.shape[:2] != (whole.height, whole.width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise ImageReadError(f"{record.path}: is {found} pixels, expected {whole.width}x{whole.height}")
        if record.tile is None:
            return image
        x0, y0, x1, y1 = record.tile
        return image[y0:y1, x0:x1]

    def source(self, record: ImageRecord) -> np.ndarray:
        """Return a view as augmentation takes it: shrunk where it is kept so, else as `view` does."""
        kept = self._kept(record.path, self._kept_shape(record)) if record.tile is None else None
        return self.view(record) if kept is None else kept

    def resized(self, record: ImageRecord, width: int, height: int) -> np.ndarray:
        """Return a view of this size, the same with a cache and without."""
        kept = self._kept(record.path, (height, width)) if record.tile is None else None
        return resize(self.view(record), width, height, self._interpolation) if kept is None else kept

    def _kept_shape(self, record: ImageRecord) -> Shape:
        """Height and width with which the record's image is kept."""
        whole = record.parent or record
        if self._side is None or record.tile is not None or max(whole.width, whole.height) <= self._side:
            return whole.height, whole.width
        _, width, height = fit(whole.width, whole.height, (self._side, self._side), rounding=math.ceil)
        return height, width

    def _kept(self, path: Path, shape: Shape) -> np.ndarray | None:
        return self._pixels.get(path, shape) if self._pixels is not None else None

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
        if isinstance(self._pixels, StoredPixels):  # processes that build at once share the work
            random.Random(os.getpid()).shuffle(records)
        with ThreadPoolExecutor() as pool:
            try:
                for _ in pool.map(self._keep, records):
                    pass
            except OSError as error:
                pool.shutdown(cancel_futures=True)
                print(
                    f"cache disk: no more could be written ({error.strerror or error}): "
                    "the rest is decoded each time",
                    file=sys.stderr,
                )

    def _keep(self, record: ImageRecord) -> None:
        whole, (height, width) = record.parent or record, self._shapes[record.path]
        if self._pixels is None or self._pixels.get(record.path, (height, width)) is not None:
            return
        try:
            image = read_image(record.path)
        except ImageReadError:
            return  # reported when its turn comes
        if image.shape[:2] == (whole.height, whole.width):  # else that is reported then
            self._pixels.put(record.path, resize(image, width, height))

    def __getstate__(self) -> dict[str, Any]:
        """Images kept only because they were read lately do not travel to worker processes."""
        return {**self.__dict__, "_recent": OrderedDict()}


def _fits_memory(shapes: Iterable[Shape]) -> bool:
    """Whether images of these shapes take less than 80% of the memory that is free, where that is known."""
    need = sum(3 * height * width for height, width in shapes)
    free = _free_shared_memory()
    if free is None or need < 0.8 * free:
        return True
    print(
        f"cache ram: decoded images take {need / _GIB:.1f} GiB and {free / _GIB:.1f} are free: not kept",
        file=sys.stderr,
    )
    return False


def _free_shared_memory() -> int | None:
    """Bytes that may be shared between processes: of the memory, and of /dev/shm, where they are counted."""
    free = free_memory()
    try:
        return min(shutil.disk_usage("/dev/shm").free, free or sys.maxsize)
    except OSError:
        return free
