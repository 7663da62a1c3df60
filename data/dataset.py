"""Records as samples: letterboxed for validation, augmented for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment import Augmentation, View, augmented, shifted_window
from data.batch import Request, Sample
from data.image_record import ImageRecord
from data.letterbox import Letterbox, letterbox
from data.picture_store import CacheMode, PictureStore
from data.pictures import BrokenPicture
from data.tiling import crop_record
from utils.errors import UserError


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
        view = _as_view(record, image)
        view = view._replace(
            boxes_xyxy=placed.to_network(view.boxes_xyxy), ignore_xyxy=placed.to_network(view.ignore_xyxy)
        )
        return _sample(view, index, placed)

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
        view = augmented(first, other, augmentation, self.imgsz, rng)
        side = self.imgsz
        placed = Letterbox(1.0, 0.0, 0.0, side, side)
        return _sample(view, index, placed, problems)

    def _view(self, index: int, augmentation: Augmentation, rng: np.random.Generator) -> View:
        """A record's pixels and training boxes; a tile is moved within its photograph if asked for."""
        record = self.records[index]
        if augmentation.tile_jitter and record.parent is not None:
            window = shifted_window(record, augmentation.tile_jitter, rng)
            record = crop_record(record.parent, window, record.min_area)
        return _as_view(record, self.store.view(record))


def validation_set(
    records: Sequence[ImageRecord],
    imgsz: int,
    stride: int = 32,
    rect: bool = True,
    cache: CacheMode | None = None,
) -> DetectionDataset:
    """Return plain views, as train.py and val.py evaluate them.

    Rect batches get YOLOv5's border of half a stride, but not around tiles, which go on beyond their edge.
    """
    tiled = any(record.window for record in records)
    return DetectionDataset(
        records, imgsz, stride=stride, rect=rect, cache=cache, rect_pad=0.5 if rect and not tiled else 0.0
    )


def _as_view(record: ImageRecord, image: np.ndarray) -> View:
    """A picture with the record's truth, clipped to the view; crowds are regions to ignore."""
    size = np.array([record.width, record.height, record.width, record.height], np.float32)
    boxes = np.clip(record.boxes_xyxy, 0, size)
    ignore = np.concatenate([boxes[record.crowd], np.clip(record.ignore, 0, size)])
    return View(image, boxes[~record.crowd], record.classes[~record.crowd], ignore)


def _sample(view: View, index: int, placed: Letterbox, problems: Sequence[str] = ()) -> Sample:
    height, width = view.image.shape[:2]
    boxes, ignores = (_fractions(boxes, width, height) for boxes in (view.boxes_xyxy, view.ignore_xyxy))
    labels = np.concatenate([view.classes[:, None], boxes], axis=1, dtype=np.float32)  # (n, 5)
    tensors = (_to_tensor(view.image), torch.from_numpy(labels), torch.from_numpy(ignores))
    return Sample(*tensors, index, placed, tuple(problems))


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))  # (3, H, W) RGB


def _fractions(boxes_xyxy: np.ndarray, width: int, height: int) -> np.ndarray:
    """(n, 4) pixels -> (n, 4) float32 cx, cy, w, h as fractions."""
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    columns = [(low + high) / 2 / (width, height), (high - low) / (width, height)]
    return np.concatenate(columns, axis=1).astype(np.float32)
