"""Evaluate a detector: AP overall, by size and by class, on tiles and on full images.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test --sizes 0,8,16,32,64
python val.py --weights best.pt --tile auto       # full images, just as detect.py --tile does
python val.py --predictions results.json --annotations instances_val2017.json --protocol aitod
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.evaluation.config import MANY_CLASSES, ValConfig
from engine.evaluation.evaluator import EvaluationResult, Scoring, evaluate
from engine.evaluation.predictions import Predictions, predict_full_images, predict_loader
from engine.inference.merging.merge import MergeRule
from utils.errors import UserError
from utils.log import RESULT

if TYPE_CHECKING:
    from data.dataset_yaml import DatasetConfig
    from data.detection.loader import BatchLoader
    from data.detection.records import ImageRecord
    from engine.evaluation.classification.metrics import ClassificationResult
    from engine.evaluation.report.gallery import ReadImage
    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor


LOG = logging.getLogger(__name__)
DEFAULT_DATA = Path("data/treecrowns.yaml")


def main(cfg: ValConfig) -> int:
    """Evaluate, print the tables and write the run folder."""
    if cfg.task == "study":
        from engine.evaluation.study import run_study

        run_study(cfg)
    else:
        run_evaluation(cfg)
    return 0


def run_evaluation(cfg: ValConfig) -> EvaluationResult | ClassificationResult:
    """Evaluate weights or a results file; print the tables, write the run folder and return the numbers."""
    if cfg.task == "speed":  # as YOLOv5 measures it
        cfg = cfg.replace(task="val", conf_thres=0.25, iou_thres=0.45, plots=False)
    return score_file(cfg) if cfg.predictions else evaluate_weights(cfg)


def evaluate_weights(cfg: ValConfig) -> EvaluationResult | ClassificationResult:
    """Run a network over a data set and score its predictions."""
    from data.classification.dataset_yaml import is_classification
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import coco_category_ids
    from data.detection.split import read_split
    from data.media.image_files import read_image
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
    as_detect = cfg.tiles.tile is not None or imgsz[0] != imgsz[1]  # a loader's inputs are square
    settings = detect_settings(cfg, predictor, description, imgsz) if as_detect else None
    records = read_split(description, cfg.task, cfg.single_cls, whole=as_detect)
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{' + '.join(map(str, weights))} on {description.file} ({cfg.task}) at {_shown(imgsz, settings)}"
    LOG.info("%s, into %s", title, folder)
    if settings is not None:
        predictions = predict_full_images(predictor, records, settings)
    else:
        loader = make_loader(cfg, predictor, records, imgsz[0])
        limits = (cfg.suppression.conf_thres, cfg.suppression.iou_thres, kept_at_most(cfg, 300))
        predictions = predict_loader(predictor, loader, device, *limits)
    result = evaluate(predictions, names, scoring_of(cfg))
    if cfg.labels.save_json:
        ids = None if cfg.single_cls else coco_category_ids(description, cfg.task)
        write_json(result, folder / "predictions.json", ids)
    if cfg.labels.save_txt:
        write_labels(result, folder / "labels", cfg.labels.save_conf)
    used = replace(cfg, weights=weights, data=description.file, imgsz=max(imgsz))
    write_run(used, folder, title, result, read_image)
    return result


def score_file(cfg: ValConfig) -> EvaluationResult:
    """Score a results file against a COCO file: no network, no torch."""
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
    detections, notes = read_results(cfg.predictions, known)
    for note in [*truth.notes, *notes]:
        LOG.warning(note)
    records, names = truth.records, truth.names
    if cfg.single_cls:
        records, names = [replace(record, classes=record.classes * 0) for record in records], ("object",)
        detections = replace(detections, classes=detections.classes * 0)
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{cfg.predictions} against {cfg.annotations}"
    LOG.info("%s, into %s", title, folder)
    result = evaluate(Predictions(records, detections), names, scoring_of(cfg))
    write_run(cfg, folder, title, result, read_image)
    return result


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
    LOG.log(RESULT, report(evaluation, per_class=cfg.log.verbose or not many))
    cfg.save(folder / "config.yaml")
    write_metrics(evaluation, folder / "metrics.json")
    if cfg.plots:
        from engine.evaluation.report.page import write_report

        analysis = plot(evaluation, folder)
        write_report(folder / "report.html", title, evaluation, analysis, cfg.plain(), read_image)
        LOG.log(RESULT, f"\n{folder / 'report.html'} shows where objects are lost")


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
    LOG.warning("the weights call the classes %s, %s calls them %s", shown[0], description.file, shown[1])


def detect_settings(
    cfg: ValConfig, predictor: Predictor, description: DatasetConfig, imgsz: tuple[int, int]
) -> DetectSettings:
    """Return how detect.py would look at full images; without --tile, in the data set's tiles."""
    from engine.inference.settings import make_settings

    suppression = replace(cfg.suppression, max_det=kept_at_most(cfg, 1000))
    settings = make_settings(
        predictor, imgsz, suppression, cfg.tiles, cfg.resizing, cfg.batch_size, multi_label=True
    )
    if cfg.tiles.tile is None:
        settings = replace(settings, tiling=description.tile, tile_from=0)
    return settings


def scoring_of(cfg: ValConfig) -> Scoring:
    """Return how detections are scored, and those of a data set's tiles merged."""
    score = cfg.score
    rule = MergeRule(threshold=cfg.suppression.iou_thres)
    return Scoring(score.scoring(), score.max_dets, score.evaluator, rule)


def kept_at_most(cfg: ValConfig, least: int) -> int:
    """Return --max-det, or as many as AP counts, but no fewer than `least`."""
    return cfg.suppression.max_det or max(least, *(cfg.score.max_dets or cfg.score.scoring().max_dets))


def _shown(imgsz: tuple[int, int], settings: DetectSettings | None) -> str:
    """'640 px', '480x640 px', '640 px, tiles of 640 px as detect.py cuts them'."""
    size = f"{imgsz[0]} px" if imgsz[0] == imgsz[1] else f"{imgsz[0]}x{imgsz[1]} px"
    if settings is None:
        return size
    tiles = f"tiles of {settings.tiling.size} px" if settings.tiling else "full images"
    return f"{size}, {tiles} as in detect.py"


def make_loader(
    cfg: ValConfig, predictor: Predictor, records: Sequence[ImageRecord], imgsz: int
) -> BatchLoader:
    """Return views in batches, at the side of the input."""
    from data.detection.dataset import validation_set
    from data.detection.loader import build_loader
    from engine.inference.sizes import interpolation_for

    rect = cfg.rect and predictor.imgsz is None
    interpolation = interpolation_for(predictor, cfg.resizing.interpolation, validation=True)
    dataset = validation_set(records, imgsz, predictor.stride, rect, interpolation=interpolation)
    return build_loader(dataset, cfg.batch_size, shuffle=False, workers=cfg.workers)
