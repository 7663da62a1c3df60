"""results.csv: one row an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, with a header when the file is new; None becomes an empty cell."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        cells = {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()}
        writer.writerow(cells)


def drop_rows_from(path: Path, epoch: int) -> None:
    """Drop rows of `epoch` and later, which a resumed run writes again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        rows = [row for row in reader if (row.get("epoch") or "").isdigit() and int(row["epoch"]) < epoch]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
