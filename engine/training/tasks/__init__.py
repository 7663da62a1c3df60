"""The tasks that networks are trained for, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.classification.dataset_yaml import is_classification
from engine.training.tasks.classification import ClassificationTask
from engine.training.tasks.detection import DetectionTask
from engine.training.tasks.task import Loader, Loaders, Loss, Task, TrainBatch
from models.architecture import is_classifier, read_architecture
from utils.errors import UserError

__all__ = [
    "ClassificationTask",
    "DetectionTask",
    "Loader",
    "Loaders",
    "Loss",
    "Task",
    "TrainBatch",
    "choose_task",
    "default_data",
]


def choose_task(data: Path, architecture: str | Mapping[str, Any] | None) -> Task:
    """Return the task that a network of this architecture has on this data set.

    Args:
        data: the data-set YAML, or a folder of images to classify.
        architecture: a model's name or YAML, or None for the default of the data.

    Raises:
        UserError: the one classifies, the other detects.
    """
    labels = is_classification(data)
    if architecture is not None and _classifies(architecture) != labels:
        name = architecture if isinstance(architecture, str) else "the network of these weights"
        if labels:
            raise UserError(
                f"{name} is a detector, but {data} has no boxes, only labels of full images; choose a "
                "classifier, such as --cfg resnet18-spd, or data with boxes, such as data/treecrowns.yaml"
            )
        raise UserError(
            f"{name} is a classifier, but {data} is for detection; choose a detector, such as "
            "--cfg yolov5n-spd, or data for classification, such as data/mnist5k.yaml"
        )
    return ClassificationTask(data) if labels else DetectionTask(data)


def default_data(architecture: str | Mapping[str, Any] | None) -> Path:
    """Return the data set that ships for networks of this architecture."""
    labels = architecture is not None and _classifies(architecture)
    return Path("data/mnist5k.yaml" if labels else "data/treecrowns.yaml")


def _classifies(architecture: str | Mapping[str, Any]) -> bool:
    given = architecture if isinstance(architecture, str) else dict(architecture)
    return is_classifier(read_architecture(given))
