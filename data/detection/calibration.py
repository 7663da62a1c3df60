"""Images of a data set for calibrating and evaluating an exported network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.dataset import DetectionDataset
from data.detection.loader import BatchLoader, build_loader
from data.detection.records import read_records
from data.image_record import ImageRecord
from data.tiling import tile_records
from utils.errors import UserError


def calibration_batches(data: Path, imgsz: tuple[int, int], batch_size: int, count: int) -> Iterator[Tensor]:
    """Yield full batches (B, 3, H, W) in 0..1 of `count` training images or tiles, spread evenly.

    Where images are missing for a full batch, its others are repeated: a graph may take no other size, and
    repetitions do not change the ranges.

    Raises:
        UserError: there are no training images, or the input is not square.
    """
    records = _records(read_dataset_yaml(data), "train")
    chosen = [records[i] for i in np.unique(np.linspace(0, len(records) - 1, count).astype(int))]
    for batch in build_loader(_dataset(chosen, imgsz), batch_size, shuffle=False, workers=0):
        repeated = np.resize(np.arange(len(batch.images)), batch_size)
        yield batch.images[repeated].float() / 255


def validation_loader(data: Path, imgsz: tuple[int, int], stride: int, batch_size: int = 8) -> BatchLoader:
    """Return the validation images or tiles at the input's size.

    Raises:
        UserError: there are none, or the input is not square.
    """
    records = _records(read_dataset_yaml(data), "val")
    return build_loader(_dataset(records, imgsz, stride), batch_size, shuffle=False, workers=0)


def _records(description: DatasetConfig, split: str) -> list[ImageRecord]:
    records, _ = read_records(description, split)
    if not records:
        raise UserError(f"{description.file}: no images in '{split}'")
    return tile_records(records, description.tile) if description.tile else records


def _dataset(records: list[ImageRecord], imgsz: tuple[int, int], stride: int = 32) -> DetectionDataset:
    if imgsz[0] != imgsz[1]:
        raise UserError(f"--int8 needs a square input, not {imgsz[0]}x{imgsz[1]}")
    return DetectionDataset(records, imgsz[0], stride=stride)
