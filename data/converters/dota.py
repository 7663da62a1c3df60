"""DOTA: large aerial images; a text file for each, with four corners, category and difficulty in each row.

Xia et al., CVPR 2018, arXiv:1711.10398; captain-whu.github.io/DOTA/dataset.html. Two lines, imagesource
and gsd, come before the rows. Boxes become the horizontal ones around the corners, which is DOTA's task 2;
difficult objects are ignored, as in its evaluation. Versions 1.0 and 1.5 have the first 15 and 16 of the
classes, version 2.0 has all 18.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import list_images, numbers, read_sizes, read_text
from utils.errors import UserError, suggest

NAMES = (
    *("plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship"),
    *("tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor"),
    *("swimming-pool", "helicopter", "container-crane", "airport", "helipad"),
)
LAYOUT = "<split>/images/*.png and <split>/labelTxt*/*.txt, splits train and val"


def read(source: Path) -> Converted:
    """Read train and val; the labels of the test set are not public."""
    notes: Counter[str] = Counter()
    splits = {}
    for split in ("train", "val"):
        if (source / split / "images").is_dir():
            labels = _label_folder(source / split)
            sizes = read_sizes(list_images(source / split / "images"), notes)
            splits[split] = [
                AnnotatedImage(path, path.name, *size, _read_objects(labels / f"{path.stem}.txt", notes))
                for path, size in sizes.items()
            ]
    if not splits:
        raise UserError(f"no images below {source}; looked for {LAYOUT}")
    return Converted(NAMES, splits, notes=notes)


def _label_folder(folder: Path) -> Path:
    """The folder of the label files, which may lie in another one: labelTxt-v1.0/labelTxt/."""
    folders = sorted({file.parent for file in folder.rglob("*.txt") if "labelTxt" in str(file.parent)})
    if len(folders) != 1:
        which = f"has {' and '.join(map(str, folders))}; keep one" if folders else "has no folder labelTxt"
        raise UserError(f"{folder} {which}; looked for {LAYOUT}")
    return folders[0]


def _read_objects(file: Path, notes: Counter[str]) -> list[Object]:
    objects = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        cells = line.split()
        if not cells or ":" in cells[0]:
            continue
        where = f"{file}:{number}"
        if len(cells) not in (9, 10):
            expected = "x1 y1 x2 y2 x3 y3 x4 y4 category difficult"
            raise UserError(f"{where}: {len(cells)} columns; a row is: {expected}")
        corners = numbers(where, cells[:8])
        if cells[8] not in NAMES:
            raise UserError(f"{where}: unknown category '{cells[8]}'. {suggest(cells[8], NAMES)}")
        difficult = numbers(where, cells[9:])[:1] not in ([], [0.0])
        notes["difficult boxes, ignored"] += difficult
        x, y = corners[0::2], corners[1::2]
        objects.append(Object((min(x), min(y), max(x), max(y)), NAMES.index(cells[8]), difficult))
    return objects
