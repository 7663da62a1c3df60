"""What every client is tested on: the detector that ships as an ONNX file, and a part of an aerial image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filelock import FileLock

from engine.export import export
from engine.inference.detector import Detector

FULL_IMAGE = next(Path("data/samples/treecrowns/images/val").glob("*.jpg"))
# A tile that shrinks into the input, one that grows, and none: the image shrinks, with borders.
OPTIONS = [{"tile": 416}, {"tile": 200, "conf": 0.3, "overlap": 0.3}, {"tile": 0, "conf": 0.15, "iou": 0.3}]


@dataclass(frozen=True)
class Case:
    """A file, an image, and the boxes that detect.py finds with some options."""

    weights: Path
    image: Path
    expected: Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Case:
    base = tmp_path_factory.getbasetemp()
    folder = (
        base if worker_id == "master" else base.parent
    ) / "clients"  # shared: one export for all workers
    folder.mkdir(exist_ok=True)
    weights, image = folder / "best.onnx", folder / "forest.png"
    with FileLock(folder / "lock"):
        if not image.exists():
            shutil.copy("weights/treecrowns.pt", folder / "best.pt")
            assert export(folder / "best.pt") == [weights]
            cv2.imwrite(str(image), cv2.imread(str(FULL_IMAGE))[:450, 500:1100])
    detector = Detector(weights, device="cpu")

    def expected(**options: Any) -> np.ndarray:
        """As the command does with --tile-merge nms: (n, 6) x1, y1, x2, y2, confidence, class."""
        return detector(image, tile_merge="nms", **options)[0].boxes.data.numpy()

    return Case(weights, image, expected)


@pytest.fixture(params=OPTIONS, ids=lambda options: f"tile {options['tile']}")
def options(request: pytest.FixtureRequest) -> dict[str, float]:
    return request.param


def read_lines(text: str) -> np.ndarray:
    """What a client prints, class, confidence, x1, y1, x2, y2 -> (n, 6) x1, y1, x2, y2, confidence, class."""
    rows = np.array([line.split() for line in text.splitlines()], float).reshape(-1, 6)
    return rows[:, [2, 3, 4, 5, 1, 0]]


@pytest.fixture
def agree() -> Callable[..., None]:
    """Compare what a client prints with the boxes of detect.py: each has one, within 0.5 pixels and 0.001."""

    def check(printed: str, expected: np.ndarray, scores: float = 1e-3) -> None:
        boxes = read_lines(printed)
        assert len(boxes) == len(expected) > 5
        distances = np.abs(expected[:, None, :4] - boxes[:, :4]).max(-1)  # (n, n)
        nearest = distances.argmin(1)
        assert sorted(nearest) == list(range(len(boxes)))
        assert distances.min(1).max() < 0.5
        np.testing.assert_allclose(boxes[nearest, 4], expected[:, 4], atol=scores)
        assert (boxes[nearest, 5] == expected[:, 5]).all()
        assert (np.diff(boxes[:, 4]) <= 1e-4).all(), "best first"

    return check


@pytest.fixture
def flags() -> Callable[[dict[str, float]], list[str]]:
    return lambda options: [f"--{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="session")
def onnxruntime_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ONNX Runtime's library in lib/: the user's, or that of the Python package."""
    if "ONNXRUNTIME_ROOT" in os.environ:
        return Path(os.environ["ONNXRUNTIME_ROOT"])
    import onnxruntime

    root = tmp_path_factory.mktemp("onnxruntime")
    (root / "lib").mkdir()
    for library in (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"):
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            (root / "lib" / name).symlink_to(library)
    return root
