"""Results in Parquet: for each work unit a file in detections/, images/ and errors/, written once.

The files are named by the unit's number in the frozen listing and take their places by a rename. The one in
detections/ comes last: where it is, the unit is done, and whoever does it again writes the same files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.detections import Detections
from utils.files import write_atomically
from utils.reading import reading

if TYPE_CHECKING:
    from engine.inference.fleet.collect import DetectedFile

KINDS = ("errors", "images", "detections")  # in the order of writing
BOX = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Origin:
    """What detections came from: two runs with equal hashes would have detected the same.

    Attributes:
        names: the classes.
        model_hash: of the weights' bytes.
        options_hash: of all options that decide what is detected.
    """

    names: Sequence[str]
    model_hash: str
    options_hash: str


@functools.cache
def schemas() -> dict[str, Any]:
    """Return the schema of each kind of file."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    about = [("index", pa.int64()), ("image", pa.string())]
    size = [("frame", pa.int32()), ("width", pa.int32()), ("height", pa.int32())]
    hashes = [("model_hash", text), ("options_hash", text)]
    boxes = [(name, pa.float32()) for name in (*BOX, "score")]
    classes = [("class_id", pa.int32()), ("class_name", text)]
    counts = [("tiles", pa.int32()), ("objects", pa.int32())]
    return {
        "detections": pa.schema([*about, *size, *boxes, *classes, *hashes]),
        "images": pa.schema([*about, *size, *counts, *hashes]),
        "errors": pa.schema([*about, ("reason", pa.string()), *hashes]),
    }


def shard(folder: Path, kind: str, unit: int) -> Path:
    """Return the file of a unit."""
    return folder / kind / f"{unit:08d}.parquet"


def done_units(folder: Path) -> set[int]:
    """Return the units whose files are all there."""
    return {
        int(path.stem) for path in (folder / "detections").glob("[0-9]*.parquet") if path.stem.isdecimal()
    }


def write_unit(
    folder: Path, unit: int, files: Sequence[DetectedFile], names: Sequence[str], origin: Origin
) -> None:
    """Write the files of a unit.

    Args:
        folder: of the run.
        unit: its number.
        files: all that belong to it, in order.
        names: path or address of each.
        origin: of the detections.

    Raises:
        UserError: they cannot be written.
    """
    import pyarrow.parquet as pq

    columns = _columns(files, names, origin)
    for kind in KINDS:
        with write_atomically(shard(folder, kind, unit), "wb", sync=True) as file:
            pq.write_table(columns[kind], file, compression="zstd")


def _columns(files: Sequence[DetectedFile], names: Sequence[str], origin: Origin) -> dict[str, Any]:
    """Return a table of each kind."""
    import pyarrow as pa

    named = list(zip(files, names, strict=True))
    frames = [(file.index, name, image) for file, name in named for image in file.images]
    counts = [len(image.detections) for *_, image in frames]
    every = Detections.concatenated([image.detections for *_, image in frames])
    about = {
        "index": np.array([index for index, *_ in frames], np.int64),
        "image": np.array([name for _, name, _ in frames], object),
        "frame": np.array([image.number for *_, image in frames], np.int32),
        "width": np.array([image.width for *_, image in frames], np.int32),
        "height": np.array([image.height for *_, image in frames], np.int32),
    }
    broken = [(file.index, name, file.error) for file, name in named if file.error]
    of_each = np.repeat(np.arange(len(frames)), counts)
    columns: dict[str, dict[str, Any]] = {
        "images": about | {"tiles": [image.tiles for *_, image in frames], "objects": counts},
        "detections": {key: column[of_each] for key, column in about.items()}
        | {name: every.xyxy[:, place] for place, name in enumerate(BOX)}
        | {"score": every.scores, "class_id": every.class_ids.astype(np.int32)},
        "errors": {
            key: [row[place] for row in broken] for place, key in enumerate(("index", "image", "reason"))
        },
    }
    ids = pa.array(columns["detections"]["class_id"], pa.int32())
    columns["detections"]["class_name"] = pa.DictionaryArray.from_arrays(ids, list(origin.names))
    tables = {}
    for kind, values in columns.items():
        rows = len(values["index"])
        for key in ("model_hash", "options_hash"):
            values[key] = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(rows, np.int32)), [getattr(origin, key)]
            )
        schema = schemas()[kind]
        arrays = [pa.array(values[field.name]).cast(field.type) for field in schema]
        tables[kind] = pa.Table.from_arrays(arrays, schema=schema)
    return tables


def read_shards(folder: Path, kind: str) -> Iterator[Any]:
    """Yield the table of every unit that is done, in the order of the listing.

    Raises:
        UserError: a file is broken.
    """
    import pyarrow.parquet as pq

    for unit in sorted(done_units(folder)):
        path = shard(folder, kind, unit)
        with reading(path, "a shard of detections"):
            yield pq.read_table(path, schema=schemas()[kind], partitioning=None)


def detections_of(table: Any) -> Detections:
    """Return the detections of a table, in its order."""
    xyxy = np.column_stack([table[name].to_numpy() for name in BOX]).astype(np.float32).reshape(-1, 4)
    scores = table["score"].to_numpy().astype(np.float32)
    return Detections(xyxy, scores, table["class_id"].to_numpy().astype(np.int64))
