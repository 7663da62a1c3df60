"""Records as samples: letterboxed for validation, augmented for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment import Augmentation, View, augmented, shifted_window
from data.batch import Batch, Request, Sample
from data.image_record import ImageRecord
from data.letterbox import Letterbox, letterbox
from data.loader import BatchLoader, build_loader
from data.picture_store import CacheMode, PictureStore
from data.pictures import BrokenPicture
from data.tiling import crop_record
from utils.errors import UserError

__all__ = ["Batch", "BatchLoader", "DetectionDataset", "build_loader"]


class DetectionDataset(Dataset):
    """Records as samples of one input size.

    Args:
        records: the views, whole pictures or tiles.
        imgsz: side of the square input, pixels; with `rect`, its longer side.
        augmentation: None letterboxes the views as they are.
        stride: input sides are multiples of this.
        rect: batches of similar aspect ratio get the smallest input that holds them; not with augmentation.
        cache: keep decoded pictures in memory ("ram") or beside the pictures ("disk").
        seed: with epoch and index, it decides every random number of a sample.
        rect_pad: border that `rect` adds, in strides; YOLOv5 validates with 0.5.

    Raises:
        UserError: the size is no multiple of the stride.
        ValueError: no records, or `rect` with augmentation.
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        imgsz: int,
        augmentation: Augmentation | None = None,
        stride: int = 32,
        rect: bool = False,
        cache: CacheMode | None = None,
        seed: int = 0,
        rect_pad: float = 0.0,
    ) -> None:
        if not records:
            raise ValueError("a data set needs at least one record")
        if imgsz % stride:
            raise UserError(f"imgsz {imgsz} is not a multiple of the stride {stride}")
        if rect and augmentation is not None:
            raise ValueError("rect batches are for validation: they cannot be augmented")
        self.records = list(records)
        self.imgsz = imgsz
        self.augmentation = augmentation
        self.stride = stride
        self.rect = rect
        self.rect_pad = rect_pad
        self.seed = seed
        self.store = PictureStore(self.records, cache)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, request: Request | int) -> Sample | str:
        """Return the sample, or one line that says why its picture is left out."""
        if isinstance(request, int):
            request = Request(request)
        index, epoch, shape = request.index, request.epoch, request.shape
        try:
            if self.augmentation is None:
                return self._plain(index, shape or (self.imgsz, self.imgsz))
            return self._augmented(index, epoch, self.augmentation)
        except BrokenPicture as error:
            return str(error)

    def _plain(self, index: int, shape: tuple[int, int]) -> Sample:
        record = self.records[index]
        image, placed = letterbox(
            self.store.view(record), shape, scale=self.imgsz / max(record.width, record.height)
        )
        boxes = placed.to_network(_clipped(record)[~record.crowd])
        return Sample(_to_tensor(image), _labels(boxes, record.classes[~record.crowd], image), index, placed)

    def _augmented(self, index: int, epoch: int, augmentation: Augmentation) -> Sample:
        rng = np.random.default_rng((self.seed, epoch, index))
        problems: list[str] = []

        def other() -> View | None:
            try:
                return self._view(int(rng.integers(len(self.records))), augmentation, rng)
            except BrokenPicture as error:
                problems.append(str(error))
                return None

        first = self._view(index, augmentation, rng)
        image, boxes, classes = augmented(first, other, augmentation, self.imgsz, rng)
        side = self.imgsz
        placed = Letterbox(1.0, 0.0, 0.0, side, side)
        return Sample(_to_tensor(image), _labels(boxes, classes, image), index, placed, tuple(problems))

    def _view(self, index: int, augmentation: Augmentation, rng: np.random.Generator) -> View:
        """A record's pixels and training boxes; a tile is moved within its photograph if asked for."""
        record = self.records[index]
        if augmentation.tile_jitter and record.parent is not None:
            window = shifted_window(record, augmentation.tile_jitter, rng)
            record = crop_record(record.parent, window, record.min_area)
        return View(self.store.view(record), _clipped(record)[~record.crowd], record.classes[~record.crowd])


def _clipped(record: ImageRecord) -> np.ndarray:
    size = np.array([record.width, record.height, record.width, record.height], np.float32)
    return np.clip(record.boxes_xyxy, 0, size)


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))  # (3, H, W) RGB


def _labels(boxes_xyxy: np.ndarray, classes: np.ndarray, image: np.ndarray) -> Tensor:
    """(n, 4) pixels and (n,) -> (n, 5) class, cx, cy, w, h as fractions."""
    height, width = image.shape[:2]
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    columns = [classes[:, None], (low + high) / 2 / (width, height), (high - low) / (width, height)]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))
