"""AI-TOD and AI-TOD-v2: tiny objects in 800 x 800 px crops of aerial images, as COCO files.

Wang et al., ICPR 2020, and Xu et al., ISPRS 2022. Files are called aitod_train_v1.json,
aitodv2_train.json, ...
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.coco_files import find_split_files, read_coco_file
from data.converters.ground_truth import Converted

NAMES = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")
LAYOUT = "annotations/aitod*_<split>*.json with <split>/images/*.png or images/<split>/*.png"


def read(source: Path) -> Converted:
    """Read train, val and test, or trainval and test."""
    files = find_split_files(source, ("train", "val", "trainval", "test"), LAYOUT)
    if "train" in files:
        files.pop("trainval", None)
    notes: Counter[str] = Counter()
    labels = {name: number for number, name in enumerate(NAMES)}
    splits = {}
    for split, file in files.items():
        places = (f"{split}/images", split, f"images/{split}", "images", "trainval/images", "trainval")
        splits[split] = read_coco_file(file, [source / place for place in places], labels, notes)
    return Converted(NAMES, splits, notes=notes)
