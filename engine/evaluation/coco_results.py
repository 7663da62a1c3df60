"""Reading COCO's results format, [{"image_id", "category_id", "bbox", "score"}, ...], into columns.

The file is parsed in pieces, so that millions of detections never exist as dicts at the same time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics import DetectionColumns
from utils.errors import UserError

PIECE = 1 << 22  # bytes parsed at once
BETWEEN_ENTRIES = re.compile(rb"\}\s*,\s*\{")
FIELDS = ("image_id", "category_id", "bbox", "score")
MARGIN = 0.05  # a box reaching this share of a side out of its image is not where it should be
MANY = 0.2  # share of such boxes from which they are taken for corners


@dataclass(frozen=True)
class Known:
    """What detections may refer to."""

    source: Path  # the annotation file, for messages
    images: Mapping[Any, int]  # number of each image id
    categories: Mapping[Any, int]  # class of each category id
    sizes: Sequence[tuple[int, int]]  # of each image: width, height, px


def read_results(file: Path, known: Known) -> tuple[DetectionColumns, list[str]]:
    """Return the detections of a results file and what is odd about them, one line each.

    Raises:
        UserError: the file is missing or not in this format, an entry is unusable, of an unknown image or
            category, or the boxes are not x, y, width, height in pixels; it names the first such entry.
    """
    parts: list[tuple[NDArray, ...]] = []
    unknown: dict[str, Any] = {}  # the first unknown image id and category id
    count = 0
    for entries in _pieces(file):
        try:
            part = _columns(entries, known)
        except (TypeError, KeyError, ValueError, OverflowError):
            raise UserError(_unusable(file, entries, count)) from None
        for field, column in zip(FIELDS[:2], part, strict=False):
            if len(column) and column.min() < 0:
                unknown.setdefault(field, entries[int(column.argmin())][field])
        parts.append(part)
        count += len(entries)
    image, classes, boxes_xywh, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    if unknown:
        raise UserError(_unknown(file, unknown, image, classes, known))
    _check_numbers(file, boxes_xywh, scores)
    notes = _check_boxes(file, boxes_xywh, np.array(known.sizes)[image])
    notes += _doubles(file, image, classes, boxes_xywh, scores)
    boxes_xywh[:, 2:] += boxes_xywh[:, :2]
    return DetectionColumns(len(known.images), image, boxes_xywh, scores, classes), notes


def _pieces(file: Path) -> Iterator[list[Any]]:
    """Yield the entries of the file's list, some at a time."""
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"no results file {file}") from error
    text = text.removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith(b"["):
        wanted = 'a list of {"image_id", "category_id", "bbox", "score"}'
        raise UserError(f"{file} is not in COCO's results format, {wanted}; it starts with {text[:20]!r}")
    start, last, done = 1, len(text), 0
    while start < last:
        cut = BETWEEN_ENTRIES.search(text, start + PIECE)
        end = cut.start() + 1 if cut else last
        try:
            entries = json.loads(b"[" + text[start:end] + (b"]" if cut else b""))
        except ValueError:  # the file is malformed, or an entry that holds dicts was cut apart
            yield _whole(file, text)[done:]
            return
        yield entries
        done += len(entries)
        start = text.index(b"{", end) if cut else last


def _whole(file: Path, text: bytes) -> list[Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{file} is not readable as JSON: {error}") from error


def _columns(entries: Sequence[Any], known: Known) -> tuple[NDArray, ...]:
    """Image number and class, -1 where unknown, box as in the file, score."""
    get_image, get_class = known.images.get, known.categories.get
    return (
        np.array([get_image(entry["image_id"], -1) for entry in entries], np.int64),
        np.array([get_class(entry["category_id"], -1) for entry in entries], np.int64),
        np.array([entry["bbox"] for entry in entries], np.float64).reshape(len(entries), 4),
        np.array([entry["score"] for entry in entries], np.float64),
    )


def _unusable(file: Path, entries: Sequence[Any], before: int) -> str:
    """Say which entry is not a detection, and why."""
    for number, entry in enumerate(entries, before):
        where = f"{file}: entry {number}"
        if not isinstance(entry, dict):
            return f"{where} is {entry!r}, not a detection with {', '.join(FIELDS)}"
        for field in FIELDS:
            if field not in entry:
                return f"{where} has no '{field}'"
        box, score = entry["bbox"], entry["score"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            return f"{where}: bbox {box!r} is not x, y, width, height"
        if not _is_number(score):
            return f"{where}: score {score!r} is no number"
        if not all(isinstance(entry[field], int | str) for field in ("image_id", "category_id")):
            return f"{where}: image_id and category_id must be numbers or text"
    return f"{file}: entries from {before} on cannot be read"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _unknown(file: Path, unknown: Mapping[str, Any], image: NDArray, classes: NDArray, known: Known) -> str:
    """Say which image or category the annotations do not have, how often, and what they have."""
    field, value = next(iter(unknown.items()))
    column, ids = (image, known.images) if field == "image_id" else (classes, known.categories)
    some = ", ".join(map(repr, list(ids)[:5])) + (", ..." if len(ids) > 5 else "")
    which = f"of a{'n' if field == 'image_id' else ''} {field} that {known.source} does not have"
    return f"{file}: {_counted(column < 0)} {which}: {value!r}, not {some}"


def _check_numbers(file: Path, boxes_xywh: NDArray, scores: NDArray) -> None:
    faults = (
        (~(np.isfinite(boxes_xywh).all(1) & np.isfinite(scores)), "a NaN or an infinity"),
        (
            (boxes_xywh[:, 2:] < 0).any(axis=1),
            "a negative width or height: boxes must be x, y, width, height",
        ),
        ((scores < 0) | (scores > 1), "a score outside 0..1"),
    )
    for wrong, what in faults:
        if wrong.any():
            raise UserError(f"{file}: {_counted(wrong)} with {what}")


def _counted(wrong: Any) -> str:
    """'3 of 100 entries, first entry 7,' of a mask."""
    return f"{int(wrong.sum())} of {len(wrong)} entries, first entry {int(wrong.argmax())},"


def _check_boxes(file: Path, boxes_xywh: NDArray, sizes: NDArray) -> list[str]:
    """Tell corners and fractions from x, y, width, height in pixels; note boxes far out of their image."""
    if not len(boxes_xywh):
        return [f"{file} holds no detections"]
    high = boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    outside: Any = ((high > (1 + MARGIN) * sizes) | (boxes_xywh[:, :2] < -MARGIN * sizes)).any(1)
    if boxes_xywh.max() <= 1.0 and sizes.min() > 4:
        raise UserError(f"{file}: every bbox lies within 0..1: boxes must be in pixels, not fractions")
    corners: Any = (boxes_xywh[:, 2:] >= boxes_xywh[:, :2]).all(1) & (boxes_xywh[:, 2:] <= sizes * 1.001).all(
        1
    )
    if outside.mean() >= MANY and corners[outside].mean() > 0.99:
        first = int(outside.argmax())
        raise UserError(
            f"{file}: {_counted(outside)} reach out of their image, but would fit as corners x1, y1, x2, y2 "
            f"(such as {boxes_xywh[first].tolist()}); boxes must be x, y, width, height"
        )
    if outside.any():
        return [f"{file}: {_counted(outside)} reach more than {MARGIN:.0%} out of their image"]
    return []


def _doubles(file: Path, *columns: NDArray) -> list[str]:
    """Note detections that are there twice, as when files were joined."""
    table = np.column_stack(columns)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, table.shape[1])
    count = len(table) - len(np.unique(table @ weights))
    return [f"{file}: {count} of {len(table)} detections are there twice"] if count else []
