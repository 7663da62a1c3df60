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
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from data.paths import KEPT_PIXELS
from utils.drafts import clear_drafts
from utils.files import write_atomically
from utils.stamps import Stamp, stamp_of

LOG = logging.getLogger(__name__)
Shape = tuple[int, int]  # height, width
_HEADER = struct.Struct("<8sqqQqII")  # mark; the image file's stamp, see utils.stamps; height, width
_SUM = struct.Struct("<I")  # of the pixels, CRC-32
_MARK = b"pixels02"
_START = _HEADER.size + _SUM.size


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
    image file is the one it was made from, and for the same height and width; it appears whole or not at all,
    so that several runs may fill the cache at once. Its checksum is compared when a run starts.

    Args:
        folders: of the images.
        side: longest side to which images were shrunk, None for their own; each side has files of its own.
    """

    def __init__(self, folders: Iterable[Path], side: int | None) -> None:
        self._suffix = f".{side or 'full'}.bgr"
        self._homes = {folder: _home(folder) for folder in folders}
        for home in filter(None, self._homes.values()):
            clear_drafts(home)

    def get(self, path: Path, shape: Shape) -> np.ndarray | None:
        """Return the pixels (H, W, 3) uint8 BGR of this height and width, mapped from the file, or None."""
        mapped = self._mapped(path, shape)
        return None if mapped is None else np.frombuffer(mapped, np.uint8, offset=_START).reshape(*shape, 3)

    def is_whole(self, path: Path, shape: Shape) -> bool:
        """Whether an image is kept, and every byte of it is what was written; logs where it is not."""
        mapped = self._mapped(path, shape)
        if mapped is None:
            return False
        with memoryview(mapped) as content:
            whole = _SUM.pack(zlib.crc32(content[_START:])) == content[_HEADER.size : _START]
        if not whole:
            LOG.warning("--cache disk: what is kept of %s is damaged; it is decoded again", path)
        return whole

    def _mapped(self, path: Path, shape: Shape) -> mmap.mmap | None:
        home = self._homes[path.parent]
        if home is None:
            return None
        try:
            with (home / (path.name + self._suffix)).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header = _header(stamp_of(path), shape)
        except (OSError, ValueError):  # missing or empty
            return None
        size = _START + 3 * shape[0] * shape[1]
        return mapped if len(mapped) == size and mapped[: _HEADER.size] == header else None

    def put(self, path: Path, image: np.ndarray, stamp: Stamp) -> bool:
        """Keep an image; False where there is no folder to keep it in.

        Args:
            path: of the image file.
            image: (H, W, 3) uint8 BGR.
            stamp: of the image file, taken before it was read: it may have changed since.

        Raises:
            UserError: it cannot be written, as on a full disk; nothing is left of it.
        """
        home = self._homes[path.parent]
        if home is None:
            return False
        pixels = np.ascontiguousarray(image).data
        with write_atomically(home / (path.name + self._suffix), "wb") as file:
            file.write(_header(stamp, (image.shape[0], image.shape[1])))
            file.write(_SUM.pack(zlib.crc32(pixels)))
            file.write(pixels)
        return True


def _home(folder: Path) -> Path | None:
    """Where the pixels of a folder's images are kept, None if nowhere; warns if that is not beside them."""
    beside = folder / KEPT_PIXELS
    if _writable(beside):
        return beside
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov5-spd"
    elsewhere = root / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    home = elsewhere if _writable(elsewhere) else None
    outcome = f"are kept in {home}" if home else "are not kept"
    LOG.warning("--cache disk: %s cannot be written to; decoded images %s", folder, outcome)
    return home


def _header(stamp: Stamp, shape: Shape) -> bytes:
    return _HEADER.pack(_MARK, *stamp, *shape)


def _writable(folder: Path) -> bool:
    """Whether a file can be created in the folder, which is created first."""
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True
