"""SKU-110K: densely packed shelves; a CSV file without a header for each split, with a box in each row.

image, x1, y1, x2, y2, class, image width, image height (Goldman et al., CVPR 2019, arXiv:1904.00853); the
only class is `object`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import folder_of, numbers, read_rows
from utils.errors import UserError

NAMES = ("object",)
LAYOUT = "annotations/annotations_<split>.csv with images/*.jpg, splits train, val and test"


def read(source: Path) -> Converted:
    """Read every split that has a file; the rows give the sizes of the images."""
    splits = {}
    for split in ("train", "val", "test"):
        file = source / "annotations" / f"annotations_{split}.csv"
        if file.is_file():
            splits[split] = _read_split(file, [source / "images", source / "images" / split, source / split])
    if not splits:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    return Converted(NAMES, splits, notes=Counter())


def _read_split(file: Path, folders: list[Path]) -> list[AnnotatedImage]:
    images: dict[str, AnnotatedImage] = {}
    for where, (name, *cells) in read_rows(file, 8):
        label = cells.pop(4)
        if label not in NAMES:
            raise UserError(f"{where}: class '{label}' is not 'object', the only one there is")
        x1, y1, x2, y2, width, height = numbers(where, cells)
        image = images.setdefault(name, AnnotatedImage(file, name, int(width), int(height)))
        if (image.width, image.height) != (width, height):
            raise UserError(
                f"{where}: {name} is {width:g}x{height:g} px here, "
                f"{image.width}x{image.height} in an earlier row"
            )
        image.objects.append(Object((x1, y1, x2, y2), 0))
    folder = folder_of(list(images), folders, file)
    for name, image in images.items():
        image.path = folder / name
    return list(images.values())
