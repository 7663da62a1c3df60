"""One folder for each class: train/cat/1.jpg, train/dog/2.jpg, val/cat/3.jpg, ..."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, read_files
from data.classification.transform import InputTransform
from data.media.image_files import is_image
from data.paths import is_litter, list_folder
from utils.errors import UserError

LOG = logging.getLogger(__name__)


def read(description: ClassificationDatasetConfig, split: str, transform: InputTransform) -> ImageSet:
    """Read a split; the classes are those of the YAML, or the training folders in alphabetical order.

    Raises:
        UserError: the folders of the split do not match the classes, a folder has no image, or an image is
            broken or neither gray nor RGB.
    """
    reference = "train" if "train" in description.splits else split
    names = description.names or tuple(sorted(_class_folders(description, reference)))
    folders = _class_folders(description, split)
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
            listing = list_folder(folder, is_image)
            images = listing.files
            if not images:
                raise UserError(f"{folder}: no image in this class folder")
            for note in listing.notes(folder):
                LOG.warning("%s", note)
            files += images
            labels += [label] * len(images)
    return ImageSet(read_files(files, transform), np.array(labels, np.int64), names, list(map(str, files)))


def _class_folders(description: ClassificationDatasetConfig, split: str) -> dict[str, list[Path]]:
    """Return the folders of each class in a split."""
    folders: dict[str, list[Path]] = {}
    for source in description.sources(split):
        for folder in sorted(source.iterdir()) if source.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith(".") and not is_litter(folder.name):
                folders.setdefault(folder.name, []).append(folder)
    if not folders:
        raise UserError(f"{description.file}: no class folder in {_shown(description, split)}")
    return folders


def _shown(description: ClassificationDatasetConfig, split: str) -> str:
    return ", ".join(str(source) for source in description.sources(split))
