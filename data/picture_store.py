"""Pixels of a record's view, decoded as rarely as memory and disk allow."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.image_record import ImageRecord
from data.pictures import BrokenPicture, read_picture
from utils.memory import free_memory

CacheMode = Literal["ram", "disk"]
_RECENT_BYTES = 512 * 2**20  # of decoded pictures that a process keeps because their other tiles will follow


class PictureStore:
    """Reads views; tiles of one photograph share its decoded pixels.

    Args:
        records: the views that will be asked for.
        cache: "ram" decodes every picture now and keeps it; "disk" keeps decoded pictures as `<picture>.npy`,
            memory-mapped; None keeps only recent photographs that are read as tiles, up to 512 MiB a process.
    """

    def __init__(self, records: Sequence[ImageRecord], cache: CacheMode | None = None) -> None:
        self.cache = cache
        self._recent: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._kept: dict[Path, np.ndarray] = {}
        if cache == "ram" and _fits_memory(records):
            self._keep_all(list(dict.fromkeys(record.path for record in records)))

    def view(self, record: ImageRecord) -> np.ndarray:
        """Return the pixels of a view, (height, width, 3) uint8 BGR; not to be written to.

        Raises:
            BrokenPicture: it cannot be read, or its size is not the record's.
        """
        whole = record.parent or record
        image = self._picture(record.path, keep=record.window is not None)
        if image.shape[:2] != (whole.height, whole.width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise BrokenPicture(f"{record.path}: is {found} pixels, expected {whole.width}x{whole.height}")
        if record.window is None:
            return image
        x0, y0, x1, y1 = record.window
        return image[y0:y1, x0:x1]

    def _picture(self, path: Path, keep: bool) -> np.ndarray:
        if path in self._kept:
            return self._kept[path]
        if self.cache == "disk":
            return _memory_mapped(path)
        if path in self._recent:
            self._recent.move_to_end(path)
            return self._recent[path]
        image = read_picture(path)
        if keep:
            self._recent[path] = image
            while (
                len(self._recent) > 1 and sum(kept.nbytes for kept in self._recent.values()) > _RECENT_BYTES
            ):
                self._recent.popitem(last=False)
        return image

    def _keep_all(self, paths: list[Path]) -> None:
        def read(path: Path) -> np.ndarray | None:
            try:
                return read_picture(path)
            except BrokenPicture:
                return None  # reported when its turn comes

        with ThreadPoolExecutor() as pool:
            images = pool.map(read, paths)
            self._kept = {path: image for path, image in zip(paths, images, strict=True) if image is not None}

    def __getstate__(self) -> dict[str, Any]:
        """Pictures kept only because they were read lately do not travel to worker processes."""
        return {**self.__dict__, "_recent": OrderedDict()}


def _fits_memory(records: Sequence[ImageRecord]) -> bool:
    """Whether all decoded pictures take less than 80% of the memory that is free, where that is known."""
    wholes = {record.path: record.parent or record for record in records}
    need = sum(3 * whole.width * whole.height for whole in wholes.values())
    free = free_memory()
    if free is None or need < 0.8 * free:
        return True
    gib = 2**30
    print(
        f"cache ram: the decoded pictures take {need / gib:.1f} GiB and {free / gib:.1f} are free: not kept",
        file=sys.stderr,
    )
    return False


def _memory_mapped(path: Path) -> np.ndarray:
    """The decoded picture from `<picture>.npy`, which carries the picture's own modification time."""
    stored = path.with_name(path.name + ".npy")
    stamp = path.stat().st_mtime_ns if path.exists() else None
    try:
        if stored.stat().st_mtime_ns == stamp:
            return np.load(stored, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        pass  # not there, or damaged: written anew
    image = read_picture(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npy")
    try:
        np.save(temporary, image)
        os.utime(temporary, ns=(stamp or 0, stamp or 0))
        os.replace(temporary, stored)
    except OSError as error:
        print(f"{stored} could not be written ({error.strerror}): decoded again next time", file=sys.stderr)
    return image
