"""COCO annotation files (instances_*.json): images, boxes, areas, crowds, and the original ids.

Format: cocodataset.org/#format-data. A box is x, y, width, height in pixels; category ids need not be
consecutive (COCO's 80 classes are numbered up to 90). Beyond COCO's format, an entry of `images` may have
`"ignore_regions": [[x, y, width, height], ...]`, where nothing is labeled and no detection counts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.detection.coco_checks import check_coco, read_whole_ids, unused_categories
from data.image_record import Annotations, annotation_arrays
from utils.errors import UserError, quoted, suggest
from utils.limits import CLASSES, JSON_BYTES
from utils.overlap import xyxy_of
from utils.reading import reading

_ROW = np.dtype([("box", float, 4), ("class", int), ("area", float), ("crowd", bool)])
LARGEST_ID = 2**63  # whole numbers beyond it fit no array
FARTHEST = 1e9  # pixels; no image is that large, and float32 ends soon after
REGION = -1  # the "class" of a category whose boxes are regions to ignore

_ID, _NUMBER = int | str, int | float
_ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"id": _ID, "file_name": str, "width": _NUMBER, "height": _NUMBER},
    "categories": {"id": int, "name": str},
}


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images` with its annotations."""

    image_id: int | str
    file_name: str
    width: int
    height: int
    annotations: Annotations
    ignore: np.ndarray  # (m, 4) float32 x1, y1, x2, y2 of regions in which no detection counts


def read_coco(
    file: Path, names: Sequence[str], category_ids: Sequence[int] | None = None
) -> tuple[list[CocoImage], list[str], list[str], list[str]]:
    """Return the images of a COCO file, notes, what is wrong with annotations, and what is plausibly wrong.

    Images without annotations are included, annotations that cannot be used are not.

    Args:
        file: such as instances_val2017.json; without annotations (image_info_*.json) every image is empty.
        names: the class names; a category belongs to the class of its name.
        category_ids: the category id of each class; None matches categories and classes by name.

    Raises:
        UserError: the file is no COCO file, or uses a category that is not among `names`.
    """
    with reading(file, "a COCO file"):
        content = load_coco(file)
        of_category = _class_of_category(file, content, names, category_ids)
        images, notes, faults = read_images(file, content, of_category)
        suspects, remarks = check_coco(file, content)
    if category_ids is None:
        remarks += [
            f"{file}: category {quoted(entry['name'])} left out: no annotation has it, and no class its name"
            for entry in unused_categories(content)
            if entry["name"] not in names
        ]
    return images, notes + remarks, faults, suspects


def read_images(
    file: Path,
    content: dict[str, Any],
    classes: Mapping[int, int],
    is_ignored: Callable[[dict[str, Any]], bool] = lambda annotation: False,
    keep_odd: bool = False,
) -> tuple[list[CocoImage], list[str], list[str]]:
    """Return images, notes and faults of a loaded COCO file, as `read_coco` does.

    Args:
        file: for messages.
        content: from `load_coco`.
        classes: the class of each category id; REGION: its boxes are regions to ignore.
        is_ignored: whether an annotation is treated as a crowd although it is none.
        keep_odd: keep boxes of no size and outside their image, as COCO's evaluation does.

    Raises:
        UserError: two images have the same id, or regions to ignore are not boxes.
    """
    images = {entry["id"]: entry for entry in content["images"]}
    if len(images) < len(content["images"]):
        raise UserError(f"{file}: two entries of 'images' have the same id")
    rows: dict[Any, list[tuple[Any, ...]]] = {image_id: [] for image_id in images}
    odd: Counter[str] = Counter()
    faults: list[str] = []
    for entry in _list_of(file, content, "annotations"):
        try:
            image_id, category, box, area, crowd = check_annotation(file, entry, classes)
        except UserError as error:
            faults.append(str(error))
            continue
        if image_id not in rows:
            faults.append(f"{file}: annotation {entry.get('id')} is of image {image_id}, not in 'images'")
            continue
        fault = _fault(box, images[image_id])
        if fault:
            odd[fault] += 1
            if not keep_odd:
                continue
        rows[image_id].append((box, classes[category], area, crowd or is_ignored(entry)))
    done = "that count as objects all the same, as in COCO's evaluation" if keep_odd else "dropped"
    notes = [f"{file}: {count} box(es) {done}: {fault}" for fault, count in odd.items()]
    return [_image(file, entry, rows[image_id]) for image_id, entry in images.items()], notes, faults


def read_category_ids(file: Path, names: Sequence[str]) -> tuple[int, ...]:
    """Return the category id of each class name of a COCO file.

    Raises:
        UserError: the file is no COCO file, or lacks a category.
    """
    content = load_coco(file)
    by_class = {
        number: category for category, number in _class_of_category(file, content, names, None).items()
    }
    missing = [name for number, name in enumerate(names) if number not in by_class]
    if missing:
        raise UserError(f"{file}: no category '{missing[0]}', which is a class of the data set")
    return tuple(by_class[number] for number in range(len(names)))


