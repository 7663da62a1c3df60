"""The CSV of a suite: one row a finished run, from which every table and plot is made.

A row is added whole or not at all, under a lock, so several processes may work on one suite.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import write_atomically

SIDES = (0, 8, 16, 24, 32, 48, 64, 96)  # edges of the size classes of the plot, pixels of the full image
BY_SIZE = (*(f"AP_{low}-{high}" for low, high in itertools.pairwise(SIDES)), f"AP_{SIDES[-1]}+")
INPUTS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")  # as the network takes them: images, or tiles
AITOD = ("aitod_vt", "aitod_t", "aitod_s", "aitod_m")
FULL = tuple(f"full_{name}" for name in INPUTS)  # full images, with the detections of their tiles merged
ACCURACY = ("top1", "top5")
METRICS = (*INPUTS, *AITOD, *BY_SIZE, *FULL, *ACCURACY)
RESAMPLED = ("AP", "AP50", "AP_S", "top1")  # metrics whose values on resampled images are kept
KEY = ("data", "network", "budget", "seed")
COST = ("parameters", "gflops", "train_seconds", "ms_pytorch", "ms_onnx", "load", "threads")
COLUMNS = (
    "suite",
    *KEY,
    "architecture",
    "definition",
    "epochs",
    "imgsz",
    *METRICS,
    *COST,
    "images",
    "commit",
    "torch",
    "cpu",
    *(f"resampled_{name}" for name in RESAMPLED),
)
Row = dict[str, str]


class Results:
    """The rows of one CSV.

    Args:
        path: the file; need not exist yet.
        suite: name that all rows must have.
    """

    def __init__(self, path: Path, suite: str) -> None:
        self.path, self.suite = path, suite

    def read(self) -> list[Row]:
        """Return the finished rows.

        Raises:
            UserError: the file is not one of this suite, or a row is cut off; the message says what to do.
        """
        if not self.path.exists():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
            table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path} is not readable as CSV ({error}); choose another --out") from error
        if not table or tuple(table[0]) != COLUMNS:
            raise UserError(f"{self.path} is not a CSV of benchmarks.reproduce; choose another --out")
        rows = []
        for number, cells in enumerate(table[1:], 2):
            if len(cells) != len(COLUMNS) or not all(cells[1 : 1 + len(KEY)]):
                raise UserError(
                    f"{self.path}: row {number} is not complete; delete it, and --resume makes that run "
                    "again (the other rows stay)"
                )
            rows.append(dict(zip(COLUMNS, cells, strict=True)))
        for row in rows:
            if row["suite"] != self.suite:
                raise UserError(
                    f"{self.path} holds rows of the suite '{row['suite']}', not of '{self.suite}'; choose "
                    "another --out"
                )
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; one of the same run takes the place of an earlier one."""
        new = as_text({"suite": self.suite, **row})
        self.change(lambda rows: [*(old for old in rows if key_of(old) != key_of(new)), new])

    def change(self, function: Callable[[list[Row]], Iterable[Row]]) -> None:
        """Replace the rows by those that a function returns, while no other process writes."""
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        with FileLock(lock):
            rows = list(function(self.read()))
            with write_atomically(self.path, newline="", sync=True) as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def key_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """Data, network, budget and seed."""
    return tuple(row[name] for name in KEY)


def as_text(row: Mapping[str, Any]) -> Row:
    """Return a row as the CSV holds it: numbers with the digits that count, None as nothing."""
    return {name: _cell(row.get(name)) for name in COLUMNS}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(f"{item:.4f}" for item in value)  # of resampled images


def number(row: Mapping[str, str], name: str) -> float | None:
    """Return a cell as a number; None where it is empty.

    Raises:
        UserError: it holds something else.
    """
    try:
        return float(row[name]) if row[name] else None
    except ValueError as error:
        raise UserError(f"'{row[name]}' in column {name} of {' '.join(key_of(row))} is no number") from error


def resampled(row: Mapping[str, str], name: str) -> Sequence[float] | None:
    """Return a metric's values on resampled images; None where there are none."""
    text = row.get(f"resampled_{name}", "")
    return [float(part) for part in text.split()] if text else None
