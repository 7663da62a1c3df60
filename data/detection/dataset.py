"""Records as samples: letterboxed for validation, augmented for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment.crops import random_crop, shifted_tile
from data.augment.device import PlannedSample, pieces_of
from data.augment.loaded_image import LoadedImage
from data.augment.plan import draw_plan
from data.augment.render import draw_pixels
from data.augment.settings import AugmentationSettings
from data.batch import Request, Sample
from data.detection.image_store import CacheMode, ImageStore
from data.image_record import ImageRecord
from data.letterbox import Interpolation, Letterbox, fit, framed
from data.media.image_files import ImageReadError
from data.tiling import Tiling, crop_record
from utils.errors import UserError

AugmentOn = Literal["cpu", "device"]


class DetectionDataset(Dataset[Any]):
    """Records as samples of one input size.

    Args:
        records: full images or tiles.
        imgsz: side of the square input, pixels; with `rect`, its longer side.
        augmentation: None letterboxes the images as they are.
        stride: input sides are multiples of this.
        rect: batches of similar aspect ratio get the smallest input that holds them; mosaics and quarter
            turns are off then.
        cache: keep decoded images in memory ("ram") or on disk ("disk"). Full images are kept shrunk to
            the input, and augmented from there; without augmentation a cache does not change a pixel.
        seed: decides, together with epoch and index, every random number of a sample.
        rect_pad: border that `rect` adds, in strides; YOLOv5 validates with 0.5.
        mosaic_until: from this epoch on, mosaics, blending and pasting are off; None: never.
        augment_on: "device" leaves the pixels to `data.augment.device.render`: samples are only planned.

        interpolation: of images that shrink; augmentation always averages.

    Raises:
        UserError: the size is no multiple of the stride.
        ValueError: no records.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        imgsz: int,
        augmentation: AugmentationSettings | None = None,
        stride: int = 32,
        rect: bool = False,
        cache: CacheMode | None = None,
        seed: int = 0,
        rect_pad: float = 0.0,
        mosaic_until: int | None = None,
        augment_on: AugmentOn = "cpu",
        interpolation: Interpolation = "area",
    ) -> None:
        if not records:
            raise ValueError("a data set needs at least one record")
        if imgsz % stride:
            raise UserError(f"imgsz {imgsz} is not a multiple of the stride {stride}")
        self.records = list(records)
        self.imgsz = imgsz
        self.augmentation = augmentation.for_rectangles() if augmentation and rect else augmentation
        self.stride = stride
        self.rect = rect
        self.rect_pad = rect_pad
        self.seed = seed
        self.mosaic_until = mosaic_until
        self.augment_on = augment_on
        crops = augmentation is not None and augmentation.crop > 0  # of the full images' own pixels
        self.interpolation: Interpolation = interpolation
        self.store = ImageStore(self.records, cache, None if crops else imgsz, interpolation)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def planned(self) -> bool:
        """Whether samples are planned ones, for `data.augment.device.render`."""
        return self.augmentation is not None and self.augment_on == "device"

    def __getitem__(self, request: Request | int) -> Sample | PlannedSample | str:
        """Return the sample, or one line that says why its image is left out."""
        if isinstance(request, int):
            request = Request(request)
        shape = request.shape or (self.imgsz, self.imgsz)
        try:
            if self.augmentation is None:
                return self._plain(request.index, shape)
            return self._augmented(request.index, request.epoch, shape, self.augmentation)
        except ImageReadError as error:
            return str(error)

    def _plain(self, index: int, shape: tuple[int, int]) -> Sample:
        record = self.records[index]
        scale = self.imgsz / max(record.width, record.height)
        placed, width, height = fit(record.width, record.height, shape, scale, math.ceil)
        image = framed(self.store.resized(record, width, height), placed, shape)
        boxes, classes, ignore = _annotations(record)
        labels, ignores = fractions(placed.to_network(boxes), classes, placed.to_network(ignore), shape)
        return Sample(_to_tensor(image), labels, ignores, index, placed)

    def _augmented(
        self, index: int, epoch: int, shape: tuple[int, int], augmentation: AugmentationSettings
    ) -> Sample | PlannedSample:
        rng = np.random.default_rng((self.seed, epoch, index))
        if self.mosaic_until is not None and epoch >= self.mosaic_until:
            augmentation = augmentation.without_mixing()
        problems: list[str] = []

        def other() -> LoadedImage | None:
            try:
                return self._load(int(rng.integers(len(self.records))), augmentation, shape, rng)
            except ImageReadError as error:
                problems.append(str(error))
                return None

        first = self._load(index, augmentation, shape, rng)
        plan = draw_plan(first, other, augmentation, shape, rng)
        placed = Letterbox(1.0, 0.0, 0.0, shape[1], shape[0])
        labels, ignores = fractions(*plan.annotations(), shape)
        if self.planned:
            return PlannedSample(pieces_of(plan), labels, ignores, index, placed, tuple(problems))
        return Sample(_to_tensor(draw_pixels(plan)), labels, ignores, index, placed, tuple(problems))

    def _load(
        self, index: int, augmentation: AugmentationSettings, shape: tuple[int, int], rng: np.random.Generator
    ) -> LoadedImage:
        """A record's pixels and training boxes; or those of a moved tile or of a random crop."""
        record = self.records[index]
        if record.parent is not None and augmentation.tile_jitter:
            tile = shifted_tile(record, augmentation.tile_jitter, rng)
            record = crop_record(record.parent, tile, record.min_area)
        elif _can_crop(record, shape) and augmentation.crop and rng.random() < augmentation.crop:
            record = crop_record(record, random_crop(record, shape, rng), Tiling.min_area)
        pixels = self.store.shrunk(record)
        factor = np.array([pixels.shape[1] / record.width, pixels.shape[0] / record.height] * 2, np.float32)
        boxes, classes, ignore = _annotations(record)
        return LoadedImage(pixels, boxes * factor, classes, ignore * factor)


