"""What is plausibly wrong in a COCO file, and what is unusual in it but can be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.detection.plausibility import ALL, EXAMPLES, check_form, such_as

_IDS = {"images": ("id",), "categories": ("id",), "annotations": ("image_id", "category_id")}
_NO_GROUP = {"none", "", None}  # how no supercategory is written
_LEAST = 3  # boxes that can tell that all are fractions
_SIDE = 8  # pixels; in smaller images a box may well be within one pixel
_NO_AREA = 0.01  # share of the boxes with an area of 0 from which something is wrong


def read_whole_ids(content: dict[str, Any]) -> None:
    """Turn ids that are written 1.0 into whole numbers, in place."""
    for key, names in _IDS.items():
        entries = content.get(key)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                for name in names:
                    value = entry.get(name)
                    if isinstance(value, float) and value.is_integer():
                        entry[name] = int(value)


def unused_categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the categories without an annotation."""
    used = used_ids(content)
    return [entry for entry in content["categories"] if entry["id"] not in used]


def group_categories(categories: Sequence[dict[str, Any]], used: Collection[int]) -> set[int]:
    """Return the ids of categories that only name a group of others, as Roboflow writes one with the id 0.

    They have no annotation and no supercategory, and are the supercategory of another.

    Args:
        categories: of all files of a data set.
        used: the categories of all annotations.
    """
    groups = {entry.get("supercategory") for entry in categories} - _NO_GROUP
    return {
        entry["id"]
        for entry in categories
        if entry["name"] in groups and entry.get("supercategory") in _NO_GROUP and entry["id"] not in used
    }


def used_ids(content: dict[str, Any]) -> set[int]:
    """Return the categories of the annotations."""
    ids = [entry.get("category_id") for entry in content.get("annotations", []) if isinstance(entry, dict)]
    return {number for number in ids if isinstance(number, int)}


class _Boxes(NamedTuple):
    """The boxes of a COCO file that are four numbers with a size, of images with a size."""

    ids: list[Any]  # of their annotations
    xywh: np.ndarray  # (n, 4), pixels, as written
    sizes: np.ndarray  # (n, 2), of their images, pixels
    areas: np.ndarray  # (n,), nan where none is written

    def place(self, index: int) -> str:
        return f"annotation {self.ids[index]}"

    def such_as(self, indices: np.ndarray) -> str:
        return such_as([self.place(int(index)) for index in indices[:EXAMPLES]])


def check_coco(file: Path, content: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what is plausibly wrong with a COCO file, and what is worth a note.

    Args:
        file: for messages.
        content: from `data.detection.coco_json.load_coco`.
    """
    boxes = _boxes(content)
    wrong, notes = _check_boxes(boxes)
    zero = np.flatnonzero(boxes.areas <= 0)
    if len(zero):
        line = (
            f"{len(zero)} of {len(boxes.ids)} annotations have an area of 0, but a box with a size; "
            f"areas decide what AP_S, AP_M and AP_L count, and are taken as written; {boxes.such_as(zero)}"
        )
        (wrong if len(zero) >= _NO_AREA * len(boxes.ids) else notes).append(line)
    names = Counter(entry["file_name"] for entry in content["images"])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        wrong.append(f"{len(twice)} image(s) are listed several times with different ids, {such_as(twice)}")
    return [f"{file}: {line}" for line in wrong], [f"{file}: {line}" for line in notes]


def _boxes(content: dict[str, Any]) -> _Boxes:
    sizes = {entry["id"]: (entry["width"], entry["height"]) for entry in content["images"]}
    ids, rows = [], []
    for entry in content.get("annotations", []):
        try:
            (x, y, width, height), size = map(float, entry["bbox"]), sizes[entry["image_id"]]
            area = math.nan if entry.get("area") is None else float(entry["area"])
        except (
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            OverflowError,
        ):  # told as a fault where it is read
            continue
        if width > 0 and height > 0 and min(size) > 0:
            ids.append(entry.get("id"))
            rows.append((x, y, width, height, *size, area))
    table = np.array(rows, float).reshape(-1, 7)
    usable = np.isfinite(table[:, :6]).all(axis=1)
    ids = [number for number, is_usable in zip(ids, usable, strict=True) if is_usable]
    table = table[usable]
    return _Boxes(ids, table[:, :4], table[:, 4:6], table[:, 6])


def _check_boxes(boxes: _Boxes) -> tuple[list[str], list[str]]:
    """What the numbers of all boxes tell about how they are written."""
    large = (boxes.sizes >= _SIDE).all(axis=1)
    inside = (boxes.xywh[:, :2] >= 0).all(axis=1) & (boxes.xywh <= 1).all(axis=1)
    tiny = np.flatnonzero(large & inside)
    if len(tiny) >= _LEAST and len(tiny) >= ALL * len(boxes.ids):
        return [
            f"boxes are probably written as fractions, but are read as pixels: {len(tiny)} of "
            f"{len(boxes.ids)} hold no number over 1; {boxes.such_as(tiny)}"
        ], []
    return check_form(boxes.xywh / np.tile(boxes.sizes, 2), "corner", boxes.place)
