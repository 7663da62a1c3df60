"""The options of val.py."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.evaluation.metrics import PROTOCOLS, Protocol
from engine.inference.tile_options import check_tile
from utils.cli import flag_of, opt, validate
from utils.errors import UserError

if TYPE_CHECKING:
    pass

MANY_CLASSES = 20  # more are listed with --verbose only


@dataclass(frozen=True)
class ValConfig:
    """Evaluate a detector on a data set, or a results file of any detector against its annotations."""

    weights: tuple[Path, ...] = opt(
        (), ".pt or .onnx; several are an ensemble (default: the newest run's best.pt)"
    )
    data: Path | None = opt(None, "data-set YAML (default: the one the weights were trained on)")
    predictions: Path | None = opt(None, "score this COCO results file instead; needs --annotations")
    annotations: Path | None = opt(None, "COCO file with the truth for --predictions")
    images: Path | None = opt(None, "folder of the images of --annotations, for the report's galleries")
    imgsz: int | None = opt(
        None, "input side, px (default: as trained, else 640)", "--img", "--img-size", min=4
    )
    batch_size: int = opt(32, "images a batch", "--batch", min=1)
    conf_thres: float = opt(0.001, "smallest confidence", min=0, max=1)
    iou_thres: float = opt(0.6, "NMS: largest IoU of two boxes of a class", min=0, max=1)
    max_det: int | None = opt(
        None, "detections kept an image (default: 300, with --tile 1000, or the limit AP uses)", min=1
    )
    tile: str | None = opt(
        None,
        "look at full images in tiles of this side, px, as detect.py does; 0 for none, or auto "
        "(default: images or tiles as the data set says)",
    )
    overlap: float = opt(0.2, "of --tile: share of its side in common with the next", min=0, max=0.9)
    tile_whole: bool = opt(False, "of --tile: look at the full image as well")
    tile_merge: Literal["seams", "nms", "nmm"] = opt("seams", "of --tile: how boxes become one image's")
    tile_metric: Literal["iou", "ios"] = opt("iou", "what overlap is in --tile-merge")
    tile_thres: float | None = opt(
        None, "largest overlap in --tile-merge (default: --iou-thres)", min=0, max=1
    )
    protocol: Literal["coco", "aitod", "sodad", "tinyperson", "visdrone"] = opt(
        "coco", "size classes, IoU thresholds and limits"
    )
    sizes: tuple[str, ...] = opt(
        (), "edges of your own size classes, sides in px, such as 0,8,16,32,64; the last class is open"
    )
    max_dets: tuple[int, ...] | None = opt(
        None,
        "limits of the evaluation: detections of a class in an image (default: the protocol's, "
        "and on full images of a tiled data set as many as the fullest holds)",
        min=1,
    )
    evaluator: Literal["hotcoco", "pycocotools"] = opt("hotcoco", "who counts; the numbers are the same")
    task: Literal["val", "test", "train"] = opt("val", "split of the data set", "--split")
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    workers: int = opt(2, "processes that read images", min=0)
    single_cls: bool = opt(False, "treat all classes as one")
    rect: bool = opt(True, "batches of similar shape with as little border as possible")
    augment: bool = opt(False, "look at scaled and mirrored copies as well: about 2.1 times the work")
    half: bool = opt(False, "16-bit inference on a GPU")
    verbose: bool = opt(False, f"list every class, even if there are more than {MANY_CLASSES}")
    save_json: bool = opt(False, "write predictions.json in COCO's results format")
    save_txt: bool = opt(False, "write labels/*.txt in YOLO's format")
    save_conf: bool = opt(False, "add confidences to --save-txt")
    plots: bool = opt(True, "write report.html, its figures and the first batch")
    project: Path = opt("runs/val", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)
        self.scoring()
        self._check_tile()
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")
        if (self.predictions is None) != (self.annotations is None):
            raise UserError("--predictions are scored against --annotations; give both")
        if self.images is not None and self.predictions is None:
            raise UserError("--images are the images of --annotations; without those, --data has its own")
        if self.predictions is not None and (self.weights or self.data or self.save_json or self.save_txt):
            raise UserError("--predictions takes no --weights, --data, --save-json or --save-txt")

    def _check_tile(self) -> None:
        check_tile(self.tile, self.tile_whole)
        if self.tile is not None and self.predictions is not None:
            raise UserError("--tile says how to detect; --predictions are detections already")
        for field in fields(self):
            of_tiles = field.name == "overlap" or field.name.startswith("tile_")
            if self.tile is None and of_tiles and getattr(self, field.name) != field.default:
                raise UserError(f"{flag_of(field.name)} belongs to --tile; give that, too (auto will do)")

    def scoring(self) -> Protocol:
        """Return the protocol, with the size classes asked for.

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
