"""A run: its folder, its work units, and what is missing of them."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.inference.fleet.collect import DetectedFile
from engine.inference.fleet.listing import read_listing
from engine.inference.fleet.shards import KINDS, Origin, done_units, write_unit
from engine.inference.fleet.stream import BLOCK, Work, detected_files
from utils.errors import UserError
from utils.files import write_atomically
from utils.reading import reading

LISTING = "listing.parquet"
UNIT = 256  # files of a work unit at most: what a killed run has to do again is a few of them
UNITS = 64  # into which a small run is cut nevertheless
WAVE = 400  # units that Ray Data is given at once: the driver knows no more paths than these have
WAITING = 8  # complete units that may wait for the disk


@dataclass(frozen=True)
class RunState:
    """What does not change in a run; run.json.

    Attributes:
        files: in the listing.
        unit: files of a work unit.
        names: the classes.
        model_hash: see `Origin`.
        options_hash: see `Origin`.
    """

    files: int
    unit: int
    names: tuple[str, ...]
    model_hash: str
    options_hash: str

    @classmethod
    def of(cls, files: int, origin: Origin) -> RunState:
        """Return the state of a new run over so many files."""
        unit = min(max(-(-files // UNITS), 1), UNIT)
        return cls(files, unit, tuple(origin.names), origin.model_hash, origin.options_hash)

    @property
    def origin(self) -> Origin:
        """Of the detections."""
        return Origin(self.names, self.model_hash, self.options_hash)

    @property
    def units(self) -> int:
        """How many work units there are."""
        return -(-self.files // self.unit)

    def save(self, folder: Path) -> None:
        """Write run.json, and the folders of the results."""
        for kind in KINDS:
            (folder / kind).mkdir(exist_ok=True)
        with write_atomically(folder / "run.json", sync=True) as file:
            json.dump(asdict(self), file, indent=2)

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Read run.json.

        Raises:
            UserError: it is not there or broken.
        """
        path = folder / "run.json"
        if not path.exists():
            raise UserError(f"{folder} is no run of --ray that can be resumed: it has no run.json")
        with reading(path, "the state of a run"):
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "names": tuple(values["names"])})


def hash_of_files(paths: Sequence[Path]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of files, in this order; of folders all that is in them."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as opened:
                    while piece := opened.read(1 << 20):
                        digest.update(piece)
    return digest.hexdigest()[:16]


def hash_of(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of plain data."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Counts:
    """How many of each, for the summary."""

    files: int = 0
    images: int = 0
    objects: int = 0
    broken: int = 0
    earlier: int = 0  # files that were done before this process began

    def add(self, file: DetectedFile) -> None:
        """Count a file that is written."""
        self.files += 1
        self.images += len(file.images)
        self.objects += sum(len(image.detections) for image in file.images)
        self.broken += file.error is not None


class _Units:
    """Work units at work.

    Args:
        files: `index` and `image` of whole units, in order.
        size: files of a unit.
    """

    def __init__(self, files: Any, size: int):
        self._files, self._size = files, size
        units = files["index"].to_numpy() // size
        numbers, starts, counts = np.unique(units, return_index=True, return_counts=True)
        places = zip(starts.tolist(), counts.tolist(), strict=True)
        self._places = dict(zip(numbers.tolist(), places, strict=True))
        self._done: dict[int, list[DetectedFile]] = {}

    def add(self, file: DetectedFile) -> int | None:
        """Note a file; return its unit where that is complete now."""
        unit = file.index // self._size
        files = self._done.setdefault(unit, [])
        files.append(file)
        return unit if len(files) == self._places[unit][1] else None

    def take(self, unit: int) -> tuple[list[DetectedFile], list[str]]:
        """Remove a complete unit; return its files, in order, and their names."""
        start, count = self._places[unit]
        names = self._files["image"].slice(start, count).to_pylist()
        return sorted(self._done.pop(unit), key=lambda file: file.index), names


def finish(
    folder: Path, state: RunState, work: Work, block: int = BLOCK
) -> Generator[list[DetectedFile], None, None]:
    """Do the units that are missing; yield the files of each once they are written.

    Args:
        folder: of the run, with its listing.
        state: of the run.
        work: what is done.
        block: files that a reader takes at a time.

    Raises:
        UserError: a file cannot be written.
        ray.exceptions.RayError: an actor fails for another reason than being killed.
    """
    import pyarrow as pa

    done = done_units(folder)
    for number, files in enumerate(read_listing(folder / LISTING, state.unit * WAVE)):
        starts = range(0, len(files), state.unit)
        missing = [
            files.slice(start, state.unit)
            for unit, start in enumerate(starts, number * WAVE)
            if unit not in done
        ]
        if missing:
            yield from _finish_wave(folder, state, work, pa.concat_tables(missing), block)


def _finish_wave(
    folder: Path, state: RunState, work: Work, files: Any, block: int
) -> Iterator[list[DetectedFile]]:
    """Do the units of a wave; a thread writes them, most of which is waiting for the disk."""
    units = _Units(files, state.unit)
    waiting: deque[tuple[list[DetectedFile], Future[None]]] = deque()
    with ThreadPoolExecutor(1, "shards") as writer:
        for file in detected_files(files, work, block):
            unit = units.add(file)
            if unit is None:
                continue
            members, of = units.take(unit)
            waiting.append((members, writer.submit(write_unit, folder, unit, members, of, state.origin)))
            while waiting and (waiting[0][1].done() or len(waiting) > WAITING):
                yield _written(*waiting.popleft())
        while waiting:
            yield _written(*waiting.popleft())


def _written(members: list[DetectedFile], writing: Future[None]) -> list[DetectedFile]:
    """Return the files of a unit once they are written, or raise what went wrong."""
    writing.result()
    return members
