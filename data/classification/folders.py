"""A folder a class: train/cat/1.jpg, train/dog/2.jpg, val/cat/3.jpg, ..."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, read_files
from data.classification.resize import InputTransform
from data.media.image_files import is_image
from utils.errors import UserError


def read(description: ClassificationDatasetConfig, split: str, view: InputTransform) -> ImageSet:
    """Read a split; the classes are those of the YAML, or the training folders in alphabetical order.

    Raises:
        UserError: the folders of the split are not the classes, a folder is empty, or an image is broken or
            neither gray nor RGB.
    """
    reference = "train" if "train" in description.splits else split
    names = description.names or tuple(sorted(_classes(description, reference)))
    folders = _classes(description, split)
    what = f"{description.file}: the class folders of '{split}' ({_shown(description, split)})"
    against = "the names" if description.names else f"'{reference}'"
    missing, extra = sorted(set(names) - set(folders)), sorted(set(folders) - set(names))
    if missing or extra:
        notes = [f"{', '.join(missing[:5])} missing"] * bool(missing)
        notes += [f"{', '.join(extra[:5])} not expected"] * bool(extra)
        raise UserError(f"{what} differ from {against}: {'; '.join(notes)}")
    files, labels = [], []
    for label, name in enumerate(names):
        for folder in folders[name]:
            found = sorted(file for file in folder.rglob("*") if is_image(file))
            if not found:
                raise UserError(f"{folder}: no image in this class folder")
            files += found
            labels += [label] * len(found)
    return ImageSet(read_files(files, view), np.array(labels, np.int64), names, [str(f) for f in files])


def _classes(description: ClassificationDatasetConfig, split: str) -> dict[str, list[Path]]:
    """Return the folders of each class of a split."""
    found: dict[str, list[Path]] = {}
    for source in description.sources(split):
        for folder in sorted(source.iterdir()) if source.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith("."):
                found.setdefault(folder.name, []).append(folder)
    if not found:
        raise UserError(f"{description.file}: no class folder in {_shown(description, split)}")
    return found


def _shown(description: ClassificationDatasetConfig, split: str) -> str:
    return ", ".join(str(source) for source in description.sources(split))
