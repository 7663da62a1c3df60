"""What is plausibly wrong with the YOLO label files of a split, taken together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.detection.plausibility import EXAMPLES, ROUNDING, check_form, such_as
from data.detection.yolo_labels import Labels
from data.media.image_files import is_image

_MOST_PIXELS = 0.5  # share of the rows with numbers over 1 from which all are probably pixels


def check_labels(
    images: Sequence[Path], files: Sequence[Path], labels: Sequence[Labels]
) -> tuple[list[str], list[str]]:
    """Return what is plausibly wrong, and what is worth a note.

    Args:
        images: of the split.
        files: the label file of each image.
        labels: as read from it.
    """
    wrong, notes = _check_numbers(files, labels)
    missing = [image for image, read in zip(images, labels, strict=True) if read.missing]
    orphans = _without_image(images, files)
    if len(missing) == len(images):
        where = f"looked for labels {such_as(list(map(str, files)))}"
        wrong.append(f"none of {len(images)} images has a label file; {where}")
    elif not any(len(read.classes) or read.bad_rows for read in labels):
        where = such_as(list(map(str, files)))
        wrong.append(f"none of {len(images)} images has a labeled object; its label files are {where}")
    elif missing:
        where = such_as(list(map(str, missing[:EXAMPLES])))
        count = f"{len(missing)} of {len(images)} images"
        notes.append(f"{count} have no label file (taken for background), {where}")
    if orphans:
        where = such_as(list(map(str, orphans[:EXAMPLES])))
        (wrong if missing else notes).append(f"{len(orphans)} label file(s) belong to no image, {where}")
    return wrong, notes + _shared_files(images, files) + _listed_twice(images)


def _check_numbers(files: Sequence[Path], labels: Sequence[Labels]) -> tuple[list[str], list[str]]:
    """What the numbers of all boxes tell about how they are written."""
    rows = np.concatenate([read.written for read in labels])
    owners = np.repeat(np.arange(len(labels)), [len(read.written) for read in labels])
    over = np.flatnonzero((rows[:, 1:] > 1 + ROUNDING).any(axis=1))

    def place(row: int) -> str:
        return f"{files[owners[row]]}:{int(rows[row, 0])}"

    if len(over) and len(over) >= _MOST_PIXELS * len(rows):
        where = such_as([place(row) for row in over[:EXAMPLES]])
        return [
            f"boxes are probably written in pixels, but are read as fractions: {len(over)} of {len(rows)} "
            f"hold numbers over 1, up to {rows[over, 1:].max():g}; {where}"
        ], []
    usable = np.flatnonzero((abs(rows[:, 1:] - 0.5) <= 0.5 + ROUNDING).all(axis=1))
    return check_form(rows[usable, 1:], "center", lambda index: place(usable[index]))


def _without_image(images: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """The label files that belong to no image, in the folders of those that do.

    A text file counts where its first line begins like a row of labels, and where no image of its name is in
    the folder of the images: an image may belong to another split.
    """
    folders: dict[Path, set[Path]] = {}
    for image, file in zip(images, files, strict=True):
        folders.setdefault(file.parent, set()).add(image.parent)
    known = set(files)
    orphans: list[Path] = []
    for folder, places in folders.items():
        others = [
            folder / name
            for name in _names(folder)
            if name.endswith(".txt") and not name.startswith(".") and folder / name not in known
        ]
        if others:
            names = (Path(name) for place in places for name in _names(place))
            stems = {name.stem for name in names if is_image(name)}
            orphans += [file for file in others if file.stem not in stems and _holds_labels(file)]
    return sorted(orphans)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _holds_labels(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            columns = stream.readline(1000).split()
        return len(columns) >= 5 and all(np.isfinite([float(column) for column in columns]))
    except (OSError, ValueError):
        return False


def _shared_files(images: Sequence[Path], files: Sequence[Path]) -> list[str]:
    """A note on images of different endings that share a label file."""
    owners = dict(zip(images, files, strict=True))  # each image once
    counts = Counter(owners.values())
    shared = [file for file, count in counts.items() if count > 1]
    if not shared:
        return []
    examples = [
        " and ".join(image.name for image, file in owners.items() if file == one) + f" with {one}"
        for one in shared[:EXAMPLES]
    ]
    return [f"{len(shared)} label file(s) are shared by several images of the same name, {such_as(examples)}"]


def _listed_twice(images: Sequence[Path]) -> list[str]:
    """A note on images that several sources of a split list."""
    repeated = [image for image, count in Counter(images).items() if count > 1]
    if not repeated:
        return []
    where = such_as(list(map(str, repeated[:EXAMPLES])))
    return [f"{len(repeated)} image(s) are listed by several sources and count as often, {where}"]
