"""What to detect on: images, folders, globs, lists, videos, cameras and streams, read frame by frame."""

from __future__ import annotations

import glob
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
from PIL import Image

from data.media.frame import BrokenVideo, Frame
from data.media.image_files import IMAGE_SUFFIXES, ImageReadError, is_image, read_image, read_size
from data.media.large_image import open_large
from data.media.signatures import is_video_file
from data.media.streams import Streams, is_stream, without_password
from data.paths import in_project, is_litter, read_lines, resolve
from utils.errors import UserError, quoted
from utils.limits import ANIMATION_FRAMES, VIDEO_PIXELS
from utils.reading import check_regular, guarded, is_regular, reading

LOG = logging.getLogger(__name__)
VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
LIST_SUFFIXES = (".txt", ".streams")
_IMAGES, _VIDEOS = (" ".join(sorted(suffixes)) for suffixes in (IMAGE_SUFFIXES, VIDEO_SUFFIXES))
_KINDS = f"images are {_IMAGES}, videos {_VIDEOS}, lists {' '.join(LIST_SUFFIXES)}"
_DEFAULT_FPS = 30.0  # for the rare video that does not say


class Source(Protocol):
    """An iterable of frames that keeps a list of what could not be read.

    Attributes:
        problems: one line for each file or stream so far that could not be read, wholly or in part.
    """

    problems: list[str]

    @property
    def files(self) -> Sequence[Path]:
        """The files it reads; none for streams."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames are skipped that are not taken in time, so that none should wait for another."""
        ...

    @property
    def count(self) -> int | None:
        """How many frames will come; None where it is not known."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Read the frames one by one."""
        ...

    def leave_out(self, problem: str) -> None:
        """Note and report a file or stream that could not be read."""
        ...


@dataclass
class MediaFiles:
    """Images and videos, one after the other; a `Source`.

    A file that cannot be read is reported, noted in `problems` and left out; where it is the only one,
    iterating raises a UserError instead.

    Attributes:
        files: what to read.
        vid_stride: read every n-th frame of a video, beginning with the first.
        report: called with a line for each broken file; logs it by default.
        problems: what is wrong with each of them, so far.
    """

    files: list[Path]
    vid_stride: int = 1
    report: Callable[[str], None] = LOG.warning
    problems: list[str] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether frames are skipped that are not taken in time: none are."""
        return False

    @property
    def count(self) -> int | None:
        """How many frames the headers of the files promise."""
        videos = [path for path in self.files if path.suffix.lower() in VIDEO_SUFFIXES]
        counts = [_frame_count(path) for path in videos]
        if not all(counts):
            return None
        return len(self.files) - len(videos) + sum(-(-count // self.vid_stride) for count in counts)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files, 1):
            frames = 0
            try:
                for frame in self._read(path, index):
                    frames += 1
                    yield frame
            except (ImageReadError, BrokenVideo) as error:
                if len(self.files) == 1 and not frames:
                    raise UserError(str(error)) from error
                self.leave_out(str(error))

    def __str__(self) -> str:
        return f"{len(self.files)} file{'s' * (len(self.files) != 1)}"

    def leave_out(self, problem: str) -> None:
        """Note and report a file that could not be read."""
        self.problems.append(problem)
        self.report(f"left out: {problem}")

    def _read(self, path: Path, index: int) -> Iterator[Frame]:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _read_video(path, index, len(self.files), self.vid_stride)
            return
        image = open_large(path)
        if image is None and path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            read_size(path)  # tells a truncated one, which some decoders fill with gray
        pixels = read_image(path) if image is None else image
        yield Frame(pixels, path, index, len(self.files))


def open_source(
    source: str | Path | Sequence[str | Path],
    vid_stride: int = 1,
    report: Callable[[str], None] = LOG.warning,
) -> MediaFiles | Streams:
    """Return the images and videos, or the streams, that `source` names.

    Args:
        source: one or several of: an image, a video, a folder (its own files, not those of subfolders), a
            glob such as 'a/**/*.jpg', the number of a camera, a URL, or a .txt or .streams file with any of
            these on each line, relative to that file or to the current folder.
        vid_stride: read every n-th frame of a video.
        report: called with a line for each file that is left out and each stream that is interrupted; logs
            it by default.

    Raises:
        UserError: it is missing, is neither image, video nor stream, or mixes files and streams.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # broken files get one line, ours
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    given = [source] if isinstance(source, str | Path) else list(source)
    if not given:
        raise UserError(f"no source given; {_WHAT}")
    files: list[Path] = []
    streams: list[str] = []
    for one in given:
        with guarded(quoted(str(one)), "a source"):  # names that are too long, or hold a NUL
            for name, listed in _entries(str(one)):
                if is_stream(name) and not Path(name).exists():
                    streams.append(name)
                elif listed and _media([Path(name)]):
                    files.append(Path(name))  # a missing one is reported later, and the others are read
                else:
                    files += _find(name)
    if streams and files:
        raise UserError(f"streams and files cannot be mixed: {without_password(streams[0])} and {files[0]}")
    return Streams(streams, vid_stride, report) if streams else MediaFiles(files, vid_stride, report)


