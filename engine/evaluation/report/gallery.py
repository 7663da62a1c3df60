"""Crops with context: small objects that were missed, and false detections of high confidence."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.analysis import Analysis
from engine.evaluation.metrics.errors import BACKGROUND_IOU, IGNORED, KINDS, RIGHT
from utils.overlap import iou_matrix

SMALL = 32.0  # √area, px, below which an object is small
PER_IMAGE = 3  # most crops of one image, if there are enough images
CONTEXT, LEAST = 4.0, 64  # side of a crop: a multiple of the box's, but at least so many pixels
SHOWN = 192  # side of a crop as it is shown, px
GROUND_TRUTH, DETECTION = (80, 200, 60), (0, 140, 255)  # BGR: green and orange
GRAY = (114, 114, 114)

ReadImage = Callable[
    [Path], NDArray[Any]
]  # path -> (H, W, 3) uint8 BGR; OSError or ValueError where it cannot be read


@dataclass(frozen=True)
class Subject:
    """The box of an image that a crop is about."""

    image: int  # number of the image
    box_xyxy: NDArray[Any]
    is_ground_truth: bool
    caption: str


@dataclass(frozen=True)
class Crop:
    """An image as a data URI, and what it shows."""

    uri: str
    caption: str
    source: str


def missed_small(analysis: Analysis, most: int) -> list[Subject]:
    """Return small objects not detected at the working confidence, those without any detection nearby first.

    Of equals the larger ones come first: they are the hardest to excuse.
    """
    ground_truth, names = analysis.scored.ground_truth, analysis.scored.metrics.names
    lost = np.flatnonzero(~analysis.errors.detected & ~ground_truth.crowd & (ground_truth.areas < SMALL**2))
    near = _best_near(analysis, lost)
    subjects = []
    for i in np.lexsort((-ground_truth.areas[lost], near)):
        k = lost[i]
        nearby = f"best nearby {near[i]:.2f}" if near[i] > 0 else "nothing nearby"
        caption = f"{names[ground_truth.classes[k]]}, {ground_truth.areas[k] ** 0.5:.0f} px: {nearby}"
        subjects.append(Subject(int(ground_truth.image[k]), ground_truth.boxes_xyxy[k], True, caption))
    return _spread(subjects, most)


def confident_mistakes(analysis: Analysis, most: int) -> list[Subject]:
    """Return the most confident false detections."""
    working, errors, names = analysis.working, analysis.errors, analysis.scored.metrics.names
    wrong = np.flatnonzero((errors.kind != RIGHT) & (errors.kind != IGNORED))
    subjects = []
    for i in wrong[np.argsort(-working.scores[wrong], kind="stable")]:
        box = working.boxes_xyxy[i]
        side = (box[2:] - box[:2]).prod() ** 0.5
        name = names[working.classes[i]]
        caption = f"{name} {working.scores[i]:.2f}, {side:.0f} px: {KINDS[int(errors.kind[i])]}"
        subjects.append(Subject(int(working.image[i]), box, False, caption))
    return _spread(subjects, most)


def _best_near(analysis: Analysis, objects: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) best confidence of the detections of the class whose IoU with each object is at least .1."""
    ground_truth, detections = analysis.scored.ground_truth, analysis.scored.detections
    best = np.zeros(len(objects))
    order = np.argsort(detections.image, kind="stable")
    image = detections.image[order]
    for number in np.unique(ground_truth.image[objects]):
        mine = np.flatnonzero(ground_truth.image[objects] == number)
        rows = order[slice(*np.searchsorted(image, [number, number + 1]))]
        near = (
            iou_matrix(ground_truth.boxes_xyxy[objects[mine]], detections.boxes_xyxy[rows]) >= BACKGROUND_IOU
        )
        near &= ground_truth.classes[objects[mine], None] == detections.classes[rows]
        best[mine] = np.where(near, detections.scores[rows], 0.0).max(1, initial=0.0)
    return best


def _spread(subjects: Sequence[Subject], most: int) -> list[Subject]:
    """Return the first `most`, but only a few of each image."""
    images = len({subject.image for subject in subjects})
    limit = max(PER_IMAGE, -(-most // max(images, 1)))
    taken: dict[int, int] = {}
    chosen: list[Subject] = []
    for subject in subjects:
        if len(chosen) == most:
            break
        taken[subject.image] = taken.get(subject.image, 0) + 1
        if taken[subject.image] <= limit:
            chosen.append(subject)
    return chosen


def crops(analysis: Analysis, subjects: Sequence[Subject], read_image: ReadImage) -> list[Crop]:
    """Cut out the subjects, in their order; images that cannot be read are left out."""
    cut: dict[int, Crop] = {}
    for image in sorted({subject.image for subject in subjects}):
        path = Path(analysis.scored.records[image].path)
        try:
            pixels = read_image(path)
        except (OSError, ValueError):
            continue
        ground_truth = analysis.scored.ground_truth.boxes_xyxy[analysis.scored.ground_truth.image == image]
        detected = analysis.working.boxes_xyxy[analysis.working.image == image]
        for place, subject in enumerate(subjects):
            if subject.image == image:
                cut[place] = Crop(
                    _jpeg_uri(_cut_out(pixels, subject, ground_truth, detected)), subject.caption, path.name
                )
    return [cut[place] for place in sorted(cut)]


def _cut_out(
    pixels: NDArray[Any], subject: Subject, ground_truth: NDArray[Any], detected: NDArray[Any]
) -> NDArray[Any]:
    """(H, W, 3) -> (SHOWN, SHOWN, 3) around the subject, with all boxes there."""
    import cv2

    box = subject.box_xyxy
    side = int(np.ceil(max(CONTEXT * (box[2:] - box[:2]).max(), LEAST)))
    corner = np.round((box[:2] + box[2:] - side) / 2).astype(int)
    zoom = SHOWN / side
    size = np.array(pixels.shape[1::-1])
    low, high = np.clip(corner, 0, size), np.clip(corner + side, 0, size)
    crop = np.full((SHOWN, SHOWN, 3), GRAY, np.uint8)
    if (high > low).all():  # only what is in the image is scaled: the crop may be far larger than the image
        start = np.minimum(((low - corner) * zoom).astype(int), SHOWN - 1)
        end = np.clip(np.round((high - corner) * zoom).astype(int), start + 1, SHOWN)
        inside = pixels[low[1] : high[1], low[0] : high[0]]
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        (x0, y0), (x1, y1) = start.tolist(), end.tolist()
        crop[y0:y1, x0:x1] = cv2.resize(inside, (x1 - x0, y1 - y0), interpolation=how)
    for boxes, color, is_ground_truth in ((ground_truth, GROUND_TRUTH, True), (detected, DETECTION, False)):
        for corners in boxes:
            ends = np.round((corners.reshape(2, 2) - corner) * zoom).astype(int).tolist()
            same = is_ground_truth == subject.is_ground_truth and np.array_equal(corners, box)
            cv2.rectangle(crop, ends[0], ends[1], color, 3 if same else 1)
    return crop


def _jpeg_uri(pixels: NDArray[Any]) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
