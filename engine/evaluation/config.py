"""The options of val.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from engine.evaluation.metrics import PROTOCOLS, Protocol
from engine.options import (
    DeviceOptions,
    FleetOptions,
    LabelOptions,
    NmsOptions,
    ResizeOptions,
    RunOptions,
    TileOptions,
)
from utils.errors import UserError
from utils.log import LogOptions
from utils.options import Options, group, opt, options_of

MANY_CLASSES = 20  # more are listed with --verbose only


@dataclass(frozen=True)
class ScoringOptions(Options):
    """Scoring."""

    protocol: Literal["coco", "aitod", "sodad", "tinyperson", "visdrone"] = opt(
        "coco", "size classes, IoU thresholds and limits", task="detect"
    )
    sizes: tuple[str, ...] = opt(
        (),
        "edges of your own size classes, sides in px, such as 0,8,16,32,64; the last class is open",
        task="detect",
    )
    max_dets: tuple[int, ...] | None = opt(
        None,
        "detections that count per image and class (default: the protocol's; for full images of a tiled data "
        "set, at least as many as the fullest has objects)",
        min=1,
        task="detect",
    )
    evaluator: Literal["hotcoco", "pycocotools"] = opt(
        "hotcoco", "COCO implementation; both give the same numbers", task="detect"
    )

    def __post_init__(self) -> None:
        """Check the size classes."""
        super().__post_init__()
        self.scoring()

    def scoring(self) -> Protocol:
        """Return the protocol, with the size classes of --sizes.

        Raises:
            UserError: --sizes are not ascending numbers.
        """
        protocol = PROTOCOLS[self.protocol]
        if not self.sizes:
            return protocol
        try:
            sides = [float(side) for part in self.sizes for side in part.split(",") if side.strip()]
            return protocol.with_sizes(sides)
        except ValueError as error:
            raise UserError(f"--sizes {' '.join(self.sizes)}: {error}") from error


@dataclass(frozen=True)
class ValConfig(Options):
    """Evaluate a detector or a classifier on a data set, or a results file against its annotations."""

    left_out: ClassVar[Mapping[str, str]] = {
        "--save-hybrid": "--save-txt writes the detections; ground truth stays in its own files",
        "--dnn": "ONNX files run in ONNX Runtime, which is faster than OpenCV's reader",
    }

    weights: tuple[Path, ...] = opt(
        (), ".pt or an exported file; several are an ensemble (default: newest best.pt, or what ships)"
    )
    data: Path | None = opt(None, "data-set YAML (default: the one the weights were trained on)")
    task: Literal["val", "test", "train", "speed", "study"] = opt(
        "val",
        "split of the data set; speed: time at confidence .25 and IoU .45; study: AP at 256 to 1536 px",
        "--split",
    )
    predictions: Path | None = opt(
        None, "score this COCO results file, or Parquet of --ray, instead; needs --annotations"
    )
    annotations: Path | None = opt(None, "COCO file with the ground truth for --predictions")
    images: Path | None = opt(None, "folder with the images of --annotations, for the report's galleries")
    imgsz: int | None = opt(
        None, "input side, px (default: as trained, else 640)", "--img", "--img-size", min=4
    )
    batch_size: int = opt(32, "images per batch", "--batch", min=1)
    rect: bool = opt(True, "batch images of similar shape, with as little border as possible", task="detect")
    single_cls: bool = opt(False, "treat all classes as one", task="detect")
    augment: bool = opt(
        False, "detect on scaled and mirrored copies as well: about 2.1 times the work", task="detect"
    )
    workers: int = opt(2, "processes that read images", min=0)
    plots: bool = opt(True, "write report.html, its figures and the first batch")
    resizing: ResizeOptions = group(ResizeOptions)
    suppression: NmsOptions = group(NmsOptions, conf_thres=0.001, iou_thres=0.6, max_det=None)
    tiles: TileOptions = group(TileOptions)
    score: ScoringOptions = group(ScoringOptions)
    labels: LabelOptions = group(LabelOptions)
    hardware: DeviceOptions = group(DeviceOptions)
    fleet: FleetOptions = group(FleetOptions)
    run: RunOptions = group(RunOptions, project="runs/val")
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        self._check_tiles()
        if self.task in ("speed", "study") and self.predictions is not None:
            raise UserError(f"--task {self.task} runs a network; --predictions are detections already")
        if self.fleet.ray is not None and self.predictions is not None:
            raise UserError("--ray runs a network; --predictions are detections already")
        if (self.predictions is None) != (self.annotations is None):
            raise UserError("--predictions are scored against --annotations; give both")
        if self.images is not None and self.predictions is None:
            raise UserError("--images are the images of --annotations; without those, --data has its own")
        writes = self.labels.save_json or self.labels.save_txt
        if self.predictions is not None and (self.weights or self.data or writes):
            raise UserError("--predictions takes no --weights, --data, --save-json or --save-txt")

    def _check_tiles(self) -> None:
        if self.tiles.tile is not None and self.predictions is not None:
            raise UserError("--tile says how to detect; --predictions are detections already")
        for option in options_of(TileOptions):
            if self.tiles.tile is None and self.tiles.get(option.name) != option.default:
                raise UserError(f"{option.flag} belongs to --tile; give that, too (auto will do)")
