"""Tiny ImageNet-200 as it is published.

wnids.txt                     the classes, a WordNet id on each line
words.txt                     their names: n01443537<tab>goldfish, Carassius auratus
train/<wnid>/images/*.JPEG
val/images/*.JPEG             with val/val_annotations.txt: val_0.JPEG<tab>n03444034<tab>box
test/                         has no labels
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, read_files
from data.classification.transform import InputTransform
from data.media.image_files import is_image
from utils.errors import UserError
from utils.reading import reading

SIDE = 64  # pixels


def read(description: ClassificationDatasetConfig, split: str, transform: InputTransform) -> ImageSet:
    """Read a split, whose one source is the folder `train` or `val`.

    Raises:
        UserError: one of the files above is missing or differs from its format, or an image is not 64x64.
    """
    sources = description.sources(split)
    if len(sources) != 1:
        raise UserError(f"{description.file}: '{split}' must name one folder, found {len(sources)}")
    ids = _lines(description.path / "wnids.txt")
    names = description.names or _names(description.path / "words.txt", ids)
    if len(names) != len(ids):
        raise UserError(f"{description.file}: {len(names)} names for {len(ids)} classes in wnids.txt")
    annotations = sources[0] / "val_annotations.txt"
    pairs = _annotated(annotations, ids) if annotations.is_file() else _in_folders(sources[0], ids)
    files, labels = [file for file, _ in pairs], [label for _, label in pairs]
    pixels = read_files(files, transform, SIDE)
    return ImageSet(pixels, np.array(labels, np.int64), names, [str(file) for file in files])


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise UserError(f"no {file}: not the layout in which Tiny ImageNet is published")
    with reading(file, "a text file"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{file} is empty")
    return lines


def _names(file: Path, ids: list[str]) -> tuple[str, ...]:
    """The first name of each class, with its id where two classes have the same."""
    words = dict(line.partition("\t")[::2] for line in _lines(file))
    first = [words.get(wnid, wnid).split(",")[0] for wnid in ids]
    return tuple(
        f"{name} ({wnid})" if first.count(name) > 1 else name for name, wnid in zip(first, ids, strict=True)
    )


def _annotated(file: Path, ids: list[str]) -> list[tuple[Path, int]]:
    numbers = {wnid: i for i, wnid in enumerate(ids)}
    pairs = []
    for number, line in enumerate(_lines(file), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers:
            raise UserError(f"{file} line {number}: '{wnid}' is not in wnids.txt")
        pairs.append((file.parent / "images" / name, numbers[wnid]))
    return pairs


def _in_folders(folder: Path, ids: list[str]) -> list[tuple[Path, int]]:
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    missing, extra = sorted(set(ids) - present), sorted(present - set(ids))
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in wnids.txt"
        raise UserError(f"{folder}: the class folders differ from wnids.txt: {what}")
    return [
        (file, label)
        for label, wnid in enumerate(ids)
        for file in sorted((folder / wnid / "images").glob("*"))
        if is_image(file)
    ]
