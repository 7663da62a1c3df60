"""TinyPerson: people at sea and on beaches, as COCO files with the fields ignore, uncertain and logo.

Yu et al., WACV 2020, arXiv:1912.10664. As in its benchmark, sea_person and earth_person are one class,
and boxes marked `ignore` or `uncertain` are ignored; in_dense_image marks boxes of crowded images,
which are ordinary.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data.converters.coco_files import read_coco_file
from data.converters.ground_truth import Converted
from utils.errors import UserError

NAMES = ("person",)
LABELS = {"person": 0, "sea_person": 0, "earth_person": 0}
LAYOUT = (
    "annotations/task/tiny_set_<split>_all.json or annotations/tiny_set_<split>.json with <split>/*/*.jpg"
)


def read(source: Path) -> Converted:
    """Read train and test, from the files of the benchmark (task/..._all) where they are present."""
    notes: Counter[str] = Counter()
    splits = {}
    for split in ("train", "test"):
        names = (f"task/tiny_set_{split}_all.json", f"tiny_set_{split}.json")
        files = [source / "annotations" / name for name in names]
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            folders = [source / split, source / "images" / split, source]
            splits[split] = read_coco_file(file, folders, LABELS, notes, _ignored)
    if not splits:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    return Converted(NAMES, splits, notes=notes)


def _ignored(entry: dict[str, Any]) -> bool:
    return bool(entry.get("ignore") or entry.get("uncertain"))
