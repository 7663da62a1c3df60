"""results.csv: one row per epoch, its columns named and ordered as YOLOv5's where they mean the same."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files import write_atomically
from utils.reading import reading


@dataclass(frozen=True)
class Columns:
    """The columns of a task's results.csv: first those of YOLOv5, in its order, then what it does not have.

    Attributes:
        metrics: column -> metric, between the training losses and the learning rates.
        rate: name of the learning rates; {} stands for the number of the parameter group.
        groups: the parameter groups whose rates have a column.
        extra: column -> metric, at the end.
        former: column -> what it was called before the names were YOLOv5's.
    """

    metrics: Mapping[str, str]
    rate: str
    groups: Sequence[int]
    extra: Mapping[str, str]
    former: Mapping[str, str]

    def row(
        self,
        epoch: int,
        losses: Mapping[str, float],
        metrics: Mapping[str, Any],
        rates: Sequence[float],
        fitness: float | None,
    ) -> dict[str, Any]:
        """Return the row of an epoch; None where nothing was measured.

        Args:
            epoch: from 0.
            losses: the means of the loss's terms, and `images_per_s`.
            metrics: of the evaluation, with the validation losses; empty when there was none.
            rates: learning rate of each parameter group in the epoch's last step.
            fitness: see `Task.evaluate`.
        """
        speed = {"images_per_s": losses["images_per_s"]}
        terms = {f"train/{name}": value for name, value in losses.items() if name not in speed}
        own = {name: value for name, value in metrics.items() if name.startswith("val/")}
        foreign = {  # terms of the loss of another kind of head
            column for column in self.metrics if column[:4] == "val/" and column[4:] not in losses
        }
        return (
            {"epoch": epoch}
            | terms
            | {column: metrics.get(name) for column, name in self.metrics.items() if column not in foreign}
            | own
            | {self.rate.format(group): rates[group] for group in self.groups}
            | speed
            | {"fitness": fitness}
            | {column: metrics.get(name) for column, name in self.extra.items()}
        )


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, with a header when the file is new; None becomes an empty cell.

    Columns that the file does not have yet are added; others that it has are kept, after those of the row.

    Raises:
        UserError: the file cannot be written; it is as it was.
    """
    header, rows = _read(path)
    cells = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
    if not set(row) <= set(header):
        header = [*row, *(column for column in header if column not in row)]
    _write(path, header, [*rows, cells])


def drop_rows_from(path: Path, epoch: int) -> None:
    """Drop the rows of `epoch` and later ones, which a resumed run writes again."""
    header, rows = _read(path)
    numbers = [row.get("epoch") or "" for row in rows]
    kept = [  # a number of ten digits is no epoch, one of thousands is not even read
        row
        for row, number in zip(rows, numbers, strict=True)
        if number.isdecimal() and len(number) < 10 and int(number) < epoch
    ]
    if len(kept) < len(rows):
        _write(path, header, kept)


def rename_columns(path: Path, former: Mapping[str, str]) -> None:
    """Give columns that still have a former name the present one.

    Args:
        path: of the file, which need not exist.
        former: present name -> former name.
    """
    header, rows = _read(path)
    present = {old: new for new, old in former.items() if old in header and new not in header}
    if present:
        renamed = [{present.get(key, key): value for key, value in row.items()} for row in rows]
        _write(path, [present.get(column, column) for column in header], renamed)


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    if not path.exists():
        return [], []
    with reading(path, "the results of a run"), path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [{key: value for key, value in row.items() if isinstance(key, str)} for row in reader]
        return list(reader.fieldnames or []), rows


def _write(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file whole or not at all: a run that is killed meanwhile keeps the one it had."""
    with write_atomically(path, newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
