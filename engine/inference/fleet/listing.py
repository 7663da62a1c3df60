"""What a run reads, listed once and kept in its folder, so that a resumed run means the same files."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.media.sources import MediaFiles, open_source
from engine.inference.fleet.stores import is_stored, list_store
from utils.errors import UserError
from utils.files import write_atomically
from utils.reading import reading

COLUMNS = ("image", "path", "file", "file_name")  # of a table of paths, the first that is there counts
TABLES = (".csv", ".parquet")
ROWS = 65_536  # paths in memory at once


def paths_of(sources: Sequence[str]) -> Iterator[str]:
    """Return the files of sources, in order; the first is looked up at once.

    Args:
        sources: those of detect.py, addresses in object stores, and tables of paths (.csv, .parquet), which
            are read piece by piece.

    Raises:
        UserError: one of them holds no image or video, cannot be read, or is a stream.
    """
    paths = itertools.chain.from_iterable(map(_paths_of, sources))
    first = next(paths, None)
    if first is None:
        raise UserError("no source given; give images, folders, globs, lists, tables or object stores")
    return itertools.chain([first], paths)


def _paths_of(source: str) -> Iterator[str]:
    path = Path(source)
    if is_stored(source):
        yield from list_store(source)
    elif path.suffix.lower() in TABLES and path.is_file():
        rows = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
        first = next(rows, None)
        if first is None:
            raise UserError(f"{path}: the table of paths is empty")
        yield from itertools.chain([first], rows)
    else:
        opened = open_source(source)
        if not isinstance(opened, MediaFiles):
            raise UserError(f"--ray reads files, and {source} is a stream or camera; leave out --ray")
        yield from map(str, opened.files)


def _column(path: Path, names: Sequence[str]) -> str:
    for name in COLUMNS:
        if name in names:
            return name
    raise UserError(f"{path}: no column of paths, named {' or '.join(COLUMNS)}; it has {', '.join(names)}")


def _csv(path: Path) -> Iterator[str]:
    with reading(path, "a table of paths"), path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        column = _column(path, list(rows.fieldnames or []))
        yield from (row[column] for row in rows if row[column])


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    with reading(path, "a table of paths"), pq.ParquetFile(path) as file:
        column = _column(path, file.schema_arrow.names)
        for batch in file.iter_batches(ROWS, columns=[column]):
            yield from (name for name in batch.column(0).to_pylist() if name)


def write_listing(paths: Iterator[str], file: Path) -> int:
    """Write listing.parquet, a column `image`; return how many there are.

    Raises:
        UserError: it cannot be written, or a source cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.string())])
    count = 0
    with write_atomically(file, "wb", sync=True) as raw, pq.ParquetWriter(raw, schema) as writer:
        while names := list(itertools.islice(paths, ROWS)):
            writer.write_table(pa.table({"image": names}, schema))
            count += len(names)
    return count


def read_listing(file: Path, size: int) -> Iterator[Any]:
    """Yield tables with `index`, the number in the listing, and `image`, of `size` rows but the last.

    Raises:
        UserError: the file is missing or broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    start, waiting = 0, []
    with reading(file, "the listing of a run"), pq.ParquetFile(file) as listing:
        for batch in listing.iter_batches(min(size, ROWS)):
            waiting.append(batch)
            if sum(map(len, waiting)) >= size:
                table = pa.Table.from_batches(waiting)
                yield _numbered(table[:size], start)
                start += size
                waiting = table[size:].to_batches()
        if sum(map(len, waiting)):
            yield _numbered(pa.Table.from_batches(waiting), start)


def _numbered(table: Any, start: int) -> Any:
    import pyarrow as pa

    return table.add_column(0, "index", pa.array(range(start, start + len(table)), pa.int64()))
