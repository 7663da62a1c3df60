"""Scoring: every network's detections go through the project's own evaluator, and are kept.

In the run folder's scored/, inputs.npz holds the detections of the inputs (images or tiles), predictions.json
those of the full images in COCO's results format, as `val.py --save-json` writes them. `--rescore` scores
inputs.npz again, and `val.py --predictions` any such predictions.json.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reproduce.results import AITOD, BY_SIZE, INPUTS, SIDES
from benchmarks.reproduce.statistics import resamples
from utils.errors import UserError

if TYPE_CHECKING:
    from data.image_record import ImageRecord
    from engine.evaluation.evaluator import EvaluationResult
    from engine.evaluation.metrics import GroundTruthColumns
    from engine.evaluation.predictions import Predictions
    from engine.runtimes import Predictor

RESAMPLES = 200  # of the images, for each run
CONFIDENCE, IOU, PER_INPUT = 0.001, 0.6, 300  # as val.py
BATCH = 32  # likewise: images of a batch share their border, so that AP depends on it in the third decimal
Scores = dict[str, Any]


@dataclass(frozen=True)
class ScoredData:
    """What is scored.

    Attributes:
        file: data-set YAML.
        split: "val" or "test".
        imgsz: side of the input, px.
        evaluator: COCO implementation.
        resample: whether to score on resamples of the images as well.
    """

    file: Path
    split: str
    imgsz: int
    evaluator: Any = "hotcoco"
    resample: bool = True

    def records(self) -> list[ImageRecord]:
        """Return the images of the split, or their tiles."""
        from data.dataset_yaml import read_dataset_yaml
        from data.detection.split import read_split

        return read_split(read_dataset_yaml(self.file), self.split)


def detect(predictor: Predictor, data: ScoredData, iou_thres: float = IOU, rect: bool = True) -> Predictions:
    """Detect on every image or tile as val.py does.

    Args:
        predictor: a network, ours or a peer's.
        data: what to detect on.
        iou_thres: of NMS; 1 for a network that needs none.
        rect: inputs of the images' shape, which a file of fixed size does not take.
    """
    from data.detection.dataset import validation_set
    from data.detection.loader import build_loader
    from engine.evaluation.predictions import predict_loader
    from engine.inference.sizes import interpolation_for

    interpolation = interpolation_for(predictor, None, validation=True)
    free = rect and predictor.imgsz is None
    dataset = validation_set(data.records(), data.imgsz, predictor.stride, free, interpolation=interpolation)
    loader = build_loader(dataset, BATCH, shuffle=False, workers=0)
    device = predictor.device
    return predict_loader(predictor, loader, device, CONFIDENCE, iou_thres, PER_INPUT, progress=False)


def save(predictions: Predictions, folder: Path) -> None:
    """Keep the detections of the inputs in `inputs.npz`.

    Raises:
        UserError: an image could not be read, so the run cannot be compared with others.
    """
    if predictions.unread:
        raise UserError(f"{predictions.unread[0].path} cannot be read: repair the data set, then --resume")
    one = predictions.detections
    np.savez_compressed(
        folder / "inputs.npz",
        image=one.image,
        boxes_xywh=one.boxes_xywh,
        scores=one.scores,
        classes=one.classes,
    )


def score(folder: Path, data: ScoredData) -> Scores:
    """Score what `save` kept; write predictions.json and metrics.json beside it and return the metrics."""
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import coco_category_ids
    from engine.evaluation.evaluator import Scoring, evaluate
    from engine.evaluation.metrics import DetectionColumns
    from engine.evaluation.outputs import write_json, write_metrics
    from engine.evaluation.predictions import Predictions

    description, records = read_dataset_yaml(data.file), data.records()
    with np.load(folder / "inputs.npz") as kept:
        names = ("image", "boxes_xywh", "scores", "classes")
        detections = DetectionColumns(num_images=len(records), **{name: kept[name] for name in names})
    predictions = Predictions(records, detections)
    result = evaluate(predictions, description.names, Scoring(evaluator=data.evaluator))
    write_json(result, folder / "predictions.json", coco_category_ids(description, data.split))
    write_metrics(result, folder / "metrics.json")
    return {
        **metrics_of(result, description.names),
        **(on_resamples(result, description.names) if data.resample else {}),
        "images": len(records),
    }


def metrics_of(result: EvaluationResult, names: Sequence[str]) -> Scores:
    """Return the metrics of a row: of the inputs, by AI-TOD's sizes, by size, of the full images."""
    from engine.evaluation.metrics import PROTOCOLS, evaluate_detections

    full, values = result.full_images, result.metrics.values
    scores: Scores = {name: values[name] for name in INPUTS}
    scores |= {f"full_{name}": full.metrics.values[name] for name in INPUTS}
    aitod = evaluate_detections(full.ground_truth, full.detections, names, PROTOCOLS["aitod"]).values
    scores |= {name: aitod[name.replace("aitod_", "AP_")] for name in AITOD}
    protocol = full.metrics.protocol.with_sizes(SIDES)
    by_size = evaluate_detections(full.ground_truth, full.detections, names, protocol).values
    return scores | {name: by_size[name] for name in BY_SIZE}


