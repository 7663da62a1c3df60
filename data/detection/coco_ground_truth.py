"""The ground truth of a COCO file by itself, which the results file of any detector is scored against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.detection.coco_checks import check_coco
from data.detection.coco_json import REGION, load_coco, read_images
from data.image_record import ImageRecord
from utils.errors import UserError

REGION_NAMES = ("ignore", "ignored", "ignore region", "ignored region", "ignore regions", "ignored regions")


@dataclass(frozen=True)
class CocoGroundTruth:
    """Classes in the order of their category ids, and images in the order of the file.

    The paths of the images are their names in the file, below a folder; they need not exist.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: list[ImageRecord]
    notes: list[str]


def read_ground_truth(file: Path, folder: Path = Path(), honor_ignore: bool = False) -> CocoGroundTruth:
    """Read a COCO file; a category called "ignore" or "ignored regions" marks regions to ignore.

    Args:
        file: a COCO file with images, annotations and categories.
        folder: where the images are.
        honor_ignore: treat annotations with a true `ignore` or `uncertain` as crowds, as TinyPerson does;
            COCO knows neither.

    Raises:
        UserError: the file is no COCO file, or an annotation cannot be used; the message counts them.
    """
    content = load_coco(file)
    categories = sorted(content["categories"], key=lambda entry: entry["id"])
    ids = Counter(entry["id"] for entry in categories)
    if max(ids.values(), default=0) > 1:
        raise UserError(f"{file}: two categories have the id {ids.most_common(1)[0][0]}")
    regions = [entry for entry in categories if _is_region(entry["name"])]
    real = [entry for entry in categories if not _is_region(entry["name"])]
    if not real or not content["images"]:
        raise UserError(f"{file} has no {'images' if real else 'categories'}: there is nothing to score")
    classes = {entry["id"]: number for number, entry in enumerate(real)}
    classes.update({entry["id"]: REGION for entry in regions})
    is_ignored = _marked if honor_ignore else (lambda annotation: False)
    images, notes, faults = read_images(file, content, classes, is_ignored)
    if faults:
        more = f" ({len(faults)} such annotations)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")
    notes += [f"{file}: boxes of '{entry['name']}' are regions to ignore" for entry in regions]
    suspects, remarks = check_coco(file, content)
    notes += suspects + remarks
    notes += _repeated_ids(file, content.get("annotations", []))
    records = [
        ImageRecord(
            folder / image.file_name,
            image.image_id,
            image.width,
            image.height,
            *image.annotations,
            ignore=image.ignore,
        )
        for image in images
    ]
    names, category_ids = tuple(entry["name"] for entry in real), tuple(entry["id"] for entry in real)
    return CocoGroundTruth(names, category_ids, records, notes)


def _is_region(name: str) -> bool:
    return name.lower().replace("-", " ").replace("_", " ") in REGION_NAMES


def _marked(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("ignore") or annotation.get("uncertain"))


def _repeated_ids(file: Path, annotations: list[dict[str, Any]]) -> list[str]:
    ids = [entry["id"] for entry in annotations if "id" in entry]
    count = len(ids) - len(set(ids))
    return [f"{file}: {count} annotation id(s) are repeated; all boxes count"] if count else []
