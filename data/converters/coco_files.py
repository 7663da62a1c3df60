"""Data sets published as COCO files; they differ only in which boxes count, and under which class."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.converters.ground_truth import AnnotatedImage, Object
from data.converters.reading import folder_of
from data.detection.coco_checks import check_coco, unused_categories
from data.detection.coco_json import check_annotation, load_coco
from utils.errors import UserError
from utils.reading import reading

LOG = logging.getLogger(__name__)

Ignored = Callable[[dict[str, Any]], bool]


def never(entry: dict[str, Any]) -> bool:
    """For data sets that mark nothing but crowds as ignored."""
    return False


def find_split_files(source: Path, splits: tuple[str, ...], layout: str) -> dict[str, Path]:
    """Return the COCO file of each split below `source`, which has the split's name in its own.

    Raises:
        UserError: no split has a file, or one has several.
    """
    files = sorted(source.rglob("*.json"))
    chosen = {}
    for split in splits:
        word = re.compile(rf"(^|[^a-z]){split}([^a-z]|$)", re.IGNORECASE)
        matches = [file for file in files if word.search(file.stem)]
        if len(matches) > 1:
            some = " and ".join(map(str, matches[:2]))
            raise UserError(
                f"{source} has {len(matches)} files of '{split}', such as {some}; keep one of them"
            )
        if matches:
            chosen[split] = matches[0]
    if not chosen:
        raise UserError(f"no annotations below {source}; looked for {layout}")
    return chosen


def read_coco_file(
    file: Path,
    folders: list[Path],
    labels: Mapping[str, int | None],
    notes: Counter[str],
    is_ignored: Ignored = never,
) -> list[AnnotatedImage]:
    """Return the images of a COCO file.

    Args:
        file: the COCO file.
        folders: where its images may be.
        labels: class number of each category's name; None: its boxes are regions to ignore.
        notes: counts what is ignored.
        is_ignored: whether an annotation is to be ignored although it is no crowd.

    Raises:
        UserError: the file is no COCO file, names another category or image, or its images are missing.
    """
    with reading(file, "a COCO file"):
        return _read(file, folders, labels, notes, is_ignored)


def _read(
    file: Path,
    folders: list[Path],
    labels: Mapping[str, int | None],
    notes: Counter[str],
    is_ignored: Ignored,
) -> list[AnnotatedImage]:
    content = load_coco(file)
    for line in check_coco(file, content)[0]:
        LOG.warning("%s", line)
    by_id = _labels_by_id(file, content, labels)
    names = [entry["file_name"] for entry in content["images"]]
    folder = folder_of(names, folders, file)
    images = {
        entry["id"]: AnnotatedImage(
            folder / entry["file_name"],
            entry["file_name"],
            int(entry["width"]),
            int(entry["height"]),
            image_id=entry["id"] if isinstance(entry["id"], int) else None,
        )
        for entry in content["images"]
    }
    for entry in content.get("annotations", []):
        image_id, category, (x, y, width, height), area, crowd = check_annotation(file, entry, by_id)
        if image_id not in images:
            raise UserError(f"{file}: annotation {entry.get('id')} is of image {image_id}, not in 'images'")
        label, ignored = by_id[category], crowd or is_ignored(entry)
        notes["boxes to ignore"] += label is None or ignored
        number = entry.get("id")
        images[image_id].objects.append(
            Object(
                (x, y, x + width, y + height),
                label,
                ignored,
                area,
                number if isinstance(number, int) else None,
            )
        )
    return list(images.values())


def _labels_by_id(
    file: Path, content: dict[str, Any], labels: Mapping[str, int | None]
) -> dict[Any, int | None]:
    """Return the class number of each category id; unused categories of other names are left out."""
    unused = [entry["id"] for entry in unused_categories(content)]
    by_id = {}
    for entry in content["categories"]:
        if entry["name"] not in labels and entry["id"] in unused:
            continue
        if entry["name"] not in labels:
            known = ", ".join(labels)
            raise UserError(f"{file}: category '{entry['name']}' is not one of the data set's: {known}")
        by_id[entry["id"]] = labels[entry["name"]]
    return by_id
