"""What every converter produces: pictures, their boxes, and regions to ignore."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Object(NamedTuple):
    """One box of a picture.

    Attributes:
        box_xyxy: pixels, zero-based, the right and lower edge exclusive; it may reach out of the picture.
        label: class number; None is a region in which objects of every class are to be ignored.
        ignored: neither a target nor a miss; a label of None always is.
        area: pixels², where the data set states it; None is the box's own.
        object_id: the data set's own number of the object.
    """

    box_xyxy: tuple[float, float, float, float]
    label: int | None
    ignored: bool = False
    area: float | None = None
    object_id: int | None = None


@dataclass
class Picture:
    """One picture with its objects.

    Attributes:
        path: where it lies; a picture that is not there is left out when the data set is written.
        name: its name below images/<split>/ of the converted data set, with "/" between folders.
        width: pixels.
        height: pixels.
        objects: boxes, in the order of the annotations.
        picture_id: the data set's own number of the picture.
    """

    path: Path
    name: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)
    picture_id: int | None = None


@dataclass
class Converted:
    """A data set as read.

    Attributes:
        names: class names.
        splits: the pictures of each split, under the data set's own names of the splits.
        category_ids: the data set's own number of each class; None counts from 1.
        notes: what was changed or left out, and how often.
    """

    names: tuple[str, ...]
    splits: dict[str, list[Picture]]
    category_ids: tuple[int, ...] | None = None
    notes: Counter[str] = field(default_factory=Counter)


def hold_out(pictures: list[Picture], share: float) -> tuple[list[Picture], list[Picture]]:
    """Return pictures to train on and a share of them held out, chosen by name: the same on every machine."""
    by_hash = sorted(pictures, key=lambda picture: (zlib.crc32(picture.name.encode()), picture.name))
    held = {picture.name for picture in by_hash[: round(len(pictures) * share)]}
    return (
        [picture for picture in pictures if picture.name not in held],
        [picture for picture in pictures if picture.name in held],
    )
