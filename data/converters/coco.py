"""COCO 2017, or any data set in the layout of COCO, with the classes that its files name.

annotations/instances_<split>.json, with images in <split>/ or images/<split>/
(cocodataset.org/#format-data).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.coco_files import read_coco_file
from data.converters.ground_truth import Converted
from data.detection.coco_checks import group_categories, used_ids
from data.detection.coco_json import load_coco
from utils.errors import UserError

LAYOUT = "annotations/instances_<split>.json with <split>/*.jpg"


def read(source: Path) -> Converted:
    """Read all splits; classes are in the order of their category ids, and all ids are kept."""
    files = sorted((source / "annotations").glob("instances_*.json"))
    if not files:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    loaded = [(content["categories"], used_ids(content)) for content in map(load_coco, files)]
    entries = [entry for listed, _ in loaded for entry in listed]
    groups = group_categories(entries, set().union(*(used for _, used in loaded)))
    categories: dict[int, str] = {}
    for file, (listed, _) in zip(files, loaded, strict=True):
        for entry in listed:
            if entry["id"] in groups:
                continue
            if categories.setdefault(entry["id"], entry["name"]) != entry["name"]:
                raise UserError(
                    f"{file}: category {entry['id']} is '{entry['name']}', which other files name otherwise"
                )
    notes: Counter[str] = Counter()
    notes["categories left out that only name a group of others"] = len(groups)
    ids = tuple(sorted(categories))
    names = tuple(categories[number] for number in ids)
    if len(set(names)) < len(names):
        raise UserError(f"{files[0]}: two categories have the same name")
    splits = {}
    for file in files:
        split = file.stem.removeprefix("instances_")
        folders = [source / split, source / "images" / split, source / "images", source]
        labels = {name: number for number, name in enumerate(names)}
        splits[split] = read_coco_file(file, folders, labels, notes)
    return Converted(names, splits, ids, notes)
