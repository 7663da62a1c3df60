from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset_yaml import DatasetConfig, read_dataset_yaml


def write_image(path: Path, width: int = 64, height: int = 48, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(noise, (width, height)))
    return path


@pytest.fixture
def yolo_set(tmp_path: Path) -> Callable[..., DatasetConfig]:
    """Writes a YOLO data set with one label text an image (None: no file) and describes it."""

    def make(*labels: str | None, names: str = "[car, person]", extra: str = "") -> DatasetConfig:
        for number, text in enumerate(labels):
            write_image(tmp_path / f"images/train/{number:03}.jpg", seed=number)
            if text is not None:
                file = tmp_path / f"labels/train/{number:03}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        yaml = tmp_path / "mine.yaml"
        yaml.write_text(f"train: images/train\nnames: {names}\n{extra}")
        return read_dataset_yaml(yaml)

    return make


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    """A miniature of COCO 2017 as published: instances_val2017.json and val2017/*.jpg."""
    sizes = {397133: (64, 48), 37777: (40, 80), 252219: (64, 64)}
    for image_id, (width, height) in sizes.items():
        write_image(tmp_path / f"val2017/{image_id:012}.jpg", width, height, image_id)
    content = {
        "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
        "licenses": [
            {"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}
        ],
        "images": [
            {
                "license": 4,
                "file_name": f"{image_id:012}.jpg",
                "coco_url": f"http://images.cocodataset.org/val2017/{image_id:012}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2013-11-14 17:02:52",
                "id": image_id,
            }
            for image_id, (width, height) in sizes.items()
        ],
        "annotations": [
            {
                "segmentation": [[10.0, 12.0, 30.0, 12.0, 30.0, 40.5]],
                "area": 285.25,
                "iscrowd": 0,
                "image_id": 397133,
                "bbox": [10.0, 12.0, 20.0, 28.5],
                "category_id": 90,
                "id": 82445,
            },
            {
                "segmentation": {"counts": [272, 2, 4, 4], "size": [48, 64]},
                "area": 500.0,
                "iscrowd": 1,
                "image_id": 397133,
                "bbox": [0.0, 0.0, 50.0, 25.0],
                "category_id": 1,
                "id": 900100002157,
            },
            {
                "segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 9.0]],
                "area": 16.0,
                "iscrowd": 0,
                "image_id": 37777,
                "bbox": [1.0, 1.0, 4.0, 8.0],
                "category_id": 13,
                "id": 82446,
            },
        ],
        "categories": [
            {"supercategory": "person", "id": 1, "name": "person"},
            {"supercategory": "outdoor", "id": 13, "name": "stop sign"},
            {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
        ],
    }
    file = tmp_path / "annotations/instances_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    return tmp_path
