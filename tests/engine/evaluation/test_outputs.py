"""Label files of an evaluation: one for each image, whatever the images are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.evaluation.outputs import write_labels
from engine.options import LabelOptions
from utils.detections import Detections


@pytest.mark.parametrize(
    ("images", "written"),
    [
        (["x/a.jpg", "x/b_1.png"], {"a.txt", "b_1.txt"}),
        (["x/a.jpg", "y/a.jpg"], {"x/a.txt", "y/a.txt"}),
        (["x/a.jpg", "x/a.png", "x/b.jpg"], {"a.txt", "a-2.txt", "b.txt"}),
        (["x/a.jpg", "x/A.jpg"], {"a.txt", "A-2.txt"}),
    ],
)
def test_each_image_has_a_label_file_of_its_own(tmp_path: Path, images: list[str], written: set[str]) -> None:
    one = Detections(np.array([[0.0, 0, 8, 8]]), np.array([0.5]), np.array([0]))
    records = [SimpleNamespace(path=tmp_path / image, width=16, height=16) for image in images]
    predicted = SimpleNamespace(per_image=lambda: [one] * len(images))
    evaluation: Any = SimpleNamespace(full_images=SimpleNamespace(records=records, predicted=predicted))
    write_labels(evaluation, tmp_path / "labels", LabelOptions())
    files = (tmp_path / "labels").rglob("*.txt")
    assert {file.relative_to(tmp_path / "labels").as_posix() for file in files} == written
