"""Classification in Python: `Classifier("best.pt")("digit.png")`; importing it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ClassProbabilities:
    """The most probable classes of an image.

    Attributes:
        where: path of the image or video, or its place in a list.
        names: the classes, most probable first.
        probabilities: of these, 0 to 1.
    """

    where: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


class Classifier:
    """A classifier from its file.

    Args:
        weights: .pt, or an export of any format, a file or folder; several are an ensemble.
        device: "cpu", "0", "cuda:1", "mps"; "" takes the best there is.
        imgsz: side of the input, pixels; None is as trained.
        half: 16-bit inference on a GPU.

    Attributes:
        names: the classes.

    Raises:
        UserError: the weights cannot be used.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path],
        device: str = "",
        imgsz: int | None = None,
        half: bool = False,
    ):
        from engine.inference.classification.pipeline import input_transform
        from engine.runtimes import load_predictor
        from utils.device import select_device

        self.predictor = load_predictor(weights, select_device(device), half=half, task="classify")
        self.names = list(self.predictor.names)
        self.transform = input_transform(self.predictor, imgsz)

    def __call__(self, source: Any, batch_size: int = 8, vid_stride: int = 1) -> list[ClassProbabilities]:
        """Classify everything at once; `source` is what `Detector` takes."""
        return list(self.stream(source, batch_size, vid_stride))

    def stream(self, source: Any, batch_size: int = 8, vid_stride: int = 1) -> Iterator[ClassProbabilities]:
        """Classify frame by frame, so that memory stays flat over a long video.

        Args:
            source: what `Detector` takes.
            batch_size: images or frames at a time.
            vid_stride: use every n-th frame of a video.

        Raises:
            UserError: the source cannot be read.
        """
        from engine.inference.classification.pipeline import classify_frames
        from engine.inference.detector import open_any

        opened = open_any(source, vid_stride)
        with closing(classify_frames(opened, self.predictor, self.transform, batch_size)) as results:
            for frame, best in results:
                names = tuple(self.names[k] for k, _ in best)
                yield ClassProbabilities(frame.where, names, tuple(probability for _, probability in best))
