"""results.csv: one row per epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import write_atomically


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, with a header when the file is new; None becomes an empty cell.

    Raises:
        UserError: the file cannot be written; it is as it was.
    """
    header, rows = _read(path)
    cells = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
    _write(path, header or list(row), [*rows, cells])


def drop_rows_from(path: Path, epoch: int) -> None:
    """Drop the rows of `epoch` and later ones, which a resumed run writes again."""
    header, rows = _read(path)
    kept = [row for row in rows if (row.get("epoch") or "").isdigit() and int(row["epoch"]) < epoch]
    if len(kept) < len(rows):
        _write(path, header, kept)


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return list(reader.fieldnames or []), rows


def _write(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the file whole or not at all: a run that is killed meanwhile keeps the one it had."""
    with write_atomically(path, newline="") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
