"""The views of a split: what training and evaluation look at."""

from __future__ import annotations

import sys
from dataclasses import replace

from data.dataset_yaml import DatasetConfig
from data.detection.image_record import ImageRecord
from data.detection.records import read_records
from data.detection.tiling import tile_records

MANY_PROBLEMS = 10  # broken images listed one by one


def read_split(
    description: DatasetConfig, split: str, single_cls: bool = False, whole: bool = False
) -> list[ImageRecord]:
    """Return the images of a split, or their tiles where the data set is tiled; say what was left out.

    With `single_cls` all objects are of class 0; with `whole` images are not cut.
    """
    records, problems = read_records(description, split)
    for problem in problems[:MANY_PROBLEMS]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > MANY_PROBLEMS:
        print(f"left out: {len(problems) - MANY_PROBLEMS} more", file=sys.stderr)
    if single_cls:
        records = [replace(record, classes=record.classes * 0) for record in records]
    return tile_records(records, description.tile) if description.tile and not whole else records
