"""A cache of checked records: one .npz file, valid while every file it was made from is unchanged."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data.image_record import Annotations, ImageRecord
from utils.drafts import clear_drafts
from utils.errors import UserError
from utils.files import write_atomically
from utils.limits import check_unpacked
from utils.reading import reading
from utils.stamps import stamp_of

_FORMAT = 4
LOG = logging.getLogger(__name__)
_BOXES = ("boxes_xywh", "ignore")
_TYPES = {"classes": "i", "crowd": "b"}  # kinds of numbers; the others are floating-point
_COLUMNS = (*Annotations._fields, "ignore")


def fingerprint(about: str, files: Sequence[Path]) -> str:
    """Return a digest of `about` and of the path and stamp (or absence) of every file, see `utils.stamps`."""
    groups = [files[start : start + 1000] for start in range(0, len(files), 1000)]
    digest = hashlib.sha256(f"{_FORMAT}\n{about}\n".encode())
    with ThreadPoolExecutor() as pool:
        for stamps in pool.map(lambda group: "".join(map(_stamp, group)), groups):
            digest.update(stamps.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamp(file: Path) -> str:
    try:
        return f"{file}\0{stamp_of(file)}\n"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return f"{file}\0absent\n"


def save_cache(
    file: Path, digest: str, records: list[ImageRecord], problems: list[str], files: list[Path]
) -> list[str]:
    """Write the cache, whole or not at all; return a note if it cannot be written."""
    header = {
        "digest": digest,
        "problems": problems,
        "files": [str(path) for path in files],
        "paths": [str(record.path) for record in records],
        "image_ids": [record.image_id for record in records],
        "sizes": [[record.width, record.height] for record in records],
    }
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(record, name) for record in records]) for name in _COLUMNS
    }
    arrays["counts"] = np.array([len(record.classes) for record in records], np.int64)
    arrays["ignore_counts"] = np.array([len(record.ignore) for record in records], np.int64)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    clear_drafts(file.parent, file.name)
    try:
        with write_atomically(file, "wb") as stream:
            np.savez_compressed(stream, **arrays)
    except UserError as error:
        return [f"{error}; labels are checked again next time"]
    return []


def load_cache(
    file: Path, about: str, files: list[Path] | None
) -> tuple[list[ImageRecord], list[str]] | None:
    """Return records and problems as saved, or None if there is no cache or something has changed since.

    Args:
        file: the cache.
        about: what the records depend on besides files, such as class names.
        files: those that the records depend on; None takes the saved list.
    """
    try:
        with reading(file, "a label cache"):
            return _load(file, about, files)
    except UserError as error:
        if file.exists():
            LOG.info("%s; labels are read again", error)
        return None


def _load(file: Path, about: str, files: list[Path] | None) -> tuple[list[ImageRecord], list[str]] | None:
    with np.load(file, allow_pickle=False) as content:
        check_unpacked(sum(member.file_size for member in content.zip.infolist()), file.stat().st_size, file)
        header = json.loads(content["header"].tobytes())
        known = files if files is not None else [Path(path) for path in header["files"]]
        if header["digest"] != fingerprint(about, known):
            return None
        counts, ignore_counts = content["counts"], content["ignore_counts"]
        columns = [
            np.split(_column(content, name, int(counts.sum())), np.cumsum(counts)[:-1])
            for name in Annotations._fields
        ]
        ignored = _column(content, "ignore", int(ignore_counts.sum()))
        ignore = np.split(ignored, np.cumsum(ignore_counts)[:-1])
    images = zip(header["paths"], header["image_ids"], header["sizes"], strict=True)
    records = [
        ImageRecord(Path(path), image_id, width, height, *Annotations(*arrays), ignore=regions)
        for (path, image_id, (width, height)), arrays, regions in zip(
            images, zip(*columns, strict=True), ignore, strict=True
        )
    ]
    return records, [str(problem) for problem in header["problems"]]


def _column(content: Any, name: str, rows: int) -> np.ndarray:
    """Return a column of the cache, which must be of its type and length."""
    column, sides = content[name], ((4,) if name in _BOXES else ())
    if column.dtype.kind != _TYPES.get(name, "f") or column.shape != (rows, *sides):
        raise ValueError(f"column '{name}' is {column.dtype} {column.shape}")
    return column
