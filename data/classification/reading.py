"""From a classification data set to its images, whatever their format."""

from __future__ import annotations

from collections.abc import Callable

from data.classification import cifar, folders, mnist, npz, tiny_imagenet
from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet
from data.classification.resize import InputTransform

READERS: dict[str, Callable[[ClassificationDatasetConfig, str, InputTransform], ImageSet]] = {
    "folders": folders.read,
    "cifar": cifar.read,
    "mnist": mnist.read,
    "npz": npz.read,
    "tiny-imagenet": tiny_imagenet.read,
}


def read_split(description: ClassificationDatasetConfig, split: str, view: InputTransform) -> ImageSet:
    """Return the images of "train", "val" or "test" as inputs.

    Raises:
        UserError: they are not there, or not as their format wants them; it names the file.
    """
    return READERS[description.format](description, split, view)
