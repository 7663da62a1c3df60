"""From frames to their most probable classes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
import torch

from data.classification.transform import InputTransform
from data.media.frame import Frame
from data.media.large_image import LARGE, overview
from data.media.sources import Source
from engine.inference.sizes import square_side
from engine.runtimes import Predictor
from utils.prefetch import prefetch

SHOWN = 5  # classes
Best = list[tuple[int, float]]  # class and probability, most probable first


def input_transform(predictor: Predictor, imgsz: int | None) -> InputTransform:
    """Return how an image becomes an input, as in training.

    Raises:
        UserError: the size does not fit the weights.
    """
    side = square_side(imgsz, predictor)
    resized = predictor.config.get("resize")
    return InputTransform(min(resized, side) if isinstance(resized, int) else side, side)


def classify_frames(
    source: Source, predictor: Predictor, transform: InputTransform, batch_size: int
) -> Generator[tuple[Frame, Best], None, None]:
    """Prefetch frames, run the network on batches and yield each frame with its classes."""
    with closing(prefetch(source)) as frames:
        while batch := list(islice(frames, batch_size)):
            yield from zip(batch, _best(batch, predictor, transform), strict=True)


def _best(frames: list[Frame], predictor: Predictor, transform: InputTransform) -> list[Best]:
    """Return the most probable classes of each frame."""
    inputs = [cv2.cvtColor(transform(_pixels(frame, transform)), cv2.COLOR_BGR2RGB) for frame in frames]
    images = torch.from_numpy(np.stack(inputs)).to(predictor.device).permute(0, 3, 1, 2).float() / 255
    probabilities, classes = predictor(images).float().softmax(1).cpu().sort(1, descending=True)
    return [
        list(zip(k[:SHOWN], p[:SHOWN], strict=True))
        for k, p in zip(classes.tolist(), probabilities.tolist(), strict=True)
    ]


def _pixels(frame: Frame, transform: InputTransform) -> np.ndarray:
    """(H, W, 3) uint8 BGR; of an image that is read in parts its central square, or an overview."""
    if isinstance(frame.image, np.ndarray):
        return frame.image
    height, width = frame.image.shape[:2]
    square = min(height, width)
    if square**2 <= LARGE:
        top, left = (height - square) // 2, (width - square) // 2
        return frame.image[top : top + square, left : left + square]
    side = max(4 * transform.resize * max(height, width) // min(height, width), 64)
    return overview(frame.image, side)[0]
