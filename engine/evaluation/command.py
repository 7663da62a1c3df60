"""Evaluate a detector: AP overall, by size and by class, on tiles and on full images.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test --sizes 0,8,16,32,64
python val.py --weights best.pt --tile auto       # full images, just as detect.py --tile does
python val.py --predictions results.json --annotations instances_val2017.json --protocol aitod
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.evaluation.config import MANY_CLASSES, ValConfig
from engine.evaluation.evaluator import EvaluationResult, evaluate, score
from utils.errors import UserError

if TYPE_CHECKING:
    from data.dataset_yaml import DatasetConfig
    from data.detection.loader import BatchLoader
    from data.detection.records import ImageRecord
    from engine.evaluation.report.gallery import ReadImage
    from engine.inference.pipeline import DetectSettings
    from engine.runtimes import Predictor

__all__ = ["EvaluationResult", "ValConfig", "evaluate", "main"]

DEFAULT_DATA = Path("data/treecrowns.yaml")


def main(cfg: ValConfig) -> int:
    """Evaluate, print the tables and write the run folder."""
    return score_file(cfg) if cfg.predictions else evaluate_weights(cfg)


def evaluate_weights(cfg: ValConfig) -> int:
    """Run a detector over a data set and score what it finds."""
    from data.classification.dataset_yaml import is_classification
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import coco_category_ids
    from data.detection.split import read_split
    from data.media.image_files import read_image
    from engine.evaluation.full_images import evaluate_full_images
    from engine.evaluation.outputs import write_json, write_labels
    from engine.inference.sizes import input_size
    from engine.inference.test_time_augmentation import TestTimeAugmentation
    from engine.runtimes import OneClass, load_predictor
    from utils.device import select_device
    from utils.run_folders import make_run_folder, newest_weights

    device = select_device(cfg.hardware.device)
    weights = cfg.weights or (newest_weights(),)
    labels_only = cfg.data is not None and is_classification(cfg.data)
    given = read_dataset_yaml(cfg.data) if cfg.data and not labels_only else None
    predictor = load_predictor(
        weights, device, half=cfg.hardware.half, nameless=given.names if given else None, task=None
    )
    if predictor.task == "classify":
        from engine.evaluation.classification.command import validate_classifier

        return validate_classifier(cfg, weights, predictor)
    description = given or read_dataset_yaml(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    check_classes(predictor.names, description, cfg.single_cls)
    imgsz = input_size((cfg.imgsz,) if cfg.imgsz else None, predictor)
    names = ("object",) if cfg.single_cls else description.names
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    if cfg.single_cls:
        predictor = OneClass(predictor)
    like_detect = cfg.tiles.tile is not None or imgsz[0] != imgsz[1]  # a loader's views are square
    settings = detect_settings(cfg, predictor, description, imgsz) if like_detect else None
    records = read_split(description, cfg.task, cfg.single_cls, whole=like_detect)
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{' + '.join(map(str, weights))} on {description.file} ({cfg.task}) at {_shown(imgsz, settings)}"
    print(f"{title}, into {folder}")
    scoring = (cfg.score.scoring(), cfg.score.max_dets, cfg.score.evaluator)
    if settings is not None:
        evaluation = evaluate_full_images(predictor, records, names, settings, *scoring)
    else:
        loader = make_loader(cfg, predictor, records, imgsz[0])
        thresholds = (cfg.suppression.conf_thres, cfg.suppression.iou_thres, kept_at_most(cfg, 300))
        evaluation = evaluate(predictor, loader, names, device, *thresholds, *scoring)
    if cfg.labels.save_json:
        ids = None if cfg.single_cls else coco_category_ids(description, cfg.task)
        write_json(evaluation, folder / "predictions.json", ids)
    if cfg.labels.save_txt:
        write_labels(evaluation, folder / "labels", cfg.labels.save_conf)
    used = replace(cfg, weights=weights, data=description.file, imgsz=max(imgsz))
    write_run(used, folder, title, evaluation, read_image)
    return 0


def score_file(cfg: ValConfig) -> int:
    """Score a results file against a COCO file: no model, no torch."""
    from data.detection.coco_ground_truth import read_ground_truth
    from engine.evaluation.coco_results import Known, read_results
    from utils.run_folders import make_run_folder

    assert cfg.predictions is not None and cfg.annotations is not None
    read_image = image_reader(cfg.images)
    truth = read_ground_truth(
        cfg.annotations, cfg.images or Path(), honor_ignore=cfg.score.protocol == "tinyperson"
    )
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
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{cfg.predictions} against {cfg.annotations}"
    print(f"{title}, into {folder}")
    scored = score(records, found, names, cfg.score.scoring(), cfg.score.max_dets, cfg.score.evaluator)
    write_run(cfg, folder, title, EvaluationResult(scored, None, {}, None), read_image)
    return 0


def image_reader(folder: Path | None) -> ReadImage | None:
    """Return what reads the images of a folder; None without one.

    Raises:
        UserError: the folder is not there.
    """
    from data.media.image_files import read_image

    if folder is not None and not folder.is_dir():
        raise UserError(f"no folder {folder} of images; leave --images out to do without galleries")
    return read_image if folder is not None else None


def write_run(
    cfg: ValConfig, folder: Path, title: str, evaluation: EvaluationResult, read_image: ReadImage | None
) -> None:
    """Print the tables and write config, metrics, figures and report into the run folder."""
    from engine.evaluation.outputs import plot, report, write_metrics

    many = len(evaluation.metrics.names) > MANY_CLASSES
    print(report(evaluation, per_class=cfg.log.verbose or not many))
    cfg.save(folder / "config.yaml")
    write_metrics(evaluation, folder / "metrics.json")
    if cfg.plots:
        from engine.evaluation.report.page import write_report

        analysis = plot(evaluation, folder)
        write_report(folder / "report.html", title, evaluation, analysis, cfg.plain(), read_image)
        print(f"\n{folder / 'report.html'} shows where objects are lost")


def check_classes(names: Sequence[str], description: DatasetConfig, single_cls: bool) -> None:
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
    cfg: ValConfig, predictor: Predictor, description: DatasetConfig, imgsz: tuple[int, int]
) -> DetectSettings:
    """Return how detect.py would look at full images; without --tile, in the data set's tiles."""
    from engine.inference.merging.merge import MergeRule
    from engine.inference.pipeline import DetectSettings
    from engine.inference.sizes import tiling_for

    tiling, tile_from = description.tile, 0
    if cfg.tiles.tile is not None:
        tiling, tile_from = tiling_for(cfg.tiles.side, cfg.tiles.overlap, predictor, imgsz)
    threshold = cfg.suppression.iou_thres if cfg.tiles.tile_thres is None else cfg.tiles.tile_thres
    return DetectSettings(
        imgsz=imgsz,
        conf_thres=cfg.suppression.conf_thres,
        iou_thres=cfg.suppression.iou_thres,
        max_det=kept_at_most(cfg, 1000),
        multi_label=True,
        tiling=tiling,
        tile_from=tile_from,
        whole=cfg.tiles.tile_whole,
        merge=MergeRule(cfg.tiles.tile_merge, cfg.tiles.tile_metric, threshold),
        batch_size=cfg.batch_size,
    )


def kept_at_most(cfg: ValConfig, least: int) -> int:
    """Return --max-det, or as many as AP counts, but no fewer than `least`."""
    return cfg.suppression.max_det or max(least, *(cfg.score.max_dets or cfg.score.scoring().max_dets))


def _shown(imgsz: tuple[int, int], settings: DetectSettings | None) -> str:
    """'640 px', '480x640 px', '640 px, tiles of 640 px as detect.py cuts them'."""
    size = f"{imgsz[0]} px" if imgsz[0] == imgsz[1] else f"{imgsz[0]}x{imgsz[1]} px"
    if settings is None:
        return size
    tiles = f"tiles of {settings.tiling.size} px" if settings.tiling else "full images"
    return f"{size}, {tiles} as detect.py sees them"


def make_loader(
    cfg: ValConfig, predictor: Predictor, records: Sequence[ImageRecord], imgsz: int
) -> BatchLoader:
    """Return views in batches, at the side of the input."""
    from data.detection.dataset import validation_set
    from data.detection.loader import build_loader

    rect = cfg.rect and predictor.imgsz is None
    dataset = validation_set(records, imgsz, predictor.stride, rect)
    return build_loader(dataset, cfg.batch_size, shuffle=False, workers=cfg.workers)
