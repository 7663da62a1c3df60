"""Detection in Python: `Detector("best.pt")("street.jpg")`; importing it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.inference.config import DetectConfig, DrawOptions
from engine.options import DeviceOptions, FleetOptions, LabelOptions, RunOptions
from utils.errors import UserError, suggest
from utils.log import LogOptions
from utils.options import options_of

if TYPE_CHECKING:
    from ultralytics.engine.results import Results

    from data.media.sources import Source
    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor

# What detect.py has and Python has other means for: groups of options, and single ones.
OUTPUT_GROUPS = (LabelOptions, DrawOptions, DeviceOptions, FleetOptions, RunOptions, LogOptions)
OUTPUT_OPTIONS = ("weights", "source", "data", "save_csv", "save_crop", "heatmap", "resume")


class Detector:
    """A detector from its file; may be called from several threads at once.

    Args:
        weights: .pt, or an export of any format, a file or folder; several are an ensemble.
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
            Ultralytics' Results, one per image or frame, in order.
        """
        return list(self.stream(source, **options))

    def stream(self, source: Any, **options: Any) -> Iterator[Results]:
        """Detect frame by frame, so that memory stays flat over a long video.

        Args:
            source: a path, glob, list of paths, camera number or URL, as `detect.py --source` takes; or a
                NumPy array (H, W[, 3 BGR]), a Pillow image, or a list of these.
            options: those of detect.py, by the same names: `conf_thres` (or `conf`), `iou_thres` (`iou`),
                `max_det`, `classes`, `agnostic_nms`, `imgsz`, `tile`, `overlap`, `tile_whole`, `tile_merge`,
                `tile_metric`, `tile_thres`, `interpolation`, `augment`, `batch_size`, `vid_stride` and
                `track`, whose track ids are `results.boxes.id`.

        Returns:
            Ultralytics' Results, one per image or frame, in order.

        Raises:
            UserError: the source cannot be read, or an option is unknown or does not fit.
        """
        from engine.inference.settings import make_settings
        from engine.inference.test_time_augmentation import TestTimeAugmentation

        cfg = detect_options(options)
        opened = open_any(source, cfg.vid_stride)
        settings = make_settings(self.predictor, cfg, live=opened.live)
        predictor = TestTimeAugmentation(self.predictor) if cfg.augment else self.predictor
        return self._results(predictor, opened, settings, cfg)

    def _results(
        self, predictor: Predictor, source: Source, settings: DetectSettings, cfg: DetectConfig
    ) -> Iterator[Results]:
        from data.media.large_image import overview
        from engine.inference.outputs.result import DRAWN_SIDE
        from engine.inference.pipeline import detect_images
        from engine.inference.tracking import Tracking
        from utils.ultralytics_adapter import import_before_threads, make_results

        import_before_threads()
        track = Tracking(cfg.track, cfg.suppression.conf_thres) if cfg.track else None
        with closing(detect_images(predictor, source, settings, report=source.leave_out)) as results:
            for result in results:
                frame, stages = result.item, result.stages
                detections = track(frame, result.detections) if track else result.detections
                image, scale = overview(frame.image, DRAWN_SIDE)
                if scale != 1:
                    detections = detections.scaled(scale)
                times = {
                    "preprocess": stages.pre * 1e3,
                    "inference": stages.inference * 1e3,
                    "postprocess": stages.post * 1e3,
                }
                yield make_results(image, frame.where, self.names, detections, times)


def detect_options(options: dict[str, Any]) -> DetectConfig:
    """Return options of detection by their names on the command line, checked.

    Raises:
        UserError: an unknown option, one that only the command has, or a bad value.
    """
    allowed = {
        alias.lstrip("-").replace("-", "_"): option.name
        for option in options_of(DetectConfig)
        if option.group not in OUTPUT_GROUPS and option.name not in OUTPUT_OPTIONS
        for alias in (option.name, *option.aliases)
    } | {"agnostic": "agnostic_nms"}
    values = {}
    for name, value in options.items():
        if name not in allowed:
            raise UserError(f"unknown option '{name}'. {suggest(name, allowed)}")
        if name == "imgsz" and isinstance(value, int):
            value = (value,)
        if value is not None:
            values[allowed[name]] = value
    return DetectConfig.of(**values)


def open_any(source: Any, vid_stride: int = 1) -> Source:
    """Open what `Detector` takes: paths, URLs, camera numbers, arrays and Pillow images."""
    from data.media.arrays import Arrays, is_in_memory
    from data.media.sources import open_source
    from engine.inference.command import leave_out

    if is_in_memory(source):
        return Arrays(source if isinstance(source, list | tuple) else [source])
    if isinstance(source, int):
        source = str(source)
    return open_source(source, vid_stride, leave_out)
