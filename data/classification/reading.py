"""Reading a classification data set of any format."""

from __future__ import annotations

from collections.abc import Callable

from data.classification import cifar, folders, mnist, npz, tiny_imagenet
from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet
from data.classification.transform import InputTransform
from utils.reading import guarded

READERS: dict[str, Callable[[ClassificationDatasetConfig, str, InputTransform], ImageSet]] = {
    "folders": folders.read,
    "cifar": cifar.read,
    "mnist": mnist.read,
    "npz": npz.read,
    "tiny-imagenet": tiny_imagenet.read,
}


def read_labeled_images(
    description: ClassificationDatasetConfig, split: str, transform: InputTransform
) -> ImageSet:
    """Return the images of "train", "val" or "test" as inputs.

    Raises:
        UserError: they are missing, or differ from their format; the message names the file.
    """
    with guarded(description.file, f"a data set of the format {description.format}"):
        return READERS[description.format](description, split, transform)
