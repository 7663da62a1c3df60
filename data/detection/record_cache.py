"""A cache of checked records: one .npz without pickles, valid while every file it came from is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data.detection.image_record import ImageRecord, Truth

_FORMAT = 2
_COLUMNS = (*Truth._fields, "ignore")


def fingerprint(about: str, files: Sequence[Path]) -> str:
    """Return a digest of `about` and of every file's path, modification time and size (or absence)."""
    groups = [files[start : start + 1000] for start in range(0, len(files), 1000)]
    digest = hashlib.sha256(f"{_FORMAT}\n{about}\n".encode())
    with ThreadPoolExecutor() as pool:
        for stamps in pool.map(lambda group: "".join(map(_stamp, group)), groups):
            digest.update(stamps.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stamp(file: Path) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return f"{file}\0absent\n"
    return f"{file}\0{status.st_mtime_ns}\0{status.st_size}\n"


def save_cache(
    file: Path, digest: str, records: list[ImageRecord], problems: list[str], files: list[Path]
) -> list[str]:
    """Write the cache so that it is there whole or not at all; return a note if it cannot be written."""
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
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(temporary, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return [f"{file} could not be written ({error.strerror}): labels are checked again next time"]
    return []


def load_cache(
    file: Path, about: str, files: list[Path] | None
) -> tuple[list[ImageRecord], list[str]] | None:
    """Return records and problems as saved, or None if there is no cache or something changed since.

    Args:
        file: the cache.
        about: what the records depend on besides files: class names, format.
        files: the files the records depend on; None takes the saved list.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            header = json.loads(content["header"].tobytes())
            known = files if files is not None else [Path(path) for path in header["files"]]
            if header["digest"] != fingerprint(about, known):
                return None
            ends, ignore_ends = (np.cumsum(content[name])[:-1] for name in ("counts", "ignore_counts"))
            columns = [np.split(content[name], ends) for name in Truth._fields]
            ignore = np.split(content["ignore"], ignore_ends)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None
    images = zip(header["paths"], header["image_ids"], header["sizes"], strict=True)
    records = [
        ImageRecord(Path(path), image_id, width, height, *Truth(*truth), ignore=regions)
        for (path, image_id, (width, height)), truth, regions in zip(
            images, zip(*columns, strict=True), ignore, strict=True
        )
    ]
    return records, header["problems"]
