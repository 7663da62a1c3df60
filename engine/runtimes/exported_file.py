"""What the runtimes of exported files have in common: batches, sizes, and outputs after NMS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.runtimes.metadata import Metadata
from utils.errors import UserError
from utils.limits import INPUT_SIDE, INPUT_VALUES
from utils.reading import check_regular, guarded

T = TypeVar("T")


class ByThreads(Generic[T]):
    """What runs a file with a number of threads that it was opened with, for every number that callers have.

    The caller's number is PyTorch's, which each thread of Python has its own of.

    Args:
        make: opens the file to run with so many threads.
    """

    def __init__(self, make: Callable[[int], T]):
        self._make, self._made, self._lock = make, dict[int, T](), threading.Lock()

    def get(self) -> T:
        """Return the one with the caller's number of threads."""
        count = torch.get_num_threads()
        with self._lock:
            if count not in self._made:
                self._made[count] = self._make(count)
            return self._made[count]


class FilePredictor:
    """An exported file; see `engine.runtimes.Predictor`.

    Where the file fixes the batch, other batches are cut and filled to fit. A file with NMS inside returns
    rows (B, K, 6) of x1, y1, x2, y2, confidence, class; they are turned back into decoded rows, which a
    further NMS leaves as they are.

    Args:
        file: for messages.
        run: (B, 3, H, W) float32 -> what the file returns, on the device.
        metadata: what the file says of itself.
        device: where the output is.
        batch: the only batch size it takes; None takes any.
        imgsz: the only height and width it takes, pixels; None takes any.
    """

    def __init__(
        self,
        file: Path,
        run: Callable[[Tensor], Tensor],
        metadata: Metadata,
        device: torch.device,
        batch: int | None,
        imgsz: tuple[int, int] | None,
    ):
        sides = imgsz or (1, 1)
        if min(*sides, batch or 1) < 1:
            raise UserError(f"{file}: takes {batch} images of {sides}: no size of an image")
        INPUT_SIDE.check(max(sides), file)
        INPUT_VALUES.check(3 * sides[0] * sides[1] * (batch or 1), file)
        self.file, self.run, self.device, self.batch, self.imgsz = file, run, device, batch, imgsz
        self.names, self.stride, self.task = metadata.names, metadata.stride, metadata.task
        self.config: dict[str, Any] = metadata.config
        self.nms = metadata.nms

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in 0..1 -> (B, N, 5 + classes), or logits (B, classes), float32.

        Raises:
            ValueError: another height or width than the file takes.
            UserError: it fails, or returns something else.
        """
        shape = (images.shape[2], images.shape[3])
        if self.imgsz not in (None, shape):
            raise ValueError(f"this file takes images of {self.imgsz}, height and width, not {shape}")
        images = images.detach().float()
        with guarded(self.file, "a network"):
            parts = [self._run(part) for part in images.split(self.batch or max(len(images), 1))]
            output = torch.cat(parts).float().to(self.device)
        self._check(output, len(images))
        return decoded_rows(output, len(self.names)) if self.nms else output

    def _check(self, output: Tensor, images: int) -> None:
        """Refuse an output of another shape than the metadata say."""
        columns = 6 if self.nms else len(self.names) + (0 if self.task == "classify" else 5)
        dimensions = 2 if self.task == "classify" else 3
        if output.dim() != dimensions or len(output) != images or output.shape[-1] != columns:
            shape = tuple(output.shape)
            raise UserError(f"{self.file}: returns {shape} for {images} images of {len(self.names)} classes")
        if self.nms and not bool(((output[..., 5] >= 0) & (output[..., 5] < len(self.names))).all()):
            raise UserError(f"{self.file}: returns a class that is none of its {len(self.names)}")

    def _run(self, images: Tensor) -> Tensor:
        missing = (self.batch or len(images)) - len(images)
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else images
        return self.run(filled.contiguous())[: len(images)]


def decoded_rows(rows: Tensor, classes: int) -> Tensor:
    """(B, K, 6) x1, y1, x2, y2, confidence, class -> (B, K, 5 + classes) cx, cy, w, h, objectness, scores."""
    low, high = rows[..., :2], rows[..., 2:4]
    scores = F.one_hot(rows[..., 5].long(), classes).to(rows.dtype)
    return torch.cat(((low + high) / 2, high - low, rows[..., 4:5], scores), -1)


def read_metadata(
    strings: Mapping[str, str], names: Sequence[str] | None, columns: int | None, file: Path
) -> Metadata:
    """Return what a file says of itself; where it names no classes, `names` do.

    Args:
        strings: the metadata in the file.
        names: the classes that the user gives.
        columns: how many numbers a row of the output has, None where the file does not fix it.
        file: for messages.

    Raises:
        UserError: nobody names the classes, or more or fewer of them than there are.
    """
    if names is not None and "names" not in strings:
        metadata = Metadata.from_strings(
            {"stride": "32", **strings, "names": json.dumps(list(names))}, str(file)
        )
    else:
        metadata = Metadata.from_strings(strings, str(file))
    besides = 0 if metadata.task == "classify" else 5
    if columns is not None and not metadata.nms and columns != besides + len(metadata.names):
        classes = columns - besides
        raise UserError(f"{file}: the graph has {classes} classes, but {len(metadata.names)} are named")
    return metadata


def output_dimensions(task: str) -> int:
    """Return how many dimensions the output of a file has whose metadata say this `task`, a JSON text."""
    return 2 if task.strip('"') == "classify" else 3


def check_file(file: Path, half: bool) -> None:
    """Check what all exported files have in common.

    Raises:
        UserError: no such file, or it is asked for `half`.
    """
    if not file.exists():
        made = "python export.py --weights best.pt --include onnx openvino ncnn"
        raise UserError(f"no such weights: {file}; exports are made with: {made}")
    check_regular(file, "a network")
    if half:
        raise UserError(f"{file}: an exported file computes as it was exported; leave out --half")
