"""Evaluate a detector: AP overall, by size and by class, on tiles and on whole photographs.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test --sizes 0,8,16,32,64
python val.py --weights best.pt --tile auto       # whole photographs, just as detect.py --tile does
python val.py --predictions results.json --annotations instances_val2017.json --protocol aitod
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import as_plain, flag_of, opt, run, save_config, validate
from utils.errors import UserError
from utils.evaluation import Evaluation, evaluate, score
from utils.metrics import PROTOCOLS, Protocol
from utils.tile_options import check_tile, parse_tile

if TYPE_CHECKING:
    from data.description import DataDescription
    from data.loader import BatchLoader
    from data.records import ImageRecord
    from models.inference import DetectSettings
    from models.runtimes import Predictor
    from utils.gallery import ReadPicture

__all__ = ["Evaluation", "ValConfig", "evaluate", "main"]

DEFAULT_DATA = Path("data/treecrowns.yaml")
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
    images: Path | None = opt(None, "folder of the pictures of --annotations, for the report's galleries")
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
        "look at whole photographs in tiles of this side, px, as detect.py does; 0 for none, or auto "
        "(default: pictures or tiles as the data set says)",
    )
    overlap: float = opt(0.2, "of --tile: share of its side in common with the next", min=0, max=0.9)
    tile_whole: bool = opt(False, "of --tile: look at the whole picture as well")
    tile_merge: Literal["seams", "nms", "nmm"] = opt("seams", "of --tile: how boxes become one picture's")
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
        "and on whole photographs of a tiled data set as many as the fullest holds)",
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
            raise UserError("--images are the pictures of --annotations; without those, --data has its own")
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


def main(cfg: ValConfig) -> int:
    """Evaluate, print the tables and write the run folder."""
    return score_file(cfg) if cfg.predictions else evaluate_weights(cfg)


def evaluate_weights(cfg: ValConfig) -> int:
    """Run a detector over a data set and score what it finds."""
    from data.classification.description import is_classification
    from data.description import read_description
    from data.pictures import read_picture
    from data.records import coco_category_ids
    from data.views import read_views
    from models.photographs import evaluate_photographs
    from models.runtimes import OneClass, load_predictor
    from models.sizes import input_size
    from models.test_time_augmentation import TestTimeAugmentation
    from utils.device import select_device
    from utils.runs import make_run_folder, newest_weights
    from utils.val_run import write_json, write_labels

    device = select_device(cfg.device)
    weights = cfg.weights or (newest_weights(),)
    labels_only = cfg.data is not None and is_classification(cfg.data)
    given = read_description(cfg.data) if cfg.data and not labels_only else None
    predictor = load_predictor(
        weights, device, half=cfg.half, nameless=given.names if given else None, task=None
    )
    if predictor.task == "classify":
        from models.classification.validate import validate_classifier

        return validate_classifier(cfg, weights, predictor)
    description = given or read_description(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    check_classes(predictor.names, description, cfg.single_cls)
    imgsz = input_size((cfg.imgsz,) if cfg.imgsz else None, predictor)
    names = ("object",) if cfg.single_cls else description.names
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    if cfg.single_cls:
        predictor = OneClass(predictor)
    like_detect = cfg.tile is not None or imgsz[0] != imgsz[1]  # a loader's views are square
    settings = detect_settings(cfg, predictor, description, imgsz) if like_detect else None
    records = read_views(description, cfg.task, cfg.single_cls, whole=like_detect)
    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    title = f"{' + '.join(map(str, weights))} on {description.file} ({cfg.task}) at {_shown(imgsz, settings)}"
    print(f"{title}, into {folder}")
    scoring = (cfg.scoring(), cfg.max_dets, cfg.evaluator)
    if settings is not None:
        evaluation = evaluate_photographs(predictor, records, names, settings, *scoring)
    else:
        loader = make_loader(cfg, predictor, records, imgsz[0])
        thresholds = (cfg.conf_thres, cfg.iou_thres, kept_at_most(cfg, 300))
        evaluation = evaluate(predictor, loader, names, device, *thresholds, *scoring)
    if cfg.save_json:
        ids = None if cfg.single_cls else coco_category_ids(description, cfg.task)
        write_json(evaluation, folder / "predictions.json", ids)
    if cfg.save_txt:
        write_labels(evaluation, folder / "labels", cfg.save_conf)
    used = replace(cfg, weights=weights, data=description.file, imgsz=max(imgsz))
    write_run(used, folder, title, evaluation, read_picture)
    return 0


def score_file(cfg: ValConfig) -> int:
    """Score a results file against a COCO file: no model, no torch."""
    from data.coco_truth import read_truth
    from utils.results_json import Known, read_results
    from utils.runs import make_run_folder

    assert cfg.predictions is not None and cfg.annotations is not None
    read_picture = picture_reader(cfg.images)
    truth = read_truth(cfg.annotations, cfg.images or Path(), honour_ignore=cfg.protocol == "tinyperson")
    known = Known(
        cfg.annotations,
        {record.image_id: number for number, record in enumerate(truth.records)},
        {category: number for number, category in enumerate(truth.category_ids)},
        [(record.width, record.height) for record in truth.records],
    )
    found, notes = read_results(cfg.predictions, known)
    for note in [*truth.notes, *notes]:
        print(f"note: {note}", file=sys.stderr)
    records: Sequence[Any] = truth.records
    names = truth.names
    if cfg.single_cls:
        records, names = [replace(record, classes=record.classes * 0) for record in records], ("object",)
        found = replace(found, classes=found.classes * 0)
    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    title = f"{cfg.predictions} against {cfg.annotations}"
    print(f"{title}, into {folder}")
    scored = score(records, found, names, cfg.scoring(), cfg.max_dets, cfg.evaluator)
    write_run(cfg, folder, title, Evaluation(scored, None, {}, None), read_picture)
    return 0


def picture_reader(folder: Path | None) -> ReadPicture | None:
    """Return what reads the pictures of a folder; None without one.

    Raises:
        UserError: the folder is not there.
    """
    from data.pictures import read_picture

    if folder is not None and not folder.is_dir():
        raise UserError(f"no folder {folder} of pictures; leave --images out to do without galleries")
    return read_picture if folder is not None else None


def write_run(
    cfg: ValConfig, folder: Path, title: str, evaluation: Evaluation, read_picture: ReadPicture | None
) -> None:
    """Print the tables and write config, metrics, figures and report into the run folder."""
    from utils.val_run import plot, report, write_metrics

    many = len(evaluation.metrics.names) > MANY_CLASSES
    print(report(evaluation, per_class=cfg.verbose or not many))
    save_config(cfg, folder / "config.yaml")
    write_metrics(evaluation, folder / "metrics.json")
    if cfg.plots:
        from utils.report import write_report

        analysis = plot(evaluation, folder)
        write_report(folder / "report.html", title, evaluation, analysis, as_plain(cfg), read_picture)
        print(f"\n{folder / 'report.html'} shows where objects are lost")


def check_classes(names: Sequence[str], description: DataDescription, single_cls: bool) -> None:
    """Compare the classes of weights and data; other names in the same number are only noted.

    Raises:
        UserError: the numbers differ.
    """
    if single_cls or tuple(names) == description.names:
        return
    shown = [
        ", ".join(known[:5]) + (", ..." if len(known) > 5 else "") for known in (names, description.names)
    ]
    if len(names) != len(description.names):
        raise UserError(
            f"the weights know {len(names)} classes ({shown[0]}), but {description.file} names "
            f"{len(description.names)} ({shown[1]}); choose the --data they were trained on, or --single-cls"
        )
    print(f"note: the weights call the classes {shown[0]}, {description.file} calls them {shown[1]}")


def detect_settings(
    cfg: ValConfig, predictor: Predictor, description: DataDescription, imgsz: tuple[int, int]
) -> DetectSettings:
    """Return how detect.py would look at whole photographs; without --tile, in the data set's tiles."""
    from models.inference import DetectSettings
    from models.sizes import tiling_for
    from utils.merge import MergeRule

    tiling, tile_from = description.tile, 0
    if cfg.tile is not None:
        tiling, tile_from = tiling_for(parse_tile(cfg.tile), cfg.overlap, predictor, imgsz)
    threshold = cfg.iou_thres if cfg.tile_thres is None else cfg.tile_thres
    return DetectSettings(
        imgsz=imgsz,
        conf_thres=cfg.conf_thres,
        iou_thres=cfg.iou_thres,
        max_det=kept_at_most(cfg, 1000),
        multi_label=True,
        tiling=tiling,
        tile_from=tile_from,
        whole=cfg.tile_whole,
        merge=MergeRule(cfg.tile_merge, cfg.tile_metric, threshold),
        batch_size=cfg.batch_size,
    )


