"""val.py: weights or a results file are evaluated, tables printed and the run folder written."""

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
    from data.detection.coco_ground_truth import CocoGroundTruth
    from data.detection.loader import BatchLoader
    from data.image_record import ImageRecord
    from engine.evaluation.classification.metrics import ClassificationResult
    from engine.evaluation.coco_results import Known
    from engine.evaluation.report.gallery import ReadImage
    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)
DEFAULT_DATA = Path("data/treecrowns.yaml")


def main(cfg: ValConfig) -> int:
    """Evaluate weights or a results file, print the tables and write the run folder."""
    if cfg.task == "study":
        from engine.evaluation.study import run_study

        run_study(cfg, run_evaluation)
    else:
        run_evaluation(cfg)
    return 0


def run_evaluation(cfg: ValConfig) -> EvaluationResult | ClassificationResult:
    """Evaluate weights or a results file; print the tables, write the run folder and return the result."""
    if cfg.task == "speed":  # as YOLOv5 measures it
        cfg = cfg.replace(task="val", conf_thres=0.25, iou_thres=0.45, plots=False)
    return score_file(cfg) if cfg.predictions else evaluate_weights(cfg)


def evaluate_weights(cfg: ValConfig) -> EvaluationResult | ClassificationResult:
    """Run a network over a data set and score its predictions."""
    from data.classification.dataset_yaml import is_classification
    from data.dataset_yaml import read_dataset_yaml
    from engine.runtimes import load_predictor
    from utils.device import select_device
    from utils.run_folders import default_weights

    device = select_device(cfg.hardware.device)
    cfg = cfg.replace(weights=cfg.weights or (default_weights(),))
    is_detection = cfg.data is not None and not is_classification(cfg.data)
    given = read_dataset_yaml(cfg.data) if cfg.data and is_detection else None
    nameless = given.names if given else None
    predictor = load_predictor(cfg.weights, device, half=cfg.hardware.half, nameless=nameless, task=None)
    if predictor.task == "classify":
        from engine.evaluation.classification.command import evaluate_classifier

        return evaluate_classifier(cfg, predictor)
    data = given or read_dataset_yaml(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    return evaluate_detector(cfg, predictor, data)


def evaluate_detector(cfg: ValConfig, predictor: Predictor, data: DatasetConfig) -> EvaluationResult:
    """Run a detector over a split of a data set, score its predictions and write the run folder."""
    from data.detection.split import read_split
    from data.media.image_files import read_image
    from engine.inference.fleet.cluster import check_address, check_ray
    from engine.inference.sizes import input_size
    from engine.inference.test_time_augmentation import TestTimeAugmentation
    from engine.runtimes import OneClass
    from utils.run_folders import make_run_folder

    if cfg.fleet.ray is not None:
        check_ray()
        check_address(cfg.fleet.ray)
    check_classes(predictor.names, data, cfg.single_cls)
    imgsz = input_size((cfg.imgsz,) if cfg.imgsz else None, predictor)
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    if cfg.single_cls:
        predictor = OneClass(predictor)
    on_full_images = cfg.tiles.tile is not None or imgsz[0] != imgsz[1]  # a loader's inputs are square
    settings = detect_settings(cfg, predictor, data, imgsz) if on_full_images else None
    records = read_split(data, cfg.task, cfg.single_cls, whole=on_full_images)
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    how = _described(imgsz, settings)
    title = f"{' + '.join(map(str, cfg.weights))} on {data.file} ({cfg.task}) at {how}"
    LOG.info("%s, into %s", title, folder)
    if cfg.fleet.ray is not None:
        predictions = predict_by_actors(cfg, predictor, records, imgsz[0], settings)
    elif settings is None:
        predictions = predict_in_batches(cfg, predictor, records, imgsz[0])
    else:
        predictions = predict_full_images(predictor, records, settings)
    names = ("object",) if cfg.single_cls else data.names
    result = evaluate(predictions, names, scoring_of(cfg))
    write_detections(cfg, folder, result, data)
    used = cfg.replace(data=data.file, imgsz=max(imgsz))
    write_run(used, folder, title, result, read_image)
    return result


def predict_in_batches(
    cfg: ValConfig, predictor: Predictor, records: Sequence[ImageRecord], imgsz: int
) -> Predictions:
    """Detect on images or tiles in letterboxed batches."""
    loader = _loader(cfg, predictor, records, imgsz)
    nms = cfg.suppression
    kept = kept_per_image(cfg, 300)
    return predict_loader(predictor, loader, predictor.device, nms.conf_thres, nms.iou_thres, kept)


def _loader(cfg: ValConfig, predictor: Predictor, records: Sequence[ImageRecord], imgsz: int) -> BatchLoader:
    from data.detection.dataset import validation_set
    from data.detection.loader import build_loader
    from engine.inference.sizes import interpolation_for

    rect = cfg.rect and predictor.imgsz is None
    interpolation = interpolation_for(predictor, cfg.resizing.interpolation, validation=True)
    dataset = validation_set(records, imgsz, predictor.stride, rect, interpolation=interpolation)
    return build_loader(dataset, cfg.batch_size, shuffle=False, workers=cfg.workers)


def predict_by_actors(
    cfg: ValConfig,
    predictor: Predictor,
    records: Sequence[ImageRecord],
    imgsz: int,
    settings: DetectSettings | None,
) -> Predictions:
    """Detect with actors of Ray, on a loader's batches, or on the tiles that `settings` say."""
    from engine.evaluation.fleet import BatchReader, ImageReader, predict_on_fleet
    from engine.inference.fleet.network import LoadNetwork
    from engine.inference.settings import DetectSettings

    names = None if cfg.single_cls else predictor.names
    load = LoadNetwork(cfg.weights, "cpu", cfg.hardware.half, names, cfg.augment, cfg.single_cls)
    stride = predictor.stride
    if settings is not None:
        images = ImageReader(records, settings, None if predictor.imgsz else stride)
        order = range(len(records))
        return predict_on_fleet(load, settings, records, order, images, cfg.fleet, cfg.hardware.device)
    loader, nms = _loader(cfg.replace(workers=0), predictor, records, imgsz), cfg.suppression
    settings = DetectSettings(
        (imgsz, imgsz),
        nms.conf_thres,
        nms.iou_thres,
        kept_per_image(cfg, 300),
        multi_label=True,
        batch_size=cfg.batch_size,
        interpolation=loader.dataset.interpolation,
    )
    requests = {request.index: request for batch in loader.requests() for request in batch}
    batches = BatchReader(records, requests, imgsz, stride, settings.interpolation)
    return predict_on_fleet(load, settings, records, list(requests), batches, cfg.fleet, cfg.hardware.device)


def write_detections(cfg: ValConfig, folder: Path, result: EvaluationResult, data: DatasetConfig) -> None:
    """Write predictions.json and label files, as asked for."""
    from data.detection.records import coco_category_ids
    from engine.evaluation.outputs import write_json, write_labels

    if cfg.labels.save_json:
        ids = None if cfg.single_cls else coco_category_ids(data, cfg.task)
        write_json(result, folder / "predictions.json", ids)
    if cfg.labels.save_txt:
        write_labels(result, folder / "labels", cfg.labels)


def score_file(cfg: ValConfig) -> EvaluationResult:
    """Score a results file against a COCO file, without a network and without torch."""
    from utils.run_folders import make_run_folder

    read_image = image_reader(cfg.images)
    predictions, names = read_predictions(cfg)
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{cfg.predictions} against {cfg.annotations}"
    LOG.info("%s, into %s", title, folder)
    result = evaluate(predictions, names, scoring_of(cfg))
    write_run(cfg, folder, title, result, read_image)
    return result


def read_predictions(cfg: ValConfig) -> tuple[Predictions, Sequence[str]]:
    """Read the results file and its annotations; return the predictions and the classes."""
    from data.detection.coco_ground_truth import read_ground_truth
    from engine.evaluation.coco_results import read_results
    from engine.evaluation.parquet_results import is_parquet, read_parquet

    assert cfg.predictions is not None and cfg.annotations is not None
    tinyperson = cfg.score.protocol == "tinyperson"
    ground_truth = read_ground_truth(cfg.annotations, cfg.images or Path(), honor_ignore=tinyperson)
    records = ground_truth.records
    if is_parquet(cfg.predictions):
        detections = read_parquet(cfg.predictions, cfg.annotations, records, ground_truth.names)
        notes: list[str] = []
    else:
        detections, notes = read_results(cfg.predictions, _known(cfg.annotations, ground_truth))
    for note in [*ground_truth.notes, *notes]:
        LOG.warning("%s", note)
    if not cfg.single_cls:
        return Predictions(records, detections), ground_truth.names
    records = [replace(record, classes=record.classes * 0) for record in records]
    return Predictions(records, replace(detections, classes=detections.classes * 0)), ("object",)


def _known(file: Path, ground_truth: CocoGroundTruth) -> Known:
    """Return the images and categories that a results file may refer to."""
    from engine.evaluation.coco_results import Known

    records = ground_truth.records
    return Known(
        file,
        {record.image_id: number for number, record in enumerate(records)},
        {category: number for number, category in enumerate(ground_truth.category_ids)},
        [(record.width, record.height) for record in records],
    )


def image_reader(folder: Path | None) -> ReadImage | None:
    """Return the function that reads the images of a folder; None without one.

    Raises:
        UserError: the folder does not exist.
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


def check_classes(names: Sequence[str], data: DatasetConfig, single_cls: bool) -> None:
    """Compare the classes of weights and data; warn where the names differ.

    Raises:
        UserError: the numbers of classes differ.
    """
    if single_cls or tuple(names) == data.names:
        return
    shown = [", ".join(some[:5]) + (", ..." if len(some) > 5 else "") for some in (names, data.names)]
    if len(names) != len(data.names):
        raise UserError(
            f"the weights know {len(names)} classes ({shown[0]}), but {data.file} names "
            f"{len(data.names)} ({shown[1]}); choose the --data they were trained on, or --single-cls"
        )
    LOG.warning("the weights call the classes %s, %s calls them %s", shown[0], data.file, shown[1])


def detect_settings(
    cfg: ValConfig, predictor: Predictor, data: DatasetConfig, imgsz: tuple[int, int]
) -> DetectSettings:
    """Return how detect.py would detect on full images; without --tile, in the data set's tiles."""
    from engine.inference.config import DetectConfig
    from engine.inference.settings import make_settings

    detection = DetectConfig(
        imgsz=imgsz,
        suppression=replace(cfg.suppression, max_det=kept_per_image(cfg, 1000)),
        tiles=cfg.tiles,
        resizing=cfg.resizing,
    )
    settings = make_settings(predictor, detection)
    settings = replace(settings, multi_label=True, batch_size=min(cfg.batch_size, settings.batch_size))
    if cfg.tiles.tile is None:
        settings = replace(settings, tiling=data.tile, tile_from=0)
    return settings


def scoring_of(cfg: ValConfig) -> Scoring:
    """Return how detections are scored and those of the data set's tiles merged."""
    score = cfg.score
    rule = MergeRule(threshold=cfg.suppression.iou_thres)
    return Scoring(score.scoring(), score.max_dets, score.evaluator, rule)


def kept_per_image(cfg: ValConfig, least: int) -> int:
    """Return --max-det; without it, the largest detection limit, but at least `least`."""
    return cfg.suppression.max_det or max(least, *(cfg.score.max_dets or cfg.score.scoring().max_dets))


def _described(imgsz: tuple[int, int], settings: DetectSettings | None) -> str:
    """'640 px', '480x640 px', '640 px, tiles of 640 px as in detect.py'."""
    size = f"{imgsz[0]} px" if imgsz[0] == imgsz[1] else f"{imgsz[0]}x{imgsz[1]} px"
    if settings is None:
        return size
    tiles = f"tiles of {settings.tiling.size} px" if settings.tiling else "full images"
    return f"{size}, {tiles} as in detect.py"
