"""Annotated images, videos and frames."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from data.media.frame import Frame
from data.media.large_image import LargeImage
from engine.inference.outputs.result import FrameResult
from utils.errors import UserError
from utils.files import write_atomically, writing

LARGEST = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}  # px, longer side that a format can hold
LONGEST_NAME = 200  # characters of a video's name that it has while it is written


class Media:
    """Annotated images and videos, under the names of the originals."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._videos: dict[Path, _Video] = {}

    def add(self, result: FrameResult) -> None:
        """Write an image, or add a frame to its video; only streams are written side by side."""
        frame = result.frame
        if not frame.is_video:
            suffix = ".jpg" if isinstance(frame.image, LargeImage) else frame.path.suffix
            write_image(self.folder / f"{result.name}{suffix}", result.drawn)
            return
        if frame.path not in self._videos:
            if not frame.side_by_side:
                self.close()
            self._videos[frame.path] = _Video(self.folder / result.name, frame)
        self._videos[frame.path].write(result.drawn, frame.seconds)

    def close(self) -> None:
        """Finish the videos at hand.

        Raises:
            UserError: one is not complete on the disk.
        """
        with ExitStack() as stack:  # each is finished, whatever becomes of the others
            for video in self._videos.values():
                stack.callback(video.close)
            self._videos.clear()


class _Video:
    """An MP4 file (MPEG-4 part 2), or Motion JPEG in AVI where OpenCV cannot write it.

    It is called `<name>.part.mp4` until it is complete.
    """

    LONGEST_GAP = 10  # seconds of a live video that one frame fills at most

    def __init__(self, stem: Path, first: Frame):
        assert first.fps is not None
        height, width = first.image.shape[:2]
        self._size, self._fps = (width, height), first.fps
        self._began, self._due = first.seconds or 0.0, 0
        self._written = 0
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG")):
            self.path = stem.with_name(stem.name + suffix)
            self._part = stem.with_name(f"{stem.name[:LONGEST_NAME]}.part{suffix}")
            code = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(self._part), code, first.fps, self._size)
            if self._writer.isOpened():
                return
        raise UserError(
            f"cannot write the video {stem}.mp4: OpenCV opens neither an MP4 nor an AVI file there"
        )

    def write(self, image: np.ndarray, seconds: float | None) -> None:
        """Add a frame; a live one, read after `seconds`, as often as keeps the video in real time."""
        same = (image.shape[1], image.shape[0]) == self._size
        image = image if same else cv2.resize(image, self._size)  # the writer would drop another size
        times = 1
        if seconds is not None:
            due = int((seconds - self._began) * self._fps) + 1 - self._due
            times = min(max(due, 0), int(self.LONGEST_GAP * self._fps) + 1)
            self._due += max(due, 0)
        for _ in range(times):
            self._writer.write(image)
        self._written += times

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            UserError: not every frame is in it; OpenCV's writer says nothing of a full disk.
        """
        self._writer.release()
        capture = cv2.VideoCapture(str(self._part))
        complete = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        with writing(self.path):
            if complete >= self._written:
                os.replace(self._part, self.path)
                return
            free = shutil.disk_usage(self.path.parent).free / 2**20
            if not complete:  # nothing of it plays
                self._part.unlink(missing_ok=True)
        kept = f" ({self._part.name})" if complete else ""
        raise UserError(
            f"cannot write {self.path}: {complete} of its {self._written} frames are in the file{kept}; "
            f"{free:.0f} MiB are free on its disk"
        )


class Frames:
    """frames/<name>_<number>.jpg: each annotated frame of the videos."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file for a frame of a video."""
        if result.frame.is_video:
            write_image(self.folder / f"{result.frame_name}.jpg", result.drawn)

    def close(self) -> None:
        """Nothing is open."""


def write_image(path: Path, image: np.ndarray) -> None:
    """Encode by the suffix and write; names may have any letters, which OpenCV's own writer cannot promise.

    An image that is longer than its format can hold is shrunk.

    Raises:
        UserError: it cannot be written.
    """
    height, width = image.shape[:2]
    scale = LARGEST.get(path.suffix.lower(), math.inf) / max(height, width)
    if scale < 1:
        size = (max(int(width * scale), 1), max(int(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(path.suffix.lower(), image)
    assert done, f"OpenCV reads but does not write {path.suffix}"
    with write_atomically(path, "wb") as file:
        file.write(encoded.tobytes())