def kept_at_most(cfg: ValConfig, least: int) -> int:
    """Return --max-det, or as many as AP counts, but no fewer than `least`."""
    return cfg.max_det or max(least, *(cfg.max_dets or cfg.scoring().max_dets))


def _shown(imgsz: tuple[int, int], settings: DetectSettings | None) -> str:
    """'640 px', '480x640 px', '640 px, tiles of 640 px as detect.py cuts them'."""
    size = f"{imgsz[0]} px" if imgsz[0] == imgsz[1] else f"{imgsz[0]}x{imgsz[1]} px"
    if settings is None:
        return size
    tiles = f"tiles of {settings.tiling.size} px" if settings.tiling else "whole photographs"
    return f"{size}, {tiles} as detect.py sees them"


def make_loader(
    cfg: ValConfig, predictor: Predictor, records: Sequence[ImageRecord], imgsz: int
) -> BatchLoader:
    """Return views in batches, at the side of the input."""
    from data.dataset import validation_set
    from data.loader import build_loader

    rect = cfg.rect and predictor.imgsz is None
    dataset = validation_set(records, imgsz, predictor.stride, rect)
    return build_loader(dataset, cfg.batch_size, shuffle=False, workers=cfg.workers)


if __name__ == "__main__":
    run(ValConfig, main)
