"""Decoded images that many processes read without copying them: in shared memory, or as mapped files."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

Shape = tuple[int, int]  # height, width
_HEADER = struct.Struct("<8sqqII")  # mark, the image file's modification time and size; height, width
_MARK = b"pixels01"


class SharedPixels:
    """Decoded images in one block of shared memory, which worker processes see however they are started.

    Args:
        shapes: height and width of every image that will be kept.
    """

    def __init__(self, shapes: Mapping[Path, Shape]) -> None:
        import torch

        self._places: dict[Path, tuple[int, Shape]] = {}
        self._there: set[Path] = set()
        total = 0
        for path, shape in shapes.items():
            self._places[path] = total, shape
            total += 3 * shape[0] * shape[1]
        self._block = torch.empty(total, dtype=torch.uint8).share_memory_()

    def get(self, path: Path, shape: Shape) -> np.ndarray | None:
        """Return the pixels (H, W, 3) uint8 BGR of this height and width, or None."""
        if path not in self._there or self._places[path][1] != shape:
            return None
        return self._part(path)

    def put(self, path: Path, image: np.ndarray) -> bool:
        """Keep an image; False if it has another size than was announced."""
        if image.shape[:2] != self._places[path][1]:
            return False
        self._part(path)[:] = image
        self._there.add(path)
        return True

    def _part(self, path: Path) -> np.ndarray:
        start, (height, width) = self._places[path]
        return self._block[start : start + 3 * height * width].numpy().reshape(height, width, 3)


class StoredPixels:
    """Decoded images as files, which the system keeps in memory once for all processes as far as it can.

    They lie in the folder `.pixels` beside the images or, where nothing can be written there, in
    `$XDG_CACHE_HOME/yolov5-spd` (`~/.cache/yolov5-spd`). A file holds one image and counts only if the
    image's own size and modification time and the height and width wanted are those it was made from; it
    appears whole or not at all, so that several runs may build it at once.

    Args:
        folders: of the images.
        side: longest side of the images kept, None for their own; runs that differ keep different files.
    """

    def __init__(self, folders: Iterable[Path], side: int | None) -> None:
        self._suffix = f".{side or 'full'}.bgr"
        self._homes = {folder: _home(folder) for folder in folders}

    def get(self, path: Path, shape: Shape) -> np.ndarray | None:
        """Return the pixels (H, W, 3) uint8 BGR of this height and width, mapped from the file, or None."""
        home = self._homes[path.parent]
        if home is None:
            return None
        try:
            with (home / (path.name + self._suffix)).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if mapped[: _HEADER.size] != _header(path, shape):
                return None
            pixels = np.frombuffer(mapped, np.uint8, offset=_HEADER.size)
            return pixels.reshape(*shape, 3)
        except (OSError, ValueError):  # not there, empty, or cut short
            return None

    def put(self, path: Path, image: np.ndarray) -> bool:
        """Keep an image; False where there is no place to keep any.

        Raises:
            OSError: it cannot be written, as on a full disk; nothing is left of it.
        """
        home = self._homes[path.parent]
        if home is None:
            return False
        stored = home / (path.name + self._suffix)
        temporary = home / f"{stored.name}.{os.getpid()}.{threading.get_ident()}.part"
        try:
            with temporary.open("wb") as file:
                file.write(_header(path, (image.shape[0], image.shape[1])))
                file.write(np.ascontiguousarray(image).data)
            os.replace(temporary, stored)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        return True


def _home(folder: Path) -> Path | None:
    """Where the pixels of a folder's images go; it is said if that is not beside them."""
    beside = folder / ".pixels"
    if _writable(beside):
        return beside
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov5-spd"
    elsewhere = root / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    found = elsewhere if _writable(elsewhere) else None
    where = f"are kept in {found}" if found else "are not kept"
    print(f"cache disk: {folder} cannot be written to, decoded images {where}", file=sys.stderr)
    return found


def _header(path: Path, shape: Shape) -> bytes:
    status = path.stat()
    return _HEADER.pack(_MARK, status.st_mtime_ns, status.st_size, *shape)


def _writable(folder: Path) -> bool:
    """Whether a file can be made in the folder, which is made first."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
