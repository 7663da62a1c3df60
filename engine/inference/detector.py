"""Detection in Python: `Detector("best.pt")("street.jpg")`; importing it costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ultralytics.engine.results import Results

    from data.media.sources import Source
    from engine.inference.pipeline import DetectSettings


class Detector:
    """A detector from its file; may be called from several threads at once.

    Args:
        weights: .pt, .onnx, .torchscript or OpenVINO .xml; several are an ensemble.
        device: "cpu", "0", "cuda:1", "mps"; "" takes the best there is.
        half: 16-bit inference on a GPU.
        names: the classes, for a file that does not name them.

    Attributes:
        names: the classes.

    Raises:
        UserError: the weights cannot be used.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path],
        device: str = "",
        half: bool = False,
        names: Sequence[str] | None = None,
    ):
        from engine.runtimes import load_predictor
        from utils.device import select_device

        self.predictor = load_predictor(weights, select_device(device), half=half, names=names)
        self.names = list(self.predictor.names)

    def __call__(self, source: Any, **options: Any) -> list[Results]:
        """Detect on everything at once; `stream` says what `source` and the options may be.

        Returns:
            Ultralytics' Results, one for each image or frame, in order.
        """
        return list(self.stream(source, **options))

    def stream(
        self,
        source: Any,
        conf: float = 0.25,
        iou: float = 0.45,
        imgsz: int | Sequence[int] | None = None,
        tile: int | Literal["auto"] | None = None,
        overlap: float = 0.2,
        tile_whole: bool = False,
        classes: Sequence[int] | None = None,
        max_det: int = 1000,
        agnostic: bool = False,
        batch_size: int | None = None,
        vid_stride: int = 1,
        track: Literal["bytetrack", "botsort"] | None = None,
        interpolation: Literal["area", "linear"] | None = None,
    ) -> Iterator[Results]:
        """Detect frame by frame, so that memory stays flat over a long video.

        Args:
            source: a path, glob, list of paths, camera number or URL, as `detect.py --source` takes; or a
                NumPy array (H, W[, 3 BGR]), a Pillow image, or a list of these.
            conf: smallest confidence.
            iou: the largest IoU of two boxes of a class.
            imgsz: input side, or height and width, pixels; None is as trained.
            tile: side of a tile, pixels; 0 for full images, "auto"; None is as trained.
            overlap: share of its side that a tile has in common with the next.
            tile_whole: look at the full image as well.
            classes: keep these only.
            max_det: objects kept in an image.
            agnostic: let boxes of different classes suppress each other.
            batch_size: images, frames or tiles at a time; None is 8, of streams 1.
            vid_stride: look at every n-th frame of a video.
            track: follow objects through a video; their numbers are `results.boxes.id`.
            interpolation: of images that shrink into the input; None is as in the weights' training.

        Raises:
            UserError: the source cannot be read, or an option does not fit.
        """
        from engine.inference.pipeline import DetectSettings
        from engine.inference.sizes import input_size, interpolation_for, tiling_for

        opened = _open(source, vid_stride)
        wanted = (imgsz,) if isinstance(imgsz, int) else imgsz
        size = input_size(wanted, self.predictor)
        tiling, tile_from = tiling_for(tile, overlap, self.predictor, size)
        settings = DetectSettings(
            imgsz=size,
            conf_thres=min(conf, 0.1) if track else conf,
            iou_thres=iou,
            max_det=max_det,
            classes=classes,
            agnostic=agnostic,
            tiling=tiling,
            tile_from=tile_from,
            whole=tile_whole,
            batch_size=batch_size or (1 if opened.count is None else 8),
            interpolation=interpolation_for(self.predictor, interpolation, validation=False),
        )
        return self._results(opened, settings, track, conf)

    def _results(
        self,
        source: Source,
        settings: DetectSettings,
        track: Literal["bytetrack", "botsort"] | None,
        conf: float,
    ) -> Iterator[Results]:
        from contextlib import closing

        from data.media.large_image import overview
        from engine.inference.outputs.result import DRAWN_SIDE
        from engine.inference.pipeline import detect_images
        from engine.inference.tracking import Tracking
        from utils.ultralytics_adapter import make_results

        follow = Tracking(track, conf) if track else None
        with closing(
            detect_images(self.predictor, source, settings, report=source.leave_out)
        ) as found_frames:
            for found in found_frames:
                frame = found.item
                detections = follow(frame, found.detections) if follow else found.detections
                image, scale = overview(frame.image, DRAWN_SIDE)
                if scale != 1:
                    detections = detections.scaled(scale)
                stages = found.stages
                times = {
                    "preprocess": stages.pre * 1e3,
                    "inference": stages.inference * 1e3,
                    "postprocess": stages.post * 1e3,
                }
                yield make_results(image, frame.where, self.names, detections, times)


def _open(source: Any, vid_stride: int) -> Source:
    from data.media.arrays import Arrays, is_in_memory
    from data.media.sources import open_source

    if is_in_memory(source):
        return Arrays(source if isinstance(source, list | tuple) else [source])
    if isinstance(source, int):
        source = str(source)
    return open_source(source, vid_stride, lambda line: print(f"left out: {line}", file=sys.stderr))