def on_resamples(result: EvaluationResult, names: Sequence[str], count: int = RESAMPLES) -> Scores:
    """Return AP, AP50 and AP_S on resamples of the inputs, each (count,); {} with a single input.

    NaN stands where a resample has no object that the metric counts.
    """
    from engine.evaluation.metrics import evaluate_detections

    inputs = result.inputs
    if inputs.metrics.images < 2:
        return {}
    protocol = inputs.metrics.protocol
    values: dict[str, list[float]] = {"AP": [], "AP50": [], "AP_S": []}
    objects, detected = Rows(inputs.ground_truth.image), Rows(inputs.detections.image)
    regions = Rows(inputs.ground_truth.region_image)
    for chosen in resamples(inputs.metrics.images, count):
        ground_truth = _ground_truth_of(inputs.ground_truth, objects, regions, chosen)
        which, image = detected.of(chosen)
        detections = replace(inputs.detections.select(which), num_images=len(chosen), image=image)
        scored = evaluate_detections(ground_truth, detections, names, protocol).values
        for name, kept in values.items():
            value = scored[name]
            kept.append(math.nan if value is None else value)
    return {
        f"resampled_{name}": kept for name, kept in values.items() if inputs.metrics.values[name] is not None
    }


class Rows:
    """Which rows of a table belong to each image."""

    def __init__(self, image: NDArray[np.int64]) -> None:
        self.order = np.argsort(image, kind="stable")
        self.sorted = image[self.order]

    def of(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) images -> rows of all of them, and for each row its place in `chosen`."""
        starts = np.searchsorted(self.sorted, chosen, "left")
        lengths = np.searchsorted(self.sorted, chosen, "right") - starts
        places = np.repeat(np.arange(len(chosen)), lengths)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.order[np.repeat(starts, lengths) + within], places


def _ground_truth_of(
    ground_truth: GroundTruthColumns, objects: Rows, regions: Rows, chosen: NDArray[np.int64]
) -> GroundTruthColumns:
    which, image = objects.of(chosen)
    which_regions, region_image = regions.of(chosen)
    return replace(
        ground_truth.select(which),
        num_images=len(chosen),
        image=image,
        region_image=region_image,
        regions_xyxy=ground_truth.regions_xyxy[which_regions],
    )


def score_classifier(folder: Path) -> Scores:
    """Return the accuracy in a run folder's metrics.json, and top-1 on resamples of its predictions.csv."""
    import json

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        right = np.array([row["true"] == row["predicted"] for row in csv.DictReader(file)], float)
    scores = {"top1": metrics["top1"], "top5": metrics.get("top5"), "images": len(right)}
    return {**scores, "resampled_top1": right[resamples(len(right), RESAMPLES)].mean(1).tolist()}
