"""VisDrone-DET: a text file for each image, eight numbers in each row, often with a comma at the end.

left, top, width, height, score, category, truncation, occlusion (github.com/VisDrone/VisDrone-Dataset).
Category 0 is a region to ignore; a score of 0 marks an object to ignore; category 11, "others", is dropped,
since the official evaluation of images leaves it out. That does not use truncation and occlusion either.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import list_images, numbers, read_rows, read_sizes
from utils.errors import UserError

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van"),
    *("truck", "tricycle", "awning-tricycle", "bus", "motor"),
)
LAYOUT = "VisDrone2019-DET-<split>/images/*.jpg and VisDrone2019-DET-<split>/annotations/*.txt"
_REGION, _OTHERS = 0, 11


def read(source: Path) -> Converted:
    """Read every split that has annotations (the challenge's test set has none)."""
    folders = [source, *sorted(path for path in source.iterdir() if path.is_dir())]
    notes: Counter[str] = Counter()
    splits: dict[str, list[AnnotatedImage]] = {}
    for folder in folders:
        split = re.search(r"(train|val|test-dev|test)$", folder.name)
        if split and (folder / "images").is_dir() and (folder / "annotations").is_dir():
            splits[split[1]] = _read_split(folder, notes)
    if not splits:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    return Converted(NAMES, splits, notes=notes)


def _read_split(folder: Path, notes: Counter[str]) -> list[AnnotatedImage]:
    sizes = read_sizes(list_images(folder / "images"), notes)
    return [
        AnnotatedImage(
            path, path.name, *size, _read_objects(folder / "annotations" / f"{path.stem}.txt", notes)
        )
        for path, size in sizes.items()
    ]


def _read_objects(file: Path, notes: Counter[str]) -> list[Object]:
    objects = []
    for where, cells in read_rows(file, 8):
        left, top, width, height, score, category, *_ = numbers(where, cells)
        if category not in range(12):
            raise UserError(f"{where}: category {category:g} is not one of 0 to 11")
        if category == _OTHERS:
            notes["boxes of 'others' dropped"] += 1
            continue
        region = category == _REGION
        notes["regions to ignore"] += region
        notes["boxes to ignore (score 0)"] += not region and score == 0
        box = (left, top, left + width, top + height)
        objects.append(Object(box, None if region else int(category) - 1, region or score == 0))
    return objects