def load_coco(file: Path) -> dict[str, Any]:
    """Return a COCO file's content, its `images` and `categories` checked.

    Raises:
        UserError: it is missing or no COCO file; the message names the entry.
    """
    with reading(file, "a COCO file") as size:
        JSON_BYTES.check(size, file)
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise UserError(f"{file} is not readable as JSON: {error}") from error
        if isinstance(content, dict):
            read_whole_ids(content)
    for key, types in _ENTRIES.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{file}: no list '{key}'; a COCO file has images, annotations and categories")
        if key == "categories":
            CLASSES.check(len(entries), f"{file}: 'categories'")
        for number, entry in enumerate(entries):
            for name, kind in types.items():
                if not isinstance(entry, dict) or not _usable(entry.get(name), kind):
                    raise UserError(f"{file}: entry {number} of '{key}' has no usable '{name}'")
    return content


def _usable(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind, and a number within what an array of numbers or an image can hold."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    if kind is _NUMBER:
        return 1 <= value <= FARTHEST  # false for NaN
    return not isinstance(value, int) or abs(value) < LARGEST_ID


def _list_of(file: Path, content: dict[str, Any], key: str) -> list[Any]:
    """Return a list that may be missing."""
    entries = content.get(key, [])
    if not isinstance(entries, list):
        raise UserError(f"{file}: '{key}' is no list but {quoted(entries)}")
    return entries


def _class_of_category(
    file: Path, content: dict[str, Any], names: Sequence[str], category_ids: Sequence[int] | None
) -> dict[int, int]:
    if category_ids is not None:
        return {category: number for number, category in enumerate(category_ids)}
    numbers = {name: number for number, name in enumerate(names)}
    unused = {entry["id"] for entry in unused_categories(content)}
    classes: dict[int, int] = {}
    for entry in sorted(content["categories"], key=lambda entry: entry["id"] not in unused):  # used ones win
        if entry["name"] in numbers:
            classes[entry["id"]] = numbers[entry["name"]]
        elif entry["id"] not in unused:
            raise UserError(
                f"{file}: category '{entry['name']}' is not in the data set's names. "
                f"{suggest(str(entry['name']), names)}"
            )
    return classes


def check_annotation(
    file: Path, entry: Any, categories: Collection[int]
) -> tuple[int | str, int, tuple[float, float, float, float], float, bool]:
    """Return image id, category id, box x y width height, area and crowd of one annotation.

    Raises:
        UserError: a field is missing or cannot be used, or the category is not one of `categories`.
    """
    where = f"{file}: annotation {quoted(entry.get('id') if isinstance(entry, dict) else entry)}"
    for key, kind in (("image_id", _ID), ("category_id", int), ("bbox", list)):
        if not isinstance(entry, dict) or not _usable(entry.get(key), kind):
            raise UserError(f"{where} has no usable '{key}'")
    try:
        x, y, width, height = map(float, entry["bbox"])
        area = float(width * height if entry.get("area") is None else entry["area"])
        if not all(abs(value) <= FARTHEST for value in (x, y, width, height)) or not math.isfinite(area):
            raise ValueError("not finite")
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: bbox {quoted(entry['bbox'])} is not x, y, width, height, or area is not a number"
        ) from error
    if entry["category_id"] not in categories:
        known = ", ".join(map(str, sorted(categories)))
        raise UserError(f"{where}: category {entry['category_id']} is not one of the data set's: {known}")
    box = (x, y, width, height)
    return entry["image_id"], entry["category_id"], box, area, bool(entry.get("iscrowd", 0))


def _fault(box: tuple[float, ...], image: dict[str, Any]) -> str:
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "of no size"
    outside = x >= image["width"] or y >= image["height"] or x + width <= 0 or y + height <= 0
    return "outside its image" if outside else ""


def _image(file: Path, entry: dict[str, Any], rows: list[tuple[Any, ...]]) -> CocoImage:
    table = np.array(rows, _ROW)
    boxes = xyxy_of(table["box"][table["class"] == REGION]).astype(np.float32)
    table = table[table["class"] != REGION]
    annotations = annotation_arrays(table["box"], table["class"], table["area"], table["crowd"])
    width, height = int(entry["width"]), int(entry["height"])
    regions = np.concatenate([boxes, _regions(file, entry, width, height)])
    return CocoImage(entry["id"], entry["file_name"], width, height, annotations, regions)


def _regions(file: Path, entry: dict[str, Any], width: int, height: int) -> np.ndarray:
    """The image's regions to ignore, (m, 4) float32 corners, clipped to the image."""
    written = entry.get("ignore_regions", [])
    try:
        regions = np.array(written, np.float64).reshape(-1, 4)
        if (
            not (np.abs(regions) <= FARTHEST).all()
            or (regions[:, 2:] < 0).any()
            or len(regions) != len(written)
        ):
            raise ValueError("not boxes")
    except (TypeError, ValueError, OverflowError) as error:
        where = f"{file}: 'ignore_regions' of image {entry['id']}"
        raise UserError(f"{where} must be a list of x, y, width, height, found {quoted(written)}") from error
    regions[:, 2:] += regions[:, :2]
    regions = np.clip(regions, 0, [width, height, width, height])
    return regions[(regions[:, 2:] > regions[:, :2]).all(axis=1)].astype(np.float32)