_WHAT = "give an image, video, folder, glob, list (.txt), camera number or URL"


def _entries(source: str) -> list[tuple[str, bool]]:
    """The lines of a list file, or the source itself; and whether they are from a list."""
    path = Path(source)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return [(entry, True) for entry in _in_list(path)]
    return [(source, False)]


def _find(source: str) -> list[Path]:
    path = in_project(Path(source))
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        return [_known(path)]
    if path.exists():
        check_regular(path, "an image or a video")
    if glob.has_magic(source):
        paths = sorted(Path(name) for name in glob.glob(source, recursive=True))
        paths = [path for path in paths if not any(map(is_litter, path.parts[-2:]))]
        return _media(paths) or _nothing(f"no image or video matches '{source}'")
    return _nothing(f"no such source: '{source}'; {_WHAT}")


def _nothing(message: str) -> list[Path]:
    raise UserError(message)


def _media(paths: list[Path]) -> list[Path]:
    return [p for p in paths if (is_image(p) or p.suffix.lower() in VIDEO_SUFFIXES) and not p.is_dir()]


def _known(path: Path) -> Path:
    if not _media([path]):
        raise UserError(f"{path}: neither an image nor a video by its name; {_KINDS}")
    return path


def _in_folder(folder: Path) -> list[Path]:
    entries = sorted(path for path in folder.iterdir() if not is_litter(path.name))
    if media := _media(entries):
        return media
    if not entries:
        raise UserError(f"{folder}: the folder is empty")
    hint = f"; for its subfolders give '{folder}/**/*.jpg'" if any(p.is_dir() for p in entries) else ""
    raise UserError(f"{folder}: no image or video in this folder{hint}; {_KINDS}")


def _in_list(file: Path) -> list[str]:
    with reading(file, "a list of paths"):
        entries = read_lines(file)
    if not entries:
        raise UserError(f"{file}: the list is empty; it takes one path or URL on each line")
    return [
        entry if is_stream(entry) else str(resolve(entry, [file.parent, Path()]) or entry)
        for entry in entries
    ]


def _frame_count(path: Path) -> int:
    """Frames of a video according to its header, 0 where it does not say."""
    if not is_regular(path) or not is_video_file(path) or path.suffix.lower() == ".gif":
        return 0
    capture = cv2.VideoCapture(str(path))
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return int(count) if math.isfinite(count) and count > 0 else 0


def check_animation(path: Path) -> None:
    """Refuse a GIF with too large or too many frames, which are counted without decoding them.

    Raises:
        BrokenVideo: as above.
    """
    if path.suffix.lower() != ".gif":
        return
    with Image.open(path, formats=("GIF",)) as image:
        if image.width * image.height > VIDEO_PIXELS.most:
            raise BrokenVideo(VIDEO_PIXELS.refusal(image.width * image.height, path))
        frames = getattr(image, "n_frames", 1)
    if frames > ANIMATION_FRAMES.most:
        raise BrokenVideo(ANIMATION_FRAMES.refusal(frames, path))


def _read_video(path: Path, index: int, files: int, stride: int) -> Iterator[Frame]:
    """Read to the end, whatever number of frames the header claims.

    Raises:
        BrokenVideo: it cannot be opened, ends well before the header says, or has frames that do not decode.
    """
    if not path.exists():
        raise BrokenVideo(f"{path}: no such video")
    with reading(path, "a video", BrokenVideo):
        if not is_video_file(path):
            raise BrokenVideo(f"{path}: the video cannot be opened: it begins like none of the formats read")
        check_animation(path)
    capture = cv2.VideoCapture(str(path))
    try:
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if pixels > VIDEO_PIXELS.most:
            raise BrokenVideo(VIDEO_PIXELS.refusal(pixels, path))
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