def validation_set(
    records: Sequence[ImageRecord],
    imgsz: int,
    stride: int = 32,
    rect: bool = True,
    cache: CacheMode | None = None,
    interpolation: Interpolation = "area",
) -> DetectionDataset:
    """Return records without augmentation, as train.py and val.py evaluate them.

    Rect batches get YOLOv5's border of half a stride, but tiles do not: their images go on beyond the edge.
    """
    tiled = any(record.tile for record in records)
    return DetectionDataset(
        records,
        imgsz,
        stride=stride,
        rect=rect,
        cache=cache,
        rect_pad=0.5 if rect and not tiled else 0.0,
        interpolation=interpolation,
    )


def _can_crop(record: ImageRecord, shape: tuple[int, int]) -> bool:
    """Whether it is a full image, larger than the input."""
    return record.parent is None and (record.height > shape[0] or record.width > shape[1])


def _annotations(record: ImageRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes to train on, clipped to the image or tile, their classes, and regions to ignore with crowds."""
    size = np.array([record.width, record.height, record.width, record.height], np.float32)
    boxes = np.minimum(np.maximum(record.boxes_xyxy, 0), size)
    if not len(record.ignore) and not record.crowd.any():
        return boxes, record.classes, record.ignore
    ignore = np.concatenate([boxes[record.crowd], np.clip(record.ignore, 0, size)])
    return boxes[~record.crowd], record.classes[~record.crowd], ignore


def fractions(
    boxes_xyxy: np.ndarray, classes: np.ndarray, ignore_xyxy: np.ndarray, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Annotations in pixels of the input -> a sample's labels (n, 5) and ignores (k, 4)."""
    boxes, ignores = (_fractions(boxes, shape[1], shape[0]) for boxes in (boxes_xyxy, ignore_xyxy))
    labels = np.concatenate([classes[:, None], boxes], axis=1, dtype=np.float32)  # (n, 5)
    return torch.from_numpy(labels), torch.from_numpy(ignores)


def _to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) BGR -> (3, H, W) RGB."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, [planes[2], planes[1], planes[0]])  # half the time of a transposed copy
    return torch.from_numpy(planes)


def _fractions(boxes_xyxy: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 4) pixels -> (n, 4) float32 cx, cy, w, h as fractions."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    columns = [(low + high) / 2 / (width, height), (high - low) / (width, height)]
    return np.concatenate(columns, axis=1).astype(np.float32)
