"""What to detect on: a picture, a folder, a glob, a list file or a video, read frame by frame."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from data.pictures import PICTURE_SUFFIXES, BrokenPicture, is_picture, read_picture, read_size
from utils.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
_PICTURES, _VIDEOS = (" ".join(sorted(suffixes)) for suffixes in (PICTURE_SUFFIXES, VIDEO_SUFFIXES))
_KINDS = f"pictures are {_PICTURES}, videos {_VIDEOS}, lists .txt"
_DEFAULT_FPS = 30.0  # for the rare video that does not say


class BrokenVideo(ValueError):
    """A video that cannot be opened or ends early; the message names the file and the reason."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, or one frame of a video.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        path: the file.
        index: number of the file, from 1, of `files`.
        files: how many files the source has.
        number: number of the frame in its video, from 1; 1 for a picture.
        total: frames in the video as its header claims, None where it does not say; 1 for a picture.
        fps: frames a second of the frames that are read (a stride lowers it); None for a picture.
    """

    image: np.ndarray
    path: Path
    index: int
    files: int
    number: int = 1
    total: int | None = 1
    fps: float | None = None

    @property
    def is_video(self) -> bool:
        """Whether it belongs to a video."""
        return self.fps is not None


def _print_problem(message: str) -> None:
    print(f"left out: {message}", file=sys.stderr)


@dataclass
class MediaFiles:
    """Pictures and videos, one after the other.

    A file that cannot be read is reported, noted in `problems` and left out; where it is the only one,
    iterating raises a UserError instead.

    Attributes:
        files: what to read.
        vid_stride: read every n-th frame of a video, beginning with the first.
        report: is called with one line for each broken file.
        problems: these lines, so far.
    """

    files: list[Path]
    vid_stride: int = 1
    report: Callable[[str], None] = _print_problem
    problems: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files, 1):
            frames = 0
            try:
                for frame in self._read(path, index):
                    frames += 1
                    yield frame
            except (BrokenPicture, BrokenVideo) as error:
                if len(self.files) == 1 and not frames:
                    raise UserError(str(error)) from error
                self.problems.append(str(error))
                self.report(str(error))

    def _read(self, path: Path, index: int) -> Iterator[Frame]:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _read_video(path, index, len(self.files), self.vid_stride)
            return
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            read_size(path)  # tells a truncated one, which some decoders fill with grey
        yield Frame(read_picture(path), path, index, len(self.files))


def open_source(source: str | Path, vid_stride: int = 1) -> MediaFiles:
    """Return the pictures and videos that `source` names.

    Args:
        source: a picture, a video, a folder (its own files, not its subfolders'), a glob such as
            'a/**/*.jpg', or a .txt file with one path a line, relative to itself or the current folder.
        vid_stride: read every n-th frame of a video.

    Raises:
        UserError: nothing there, or nothing that is a picture or a video.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # broken files get one line, ours
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    return MediaFiles(_find(str(source)), vid_stride)


def _find(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return _in_list(path) if path.suffix.lower() == ".txt" else [_known(path)]
    if glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(source, recursive=True))
        return _media(found) or _nothing(f"no picture or video matches '{source}'")
    if "://" in source or source.isdigit():
        return _nothing(f"source '{source}': give a picture, folder, glob, list (.txt) or video file")
    return _nothing(f"no such source: '{source}'; give a picture, folder, glob, list (.txt) or video file")


def _nothing(message: str) -> list[Path]:
    raise UserError(message)


def _media(paths: list[Path]) -> list[Path]:
    return [p for p in paths if (is_picture(p) or p.suffix.lower() in VIDEO_SUFFIXES) and not p.is_dir()]


def _known(path: Path) -> Path:
    if not _media([path]):
        raise UserError(f"{path}: neither a picture nor a video by its name; {_KINDS}")
    return path


def _in_folder(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    if found := _media(entries):
        return found
    if not entries:
        raise UserError(f"{folder}: the folder is empty")
    hint = f"; for its subfolders give '{folder}/**/*.jpg'" if any(p.is_dir() for p in entries) else ""
    raise UserError(f"{folder}: no picture or video in this folder{hint}; {_KINDS}")


def _in_list(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a list of paths (no UTF-8 text)") from error
    paths = [Path(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise UserError(f"{file}: the list is empty; it takes one path a line")
    return [_known(near if (near := file.parent / path).exists() else path) for path in paths]


def _read_video(path: Path, index: int, files: int, stride: int) -> Iterator[Frame]:
    """Read until nothing is left, whatever number of frames the header claims.

    Raises:
        BrokenVideo: it cannot be opened, or ends well before the header says.
    """
    if not path.is_file():
        raise BrokenVideo(f"{path}: no such video")
    capture = cv2.VideoCapture(str(path))
    try:
        fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = fps if math.isfinite(fps) and fps > 0 else _DEFAULT_FPS
        total = count if count > 0 else None
        number = lost = 0
        while capture.grab():
            number += 1
            if (number - 1) % stride:
                continue
            decoded, image = capture.retrieve()
            if decoded:
                yield Frame(image, path, index, files, number, total, fps / stride)
            lost += not decoded
    finally:
        capture.release()
    if not number:
        raise BrokenVideo(f"{path}: the video cannot be opened")
    if total and number < total - max(2, total // 100):  # headers are often off by one or two
        raise BrokenVideo(f"{path}: the video ends after frame {number} of {total}")
    if lost:
        raise BrokenVideo(f"{path}: {lost} of {number} frames cannot be decoded")
