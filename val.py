"""Evaluate a detector: AP overall, by size and by class, on tiles and on whole photographs.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import opt, run, save_config, validate
from utils.errors import UserError
from utils.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from torch import Tensor

    from data.description import DataDescription
    from data.loader import BatchLoader
    from data.records import ImageRecord
    from models.runtime import Predictor

__all__ = ["Evaluation", "ValConfig", "evaluate", "main", "read_views"]

DEFAULT_DATA = Path("data/treecrowns.yaml")
MANY_CLASSES = 20  # more are listed with --verbose only
MANY_PROBLEMS = 10  # broken pictures listed one by one


@dataclass(frozen=True)
class ValConfig:
    """Evaluate a detector on a data set."""

    weights: tuple[Path, ...] = opt(
        (), ".pt or .onnx; several are an ensemble (default: the newest run's best.pt)"
    )
    data: Path | None = opt(None, "data-set YAML (default: the one the weights were trained on)")
    imgsz: int | None = opt(
        None, "input side, px (default: as trained, else 640)", "--img", "--img-size", min=32
    )
    batch_size: int = opt(32, "images a batch", "--batch", min=1)
    conf_thres: float = opt(0.001, "smallest confidence", min=0, max=1)
    iou_thres: float = opt(0.6, "NMS: largest IoU of two boxes of a class", min=0, max=1)
    max_det: int | None = opt(None, "detections kept an image (default: 300, or the limit AP uses)", min=1)
    max_dets: tuple[int, ...] | None = opt(
        None,
        "limits of the evaluation: detections of a class in an image (default: 1 10 100, "
        "and on whole photographs as many as the fullest holds)",
        min=1,
    )
    protocol: Literal["coco", "aitod", "sodad"] = opt("coco", "size classes and limits")
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
    plots: bool = opt(True, "draw curves, confusion matrix and the first batch")
    project: Path = opt("runs/val", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")


def main(cfg: ValConfig) -> int:
    """Evaluate, print the tables and write the run folder."""
    from data.description import read_description
    from data.records import coco_category_ids
    from models.runtime import load_predictor
    from models.test_time_augmentation import TestTimeAugmentation
    from utils.device import select_device
    from utils.metrics import PROTOCOLS
    from utils.runs import make_run_folder, newest_weights
    from utils.val_run import plot, report, write_json, write_labels, write_metrics

    device = select_device(cfg.device)
    weights = cfg.weights or (newest_weights(),)
    predictor = load_predictor(weights, device, half=cfg.half)
    description = read_description(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    check_classes(predictor.names, description, cfg.single_cls)
    loader = make_loader(cfg, predictor, description)
    names = ("object",) if cfg.single_cls else description.names
    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    imgsz = loader.dataset.imgsz
    print(f"{' + '.join(map(str, weights))} on {description.file} ({cfg.task}) at {imgsz} px, into {folder}")
    predict: Callable[[Tensor], Tensor] = TestTimeAugmentation(predictor) if cfg.augment else predictor
    evaluation = evaluate(
        as_one_class(predict) if cfg.single_cls else predict,
        loader,
        names,
        device,
        cfg.conf_thres,
        cfg.iou_thres,
        cfg.max_det or max(300, *(cfg.max_dets or PROTOCOLS[cfg.protocol].max_dets)),
        cfg.protocol,
        cfg.max_dets,
        cfg.evaluator,
    )
    print(report(evaluation, per_class=cfg.verbose or len(names) <= MANY_CLASSES))
    save_config(replace(cfg, weights=weights, data=description.file, imgsz=imgsz), folder / "config.yaml")
    write_metrics(evaluation, folder / "metrics.json")
    if cfg.save_json:
        ids = None if cfg.single_cls else coco_category_ids(description, cfg.task)
        write_json(evaluation, folder / "predictions.json", ids)
    if cfg.save_txt:
        write_labels(evaluation, folder / "labels", cfg.save_conf)
    if cfg.plots:
        plot(evaluation, folder)
    return 0


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


def make_loader(cfg: ValConfig, predictor: Predictor, description: DataDescription) -> BatchLoader:
    """Return the split's views in batches, at the size the weights take."""
    from data.dataset import DetectionDataset
    from data.loader import build_loader

    imgsz = square_size(cfg.imgsz, predictor)
    records = read_views(description, cfg.task, cfg.single_cls)
    rect = cfg.rect and predictor.imgsz is None
    dataset = DetectionDataset(records, imgsz, stride=predictor.stride, rect=rect, rect_pad=0.5 * rect)
    return build_loader(dataset, cfg.batch_size, shuffle=False, workers=cfg.workers)


def square_size(asked: int | None, predictor: Predictor) -> int:
    """Return the side of the square input: the file's own, what was asked for, as trained, or 640.

    Raises:
        UserError: the file takes another size than what was asked for, or one that is not square.
    """
    from models.sizes import input_size

    height, width = input_size((asked,) if asked else None, predictor)
    if height != width:
        raise UserError(f"these weights take {height}x{width} only; export them square or with --dynamic")
    return height


def read_views(description: DataDescription, split: str, single_cls: bool = False) -> list[ImageRecord]:
    """Return the pictures of a split, or their tiles where the data set is tiled; say what was left out.

    With `single_cls` all objects are of class 0.
    """
    from data.records import read_records
    from data.tiling import tile_records

    records, problems = read_records(description, split)
    for problem in problems[:MANY_PROBLEMS]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > MANY_PROBLEMS:
        print(f"left out: {len(problems) - MANY_PROBLEMS} more", file=sys.stderr)
    if single_cls:
        records = [replace(record, classes=record.classes * 0) for record in records]
    return tile_records(records, description.tile) if description.tile else records


def as_one_class(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a predictor whose only class has each box's best class score."""

    def best(images: Tensor) -> Tensor:
        import torch

        decoded = predict(images)  # (B, N, 5 + classes)
        return torch.cat((decoded[..., :5], decoded[..., 5:].amax(-1, keepdim=True)), -1)

    return best


if __name__ == "__main__":
    run(ValConfig, main)
