"""What detection leaves behind: annotated media, frames, labels, COCO JSON, CSV, crops."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TextIO

import cv2
import numpy as np

from data.media.frame import Frame
from data.media.large_image import LargeImage, overview
from utils.errors import UserError
from utils.ultralytics_adapter import draw_boxes

DRAWN_SIDE = 8192  # pixels; what is read by windows is drawn at most this large


@dataclass(frozen=True)
class Style:
    """How boxes are drawn, and what labels say; without a line width it follows image and boxes."""

    line_width: int | None = None
    labels: bool = True
    confidences: bool = True


@dataclass(frozen=True, eq=False)
class Result:
    """What was found in one frame.

    Attributes:
        frame: the image or video frame.
        name: stem of the names of this file's outputs, its own among all files of the run.
        rows: (n, 6) x1, y1, x2, y2 in pixels, confidence, class; best first.
        names: the classes.
        style: how it is drawn.
        ids: (n,) the number of each object in its video; None where nobody follows them.
    """

    frame: Frame
    name: str
    rows: np.ndarray
    names: Sequence[str]
    style: Style = field(default_factory=Style)
    ids: np.ndarray | None = None

    @property
    def frame_name(self) -> str:
        """`name`, with the frame's number in a video."""
        return f"{self.name}_{self.frame.number}" if self.frame.is_video else self.name

    @cached_property
    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR: the frame with its boxes."""
        image, scale = overview(self.frame.image, DRAWN_SIDE)
        labels = [self._label(i) for i in range(len(self.rows))]
        colors = self.rows[:, 5] if self.ids is None else self.ids
        return draw_boxes(image, self.rows[:, :4] * scale, labels, colors, self.style.line_width)

    def id_of(self, i: int) -> int | None:
        """The number of the i-th object in its video."""
        return None if self.ids is None else int(self.ids[i])

    def _label(self, i: int) -> str:
        if not self.style.labels:
            return ""
        name = self.names[int(self.rows[i, 5])]
        number = f" {self.ids[i]}" if self.ids is not None else ""
        confidence = f" {self.rows[i, 4]:.2f}" if self.style.confidences else ""
        return name + number + confidence


class Output(Protocol):
    """One kind of output of a run."""

    def add(self, result: Result) -> None:
        """Take the next frame."""
        ...

    def close(self) -> None:
        """Finish the files, so that they can be read."""
        ...


class UniqueNames:
    """Give each file a stem no other has: a.jpg and b/a.jpg become 'a' and 'a-2'."""

    def __init__(self) -> None:
        self._names: dict[Path, str] = {}
        self._taken: set[str] = set()

    def __call__(self, path: Path) -> str:
        """Return the stem for `path`, always the same."""
        if path not in self._names:
            name, number = path.stem, 1
            while name.lower() in self._taken:  # some file systems ignore case
                number += 1
                name = f"{path.stem}-{number}"
            self._taken.add(name.lower())
            self._names[path] = name
        return self._names[path]


class Media:
    """Annotated images and videos, under the names of the originals."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._videos: dict[Path, _Video] = {}

    def add(self, result: Result) -> None:
        """Write an image, or add a frame to its video; only streams are written side by side."""
        frame = result.frame
        if not frame.is_video:
            suffix = ".jpg" if isinstance(frame.image, LargeImage) else frame.path.suffix
            write_image(self.folder / f"{result.name}{suffix}", result.drawn)
            return
        if frame.path not in self._videos:
            if frame.seconds is None:
                self.close()
            self._videos[frame.path] = _Video(self.folder / result.name, frame)
        self._videos[frame.path].write(result.drawn, frame.seconds)

    def close(self) -> None:
        """Finish the videos at hand."""
        for video in self._videos.values():
            video.close()
        self._videos.clear()


class _Video:
    """An MP4 file (MPEG-4 part 2), or Motion JPEG in AVI where OpenCV cannot write it."""

    LONGEST_GAP = 10  # seconds of a live video that one frame fills at most

    def __init__(self, stem: Path, first: Frame):
        assert first.fps is not None
        height, width = first.image.shape[:2]
        self._size, self._fps = (width, height), first.fps
        self._began, self._written = first.seconds or 0.0, 0
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG")):
            self.path = stem.with_name(stem.name + suffix)
            code = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(self.path), code, first.fps, self._size)
            if self._writer.isOpened():
                return
        raise UserError(
            f"cannot write the video {stem}.mp4: OpenCV opens neither an MP4 nor an AVI file there"
        )

    def write(self, image: np.ndarray, seconds: float | None) -> None:
        """Add a frame; a live one, seen after `seconds`, as often as makes the video last as long as life."""
        same = (image.shape[1], image.shape[0]) == self._size
        image = image if same else cv2.resize(image, self._size)  # the writer would drop another size
        times = 1
        if seconds is not None:
            due = int((seconds - self._began) * self._fps) + 1 - self._written
            times = min(max(due, 0), int(self.LONGEST_GAP * self._fps) + 1)
            self._written += max(due, 0)
        for _ in range(times):
            self._writer.write(image)

    def close(self) -> None:
        self._writer.release()


