"""The tasks that networks are trained for, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.tasks.detection import DetectionTask
from models.tasks.task import Task

__all__ = ["DetectionTask", "Task", "choose_task"]


def choose_task(data: Path, architecture: str | Mapping[str, Any] | None) -> Task:
    """Return the task that a network of this architecture has on this data set.

    Args:
        data: the data-set YAML.
        architecture: a model's name or YAML, or None for the default of the data.
    """
    return DetectionTask(data)
