"""Decoded images that many processes read without copying them: in shared memory, or as mapped files.

The files have a small header of our own: as .npy files, opened with np.load(mmap_mode="r"), 1,000 images of
640 x 480 took 0.58 s to read instead of 0.24 s, because NumPy parses its header as Python text each time.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from utils.files import write_atomically

LOG = logging.getLogger(__name__)
Shape = tuple[int, int]  # height, width
_HEADER = struct.Struct("<8sqqII")  # mark, the image file's modification time and size; height, width
_MARK = b"pixels01"


class SharedPixels:
    """Decoded images in one block of shared memory, which worker processes share however they are started.

    Args:
        shapes: height and width of every image that will be kept.
    """

    def __init__(self, shapes: Mapping[Path, Shape]) -> None:
        import torch

        self._places: dict[Path, tuple[int, Shape]] = {}
        self._present: set[Path] = set()
        total = 0
        for path, shape in shapes.items():
            self._places[path] = total, shape
            total += 3 * shape[0] * shape[1]
        self._block = torch.empty(total, dtype=torch.uint8).share_memory_()

    def get(self, path: Path, shape: Shape) -> np.ndarray | None:
        """Return the pixels (H, W, 3) uint8 BGR of this height and width, or None."""
        if path not in self._present or self._places[path][1] != shape:
            return None
        return self._slot(path)

    def put(self, path: Path, image: np.ndarray) -> bool:
        """Keep an image; False if its size is not the announced one."""
        if image.shape[:2] != self._places[path][1]:
            return False
        self._slot(path)[:] = image
        self._present.add(path)
        return True

    def _slot(self, path: Path) -> np.ndarray:
        start, (height, width) = self._places[path]
        return self._block[start : start + 3 * height * width].numpy().reshape(height, width, 3)


class StoredPixels:
    """Decoded images as mapped files, which the system keeps in memory once for all processes.

    They lie in the folder `.pixels` beside the images or, where that cannot be written, in
    `$XDG_CACHE_HOME/yolov5-spd` (`~/.cache/yolov5-spd`). A file holds one image. It is used only while the
    image file has the size and modification time that it had, and for the same height and width; it appears
    whole or not at all, so that several runs may fill the cache at once.

    Args:
        folders: of the images.
        side: longest side to which images were shrunk, None for their own; each side has files of its own.
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
        except (OSError, ValueError):  # missing, empty, or cut short
            return None

    def put(self, path: Path, image: np.ndarray) -> bool:
        """Keep an image; False where there is no folder to keep it in.

        Raises:
            UserError: it cannot be written, as on a full disk; nothing is left of it.
            OSError: the image file is gone.
        """
        home = self._homes[path.parent]
        if home is None:
            return False
        header = _header(path, (image.shape[0], image.shape[1]))
        with write_atomically(home / (path.name + self._suffix), "wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(image).data)
        return True


def _home(folder: Path) -> Path | None:
    """Where the pixels of a folder's images are kept, None if nowhere; warns if that is not beside them."""
    beside = folder / ".pixels"
    if _writable(beside):
        return beside
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov5-spd"
    elsewhere = root / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    home = elsewhere if _writable(elsewhere) else None
    outcome = f"are kept in {home}" if home else "are not kept"
    LOG.warning("--cache disk: %s cannot be written to; decoded images %s", folder, outcome)
    return home


def _header(path: Path, shape: Shape) -> bytes:
    status = path.stat()
    return _HEADER.pack(_MARK, status.st_mtime_ns, status.st_size, *shape)


def _writable(folder: Path) -> bool:
    """Whether a file can be created in the folder, which is created first."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
