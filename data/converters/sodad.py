"""SODA-D: small objects in large images of traffic, as COCO files; category `ignore` marks regions.

Cheng et al., TPAMI 2023, arXiv:2207.14096.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.coco_files import find_split_files, read_coco_file
from data.converters.ground_truth import Converted

NAMES = (
    *("people", "rider", "bicycle", "motor", "vehicle"),
    *("traffic-sign", "traffic-light", "traffic-camera", "warning-cone"),
)
LAYOUT = "Annotations/<split>.json with Images/*.jpg or Images/<split>/*.jpg"


def read(source: Path) -> Converted:
    """Read train, val and test; single boxes marked `ignore` are kept as ignored boxes."""
    notes: Counter[str] = Counter()
    labels: dict[str, int | None] = {name: number for number, name in enumerate(NAMES)}
    labels["ignore"] = None
    splits = {}
    for split, file in find_split_files(source, ("train", "val", "test"), LAYOUT).items():
        places = (f"Images/{split}", "Images", f"images/{split}", "images", split)
        folders = [source / place for place in places]
        splits[split] = read_coco_file(
            file, folders, labels, notes, is_ignored=lambda entry: bool(entry.get("ignore"))
        )
    return Converted(NAMES, splits, notes=notes)
