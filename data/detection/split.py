"""The images or tiles of a split, as training and evaluation use them."""

from __future__ import annotations

import logging
from dataclasses import replace

from data.dataset_yaml import DatasetConfig
from data.detection.records import read_records
from data.image_record import ImageRecord
from data.tiling import tile_records

LOG = logging.getLogger(__name__)
MOST_LISTED = 10  # problems that are listed one by one


def read_split(
    description: DatasetConfig, split: str, single_cls: bool = False, whole: bool = False
) -> list[ImageRecord]:
    """Return the images of a split, or their tiles where the data set is tiled; log what is wrong with it.

    Args:
        description: the data set.
        split: "train", "val" or "test".
        single_cls: all objects are of class 0.
        whole: do not cut images into tiles.

    Raises:
        UserError: as `read_records`.
    """
    records, problems = read_records(description, split)
    for problem in problems[:MOST_LISTED]:
        LOG.warning("%s", problem)
    if len(problems) > MOST_LISTED:
        more = len(problems) - MOST_LISTED
        LOG.warning("%d more such lines on %s; python -m tools.doctor lists them", more, split)
    if single_cls:
        records = [replace(record, classes=record.classes * 0) for record in records]
    return tile_records(records, description.tile) if description.tile and not whole else records
