"""What tests of detection share: a stand-in network that finds rectangles, images and videos of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.inference import command as detect
from engine.inference.config import DetectConfig

NAMES = ["white", "re/d"]


class RectangleFinder:
    """Finds white (class 0) and red (class 1) rectangles, exactly."""

    stride, imgsz, task = 32, None, "detect"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.names, self.config, self.shapes = list(NAMES), {"imgsz": 320}, []

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        boxes_of = [self._boxes(image) for image in (images.numpy() > 0.7)]
        output = torch.zeros(len(images), max(map(len, boxes_of)) + 1, 7)
        for i, boxes in enumerate(boxes_of):
            for j, (x, y, w, h, index) in enumerate(boxes):
                output[i, j] = torch.tensor([x + w / 2, y + h / 2, w, h, 0.9, index == 0, index == 1])
        return output

    @staticmethod
    def _boxes(bright: np.ndarray) -> list[list[float]]:
        red, green, blue = bright
        boxes = []
        for index, mask in enumerate((red & green & blue, red & ~green & ~blue)):
            stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:]
            boxes += [[*map(float, row[:4]), index] for row in stats if row[4] > 20]
        return boxes


def draw_image(*boxes, size=(240, 320), color=(255, 255, 255)) -> np.ndarray:
    image = np.full((*size, 3), 60, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = color
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def save_video(path: Path, frames: int = 7, fps: float = 12.5) -> Path:
    """A white square that goes 10 pixels to the right each frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (320, 240))
    for i in range(frames):
        writer.write(draw_image((40 + 10 * i, 60, 70 + 10 * i, 90)))
    writer.release()
    return path


def read_video(path: Path) -> tuple[float, list[np.ndarray]]:
    capture, frames = cv2.VideoCapture(str(path)), []
    fps = capture.get(cv2.CAP_PROP_FPS)
    while (read := capture.read())[0]:
        frames.append(read[1])
    return fps, frames


def run(source, tmp_path, **options) -> tuple[int, Path]:
    options = {"weights": (Path("stub.pt"),), "project": tmp_path / "runs", "device": "cpu"} | options
    return detect.main(DetectConfig.of(source=(str(source),), **options)), tmp_path / "runs" / "exp"
