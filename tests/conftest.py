"""Shared set-up: the torch threads of a test process, and where golden values lie."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from tests.dataset_fixtures import coco_root, yolo_set  # noqa: F401  (fixtures)
from tests.rectangles import RectangleFinder
from utils.log import setup_logging

if "OMP_NUM_THREADS" not in os.environ:  # else as many as it says, which torch itself reads
    torch.set_num_threads(1)
os.environ.setdefault(
    "OPENCV_FFMPEG_LOGLEVEL", "-8"
)  # read once, when a process first opens or writes a video


@pytest.fixture(scope="session", autouse=True)
def console() -> None:
    """Messages are seen by tests as users see them."""
    setup_logging()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test draws the same numbers, whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture
def finder(monkeypatch) -> RectangleFinder:
    """The network that every command loads instead of its weights."""
    network = RectangleFinder()
    monkeypatch.setattr("engine.runtimes.load_predictor", lambda *args, **options: network)
    return network


@pytest.fixture
def offline(monkeypatch):
    """The network cannot be used."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four gray images with one bright and one dark square each."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
    for number in range(4):
        image = np.full((64, 64, 3), 120, np.uint8)
        rows = []
        for category, value in enumerate((255, 0)):
            x, y = rng.integers(4 + 30 * category, 12 + 30 * category), rng.integers(4, 44)
            image[y : y + 16, x : x + 16] = value
            rows.append(f"{category} {(x + 8) / 64} {(y + 8) / 64} 0.25 0.25")
        for split in ("train", "val"):
            cv2.imwrite(str(root / "images" / split / f"{number}.png"), image)
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(rows))
    description = {
        "path": str(root),
        "train": "images/train",
        "val": "images/val",
        "names": ["light", "dark"],
    }
    (root / "squares.yaml").write_text(yaml.safe_dump(description))
    hyp = {
        "optimizer": "AdamW", "lr0": 0.003, "nominal_batch": 4, "warmup_epochs": 0.0, "warmup_iterations": 0,
        "ema_decay": 0.5, "ema_tau": 1.0, "mosaic": 0.0, "scale": 0.0, "translate": 0.0, "fliplr": 0.5,
        "warmup_bias_lr": 0.003,
    }  # fmt: skip
    (root / "hyp.yaml").write_text(yaml.safe_dump(hyp))
    return root