class Frames:
    """frames/<name>_<number>.jpg: each annotated frame of the videos."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, result: Result) -> None:
        """Write one file for a frame of a video."""
        if result.frame.is_video:
            write_image(self.folder / f"{result.frame_name}.jpg", result.drawn)

    def close(self) -> None:
        """Nothing is open."""


def write_image(path: Path, image: np.ndarray) -> None:
    """Encode by the suffix and write; names may have any letters, which OpenCV's own writer cannot promise.

    Raises:
        OSError: it cannot be written.
    """
    done, encoded = cv2.imencode(path.suffix.lower(), image)
    assert done, f"OpenCV reads but does not write {path.suffix}"
    path.write_bytes(encoded.tobytes())


class Labels:
    """YOLO's labels/*.txt: class, cx, cy, w, h as fractions[, confidence][, id]; a file for every frame."""

    def __init__(self, folder: Path, confidences: bool):
        self.folder, self.confidences = folder, confidences
        folder.mkdir(exist_ok=True)

    def add(self, result: Result) -> None:
        """Write one file."""
        height, width = result.frame.image.shape[:2]
        lines = []
        for i, (x1, y1, x2, y2, confidence, index) in enumerate(result.rows.tolist()):
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
            values += [confidence] if self.confidences else []
            number = "" if result.ids is None else f" {result.id_of(i)}"
            lines.append(f"{int(index)} " + " ".join(f"{value:.6g}" for value in values) + number + "\n")
        (self.folder / f"{result.frame_name}.txt").write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


class CocoResults:
    """COCO's results format, written as it comes, so that memory stays flat over a long video."""

    def __init__(self, path: Path, category_ids: Sequence[int] | None = None):
        self.category_ids = category_ids
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._file.write("[")
        self._separator = "\n"

    def add(self, result: Result) -> None:
        """Append this frame's objects."""
        name = result.frame_name
        image_id = int(name) if name.isdecimal() else name
        for i, (x1, y1, x2, y2, confidence, index) in enumerate(result.rows.tolist()):
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": self.category_ids[int(index)] if self.category_ids else int(index),
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(confidence, 5),
            }
            if result.ids is not None:
                entry["track_id"] = result.id_of(i)
            self._file.write(self._separator + json.dumps(entry, ensure_ascii=False))
            self._separator = ",\n"

    def close(self) -> None:
        """Close the list."""
        self._file.write("\n]\n")
        self._file.close()


class Csv:
    """One line an object: file, frame, its number (with tracking), class, confidence, corners in pixels."""

    COLUMNS = ("file", "frame", "id", "class", "name", "confidence", "x1", "y1", "x2", "y2")

    def __init__(self, path: Path):
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)

    def add(self, result: Result) -> None:
        """Append this frame's objects."""
        for i, (*corners, confidence, index) in enumerate(result.rows.tolist()):
            number = "" if result.ids is None else result.id_of(i)
            who = [result.frame.where, result.frame.number, number, int(index), result.names[int(index)]]
            self._writer.writerow([*who, f"{confidence:.5f}", *(f"{value:.2f}" for value in corners)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Crops:
    """crops/<class>/<name>-<number>.jpg: each object with a little of what is around it."""

    BORDER = 10  # pixels on each side

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, result: Result) -> None:
        """Write one file an object."""
        image = result.frame.image
        for number, (x1, y1, x2, y2, _, index) in enumerate(result.rows.tolist(), 1):
            left, top = max(int(x1) - self.BORDER, 0), max(int(y1) - self.BORDER, 0)
            crop = image[top : int(y2) + 1 + self.BORDER, left : int(x2) + 1 + self.BORDER]
            folder = self.folder / re.sub(r'[\\/:*?"<>|]|^\.+', "_", result.names[int(index)])
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{result.frame_name}-{number}.jpg", crop)

    def close(self) -> None:
        """Nothing is open."""


class Display:
    """A window on the screen that shows each frame; a key goes on to the next image, q ends the run."""

    TITLE = "YOLOv5-SPD"

    def add(self, result: Result) -> None:
        """Show it; an image stays until a key is pressed."""
        cv2.imshow(self.TITLE, result.drawn)
        if cv2.waitKey(1 if result.frame.is_video else 0) & 0xFF in (ord("q"), 27):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()
