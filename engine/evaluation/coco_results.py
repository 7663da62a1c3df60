"""Reading COCO's results format, [{"image_id", "category_id", "bbox", "score"}, ...], into columns.

The file is parsed in pieces, so that millions of detections never exist as dicts at the same time. If orjson
cannot parse a piece, because of a NaN or an entry that was cut in two, the standard library parses the file.
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
from utils.errors import UserError, quoted
from utils.limits import JSON_BYTES
from utils.reading import reading

PIECE = 1 << 22  # bytes parsed at once
BETWEEN_ENTRIES = re.compile(rb"\}\s*,\s*\{")
FIELDS = ("image_id", "category_id", "bbox", "score")
MARGIN = 0.05  # share of its image's side that a box may reach beyond the image
MANY = 0.2  # share of boxes reaching further from which boxes are checked for being corners


@dataclass(frozen=True)
class Known:
    """The images and categories that detections may refer to."""

    source: Path  # the annotation file, for messages
    images: Mapping[Any, int]  # image number of each image id
    categories: Mapping[Any, int]  # class of each category id
    sizes: Sequence[tuple[int, int]]  # of each image: width, height, px


def read_results(file: Path, known: Known) -> tuple[DetectionColumns, list[str]]:
    """Read the detections of a results file.

    Args:
        file: the results file.
        known: the images and categories.

    Returns:
        The detections, and a line about each thing that is odd about them.

    Raises:
        UserError: the file is missing or not in this format, an entry is unusable or of an unknown image or
            category, or boxes are not x, y, width, height in pixels; the message names the first such entry.
    """
    with reading(file, "a results file"):
        return _read(file, known)


def _read(file: Path, known: Known) -> tuple[DetectionColumns, list[str]]:
    parts: list[tuple[NDArray[Any], ...]] = []
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
    notes += _duplicates(file, image, classes, boxes_xywh, scores)
    columns = DetectionColumns(
        num_images=len(known.images), image=image, boxes_xywh=boxes_xywh, scores=scores, classes=classes
    )
    return columns, notes


def _pieces(file: Path) -> Iterator[list[Any]]:
    """Yield the entries of the file's list, about PIECE bytes at a time."""
    import orjson

    JSON_BYTES.check(file.stat().st_size, file)
    text = file.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith(b"["):
        expected = 'a list of {"image_id", "category_id", "bbox", "score"}'
        raise UserError(
            f"{file} is not in COCO's results format, {expected}; it starts with {quoted(text[:20])}"
        )
    start, last, done = 1, len(text), 0
    while start < last:
        cut = BETWEEN_ENTRIES.search(text, start + PIECE)
        end = cut.start() + 1 if cut else last
        try:
            entries = orjson.loads(b"[" + text[start:end] + (b"]" if cut else b""))
        except (
            ValueError
        ):  # the file is malformed or holds a NaN, or an entry that holds dicts was cut in two
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


def _columns(entries: Sequence[Any], known: Known) -> tuple[NDArray[Any], ...]:
    """Return image number and class, -1 where unknown, box as in the file, score."""
    get_image, get_class = known.images.get, known.categories.get
    return (
        np.array([get_image(entry["image_id"], -1) for entry in entries], np.int64),
        np.array([get_class(entry["category_id"], -1) for entry in entries], np.int64),
        np.array([entry["bbox"] for entry in entries], np.float64).reshape(len(entries), 4),
        np.array([entry["score"] for entry in entries], np.float64),
    )


def _unusable(file: Path, entries: Sequence[Any], before: int) -> str:
    """Return a line that says which entry is not a detection, and why."""
    for number, entry in enumerate(entries, before):
        where = f"{file}: entry {number}"
        if not isinstance(entry, dict):
            return f"{where} is {quoted(entry)}, not a detection with {', '.join(FIELDS)}"
        for field in FIELDS:
            if field not in entry:
                return f"{where} has no '{field}'"
        box, score = entry["bbox"], entry["score"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            return f"{where}: bbox {quoted(box)} is not x, y, width, height"
        if not _is_number(score):
            return f"{where}: score {quoted(score)} is no number"
        if not all(isinstance(entry[field], int | str) for field in ("image_id", "category_id")):
            return f"{where}: image_id and category_id must be numbers or text"
    return f"{file}: entries from {before} on cannot be read"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _unknown(
    file: Path, unknown: Mapping[str, Any], image: NDArray[Any], classes: NDArray[Any], known: Known
) -> str:
    """Return a line that says which image or category is unknown, how often, and which there are."""
    field, value = next(iter(unknown.items()))
    column, ids = (image, known.images) if field == "image_id" else (classes, known.categories)
    some = ", ".join(map(repr, list(ids)[:5])) + (", ..." if len(ids) > 5 else "")
    which = f"of a{'n' if field == 'image_id' else ''} {field} that {known.source} does not have"
    return f"{file}: {_counted(column < 0)} {which}: {quoted(value)}, not {some}"


def _check_numbers(file: Path, boxes_xywh: NDArray[Any], scores: NDArray[Any]) -> None:
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
    """Mask -> '3 of 100 entries, first entry 7,'."""
    return f"{int(wrong.sum())} of {len(wrong)} entries, first entry {int(wrong.argmax())},"


def _check_boxes(file: Path, boxes_xywh: NDArray[Any], sizes: NDArray[Any]) -> list[str]:
    """Refuse corners and fractions; return a note about boxes that reach far out of their image."""
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


def _duplicates(file: Path, *columns: NDArray[Any]) -> list[str]:
    """Return a note about detections that are there twice, as when files were joined."""
    table = np.column_stack(columns)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, table.shape[1])
    count = len(table) - len(np.unique(table @ weights))
    return [f"{file}: {count} of {len(table)} detections are there twice"] if count else []
