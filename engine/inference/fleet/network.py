"""The network of an actor: inputs in, boxes out, whatever image they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.inference.fleet.tiles import END, detected_schema, letterbox_of
from engine.inference.settings import DetectSettings

if TYPE_CHECKING:
    from engine.runtimes import Predictor


@dataclass(frozen=True)
class LoadNetwork:
    """Loads a predictor where it is needed: in the driver to check it, and in every actor.

    Attributes:
        weights: files that every machine can read.
        device: of the actor.
        half: compute in 16 bits.
        names: the classes, for files that do not name them.
        augment: detect on scaled and mirrored copies as well.
        single_class: treat all classes as one.
    """

    weights: Sequence[Path]
    device: str = "cpu"
    half: bool = False
    names: Sequence[str] | None = None
    augment: bool = False
    single_class: bool = False

    def __call__(self) -> Predictor:
        """Return the predictor.

        Raises:
            UserError: the weights cannot be used.
        """
        from engine.inference.test_time_augmentation import TestTimeAugmentation
        from engine.runtimes import OneClass, load_predictor
        from utils.device import select_device

        device = select_device(self.device)
        predictor = load_predictor(self.weights, device, half=self.half, names=self.names)
        if self.augment:
            predictor = TestTimeAugmentation(predictor)
        return OneClass(predictor) if self.single_class else predictor


class Network:
    """One predictor and NMS; Ray makes one in each actor.

    Args:
        load: makes the predictor.
        settings: how to detect.
    """

    def __init__(self, load: Callable[[], Predictor], settings: DetectSettings):
        self.predictor, self.settings = load(), settings

    def __call__(self, tiles: Any) -> Any:
        """Return what was detected on a table of tiles; those of equal shape share batches."""
        import pyarrow as pa

        boxes: list[bytes | None] = [None] * len(tiles)
        shapes: dict[tuple[int, int], list[int]] = {}
        number, height, width = (tiles[key].to_pylist() for key in ("tile", "input_height", "input_width"))
        for row in range(len(tiles)):
            if number[row] != END:
                shapes.setdefault((height[row], width[row]), []).append(row)
        size = self.settings.batch_size
        for shape, rows in shapes.items():
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                for row, detected in zip(batch, self._detect(tiles, batch, shape), strict=True):
                    boxes[row] = detected.tobytes()
        kept = tiles.select(detected_schema().names[:-1])
        return kept.append_column("boxes", pa.array(boxes, pa.binary())).cast(detected_schema())

    def _detect(self, tiles: Any, rows: Sequence[int], shape: tuple[int, int]) -> list[np.ndarray]:
        """Return (n, 6) float32 boxes in pixels of each tile."""
        import torch

        from engine.inference.pipeline import suppress

        pixels = np.empty((len(rows), *shape, 3), np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = np.frombuffer(tiles["pixels"][row].as_buffer(), np.uint8).reshape(*shape, 3)
        images = torch.from_numpy(pixels).to(self.predictor.device).permute(0, 3, 1, 2).float().div_(255)
        kept = suppress(self.predictor(images), self.settings)
        placed = [letterbox_of(tiles["placed"][row].as_py()) for row in rows]
        return [
            box.to_image(one.cpu().numpy()).astype(np.float32) for box, one in zip(placed, kept, strict=True)
        ]
