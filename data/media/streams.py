"""Cameras and network streams, several at once, each read by a thread of its own.

A live stream yields its newest frame; frames that a slow detector cannot keep up with are skipped. A video
behind a URL, whose length is known, yields every frame once. A stream that drops is reopened, at most five
times.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from data.media.frame import BrokenVideo, Frame
from utils.errors import UserError
from utils.reading import reason

LOG = logging.getLogger(__name__)
RETRIES = 5  # then a stream is given up
STALLED = 10.0  # seconds without a frame
_DEFAULT_FPS = 30.0  # of the many cameras that do not say


def is_stream(source: str) -> bool:
    """Whether it is a camera's number or a URL."""
    return source.isdigit() or re.match(r"[a-z][a-z0-9+.-]+://", source, re.IGNORECASE) is not None


def without_password(address: str) -> str:
    """Return an address with its password hidden, fit to be shown."""
    return re.sub(r"://[^/@\s]*@", "://***@", address)


def open_capture(address: str) -> cv2.VideoCapture:
    """Open a camera or URL; for a URL, opening and reading give up after 10 seconds without a frame."""
    if address.isdigit():
        return cv2.VideoCapture(int(address))
    limit = int(STALLED * 1000)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, options)


@dataclass
class Streams:
    """Frames of several streams, in turn, until all have ended.

    A stream that is lost for good is reported and noted in `problems`; if it is the only one and has not
    yielded a frame, iterating raises a UserError instead.

    Attributes:
        addresses: camera numbers and URLs.
        vid_stride: yield every n-th frame.
        report: called with one line for each interruption; logs it by default.
        problems: one line for each stream that was lost.
        open_capture: opens an address.
        wait: seconds before a stream is reopened for the first time; doubled each further time.
        files: none; a stream is no file.
    """

    addresses: Sequence[str]
    vid_stride: int = 1
    report: Callable[[str], None] = LOG.warning
    problems: list[str] = field(default_factory=list)
    open_capture: Callable[[str], cv2.VideoCapture] = open_capture
    wait: float = 1.0
    files: Sequence[Path] = ()

    @property
    def live(self) -> bool:
        """Whether frames are skipped that are not taken in time: they may be."""
        return True

    @property
    def count(self) -> int | None:
        """How many frames will come: not known."""
        return None

    def __iter__(self) -> Iterator[Frame]:
        changed, stop = threading.Condition(), threading.Event()
        readers = [_Reader(self, number, changed, stop) for number in range(1, len(self.addresses) + 1)]
        for reader in readers:
            reader.thread.start()
        yielded = 0
        try:
            while True:
                with changed:
                    changed.wait_for(
                        lambda: any(r.frame for r in readers) or all(r.done for r in readers), 0.5
                    )
                    ready = [reader.take() for reader in readers if reader.frame is not None]
                    done = all(reader.done for reader in readers)
                yielded += len(ready)
                yield from ready
                if done and not ready:
                    break
        finally:
            stop.set()
            with changed:
                changed.notify_all()
        if len(self.addresses) == 1 and not yielded and self.problems:
            raise UserError(self.problems.pop())

    def __str__(self) -> str:
        return ", ".join(map(without_password, self.addresses))

    def leave_out(self, problem: str) -> None:
        """Note that a stream is lost for good."""
        self.problems.append(problem)
        if len(self.addresses) > 1:
            self.report(f"left out: {problem}")


class _Reader:
    """One stream, whose thread keeps the newest frame ready."""

    def __init__(self, streams: Streams, number: int, changed: threading.Condition, stop: threading.Event):
        self.streams, self.number, self.changed, self.stop = streams, number, changed, stop
        self.address = streams.addresses[number - 1]
        self.shown = without_password(self.address)
        prefix = f"{number}_" if len(streams.addresses) > 1 else ""
        self.path = Path(prefix + _file_name(self.address))
        self.frame: Frame | None = None
        self.done = False
        self.read = 0  # frames so far; of a video of known length, where it has come to
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def take(self) -> Frame:
        """Hand over the frame; to be called with the lock held."""
        frame, self.frame = self.frame, None
        assert frame is not None
        self.changed.notify_all()
        return frame

    def _run(self) -> None:
        try:
            self._read_until_lost()
        except BrokenVideo as error:
            self.streams.leave_out(str(error))
        except Exception as error:  # OpenCV and its backends raise what they like; a thread would lose it
            self.streams.leave_out(f"{self.shown}: {without_password(reason(error))}")
        finally:
            with self.changed:
                self.done = True
                self.changed.notify_all()

    def _read_until_lost(self) -> None:
        tries = 0
        while not self.stop.is_set():
            before = self.read
            ended = self._read_once()
            if ended or self.stop.is_set():
                return
            if not self.read:
                raise BrokenVideo(f"{self.shown}: the stream cannot be opened")
            tries = 0 if self.read > before else tries
            if tries == RETRIES:
                raise BrokenVideo(
                    f"{self.shown}: lost after frame {self.read}, and {RETRIES} tries to reach it"
                )
            delay = self.streams.wait * 2**tries
            tries += 1
            self.streams.report(
                f"{self.shown}: no frame after {self.read}; try {tries} of {RETRIES} in {delay:g} s"
            )
            self.stop.wait(delay)

    def _read_once(self) -> bool:
        """Read until the stream drops; return whether that is the end of a video of known length.

        Such a video begins anew when it is reopened; frames that were read before are passed over.

        Raises:
            BrokenVideo: it ends early, and where it ended before.
        """
        capture = self.streams.open_capture(self.address)
        try:
            fps, total = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _DEFAULT_FPS
            known = (
                int(total)
                if math.isfinite(total) and 0 < total < 1e9 and not self.address.isdigit()
                else None
            )
            count, before = 0, self.read
            while not self.stop.is_set() and capture.grab():
                count += 1
                if known and count <= before:
                    continue
                self.read += 1
                if (count - 1) % self.streams.vid_stride:
                    continue
                decoded, image = capture.retrieve()
                if decoded:
                    self._offer(image, known, fps / self.streams.vid_stride)
            if known is None or self.stop.is_set():
                return False
            if count >= known - max(2, known // 100):  # headers are often off by one or two
                return True
            if 0 < count == before:
                raise BrokenVideo(f"{self.shown}: the video ends after frame {count} of {known}")
            return False
        finally:
            capture.release()

    def _offer(self, image: np.ndarray, known: int | None, fps: float) -> None:
        seconds = None if known else time.monotonic() - self.began
        frame = Frame(
            image,
            self.path,
            self.number,
            len(self.streams.addresses),
            self.read,
            known,
            fps,
            seconds,
            self.shown,
        )
        with self.changed:
            while known and self.frame is not None and not self.stop.is_set():
                self.changed.wait(0.5)
            self.frame = frame
            self.changed.notify_all()


def _file_name(address: str) -> str:
    """'rtsp://user:secret@cam/live?x=1' -> 'cam_live', 0 -> 'camera0'."""
    if address.isdigit():
        return f"camera{address}"
    parts = urlsplit(address)
    return re.sub(r"[^\w-]+", "_", f"{parts.hostname or ''}{parts.path}").strip("_") or "stream"
