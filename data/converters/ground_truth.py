"""What every converter produces: images, their boxes, and regions to ignore."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Object(NamedTuple):
    """One box of an image.

    Attributes:
        box_xyxy: pixels, zero-based, right and lower edge exclusive; it may reach beyond the image.
        label: class number; None is a region in which objects of every class are to be ignored.
        ignored: neither a target nor a miss; a region always is.
        area: pixels², where the data set states it; None is that of the box.
        object_id: the data set's own number of the object.
    """

    box_xyxy: tuple[float, float, float, float]
    label: int | None
    ignored: bool = False
    area: float | None = None
    object_id: int | None = None


@dataclass
class AnnotatedImage:
    """One image with its objects.

    Attributes:
        path: the file; an image whose file is missing is left out when the data set is written.
        name: its name below images/<split>/ of the converted data set, with "/" between folders.
        width: pixels.
        height: pixels.
        objects: its boxes, in the order of the annotations.
        image_id: the data set's own number of the image.
    """

    path: Path
    name: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)
    image_id: int | None = None


@dataclass
class Converted:
    """A data set as it was read.

    Attributes:
        names: class names.
        splits: the images of each split, under the data set's own name of the split.
        category_ids: the data set's own number of each class; None numbers them from 1.
        notes: how often something was changed or left out.
    """

    names: tuple[str, ...]
    splits: dict[str, list[AnnotatedImage]]
    category_ids: tuple[int, ...] | None = None
    notes: Counter[str] = field(default_factory=Counter)


def hold_out(images: list[AnnotatedImage], share: float) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Return images to train on and a share held out, which names decide: the same on every machine."""
    by_hash = sorted(images, key=lambda image: (zlib.crc32(image.name.encode()), image.name))
    held = {image.name for image in by_hash[: round(len(images) * share)]}
    return (
        [image for image in images if image.name not in held],
        [image for image in images if image.name in held],
    )
