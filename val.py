"""Evaluate a detector: AP overall, by size and by class, on tiles and on whole photographs.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test --sizes 0,8,16,32,64
python val.py --predictions results.json --annotations instances_val2017.json --protocol aitod
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import as_plain, opt, run, save_config, validate
from utils.errors import UserError
from utils.evaluation import Evaluation, evaluate, score
from utils.metrics import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from data.description import DataDescription
    from data.loader import BatchLoader
    from data.records import ImageRecord
    from models.runtime import Predictor
    from utils.gallery import ReadPicture

__all__ = ["Evaluation", "ValConfig", "evaluate", "main", "read_views"]

DEFAULT_DATA = Path("data/treecrowns.yaml")
MANY_CLASSES = 20  # more are listed with --verbose only
MANY_PROBLEMS = 10  # broken pictures listed one by one


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
        None, "input side, px (default: as trained, else 640)", "--img", "--img-size", min=32
    )
    batch_size: int = opt(32, "images a batch", "--batch", min=1)
    conf_thres: float = opt(0.001, "smallest confidence", min=0, max=1)
    iou_thres: float = opt(0.6, "NMS: largest IoU of two boxes of a class", min=0, max=1)
    max_det: int | None = opt(None, "detections kept an image (default: 300, or the limit AP uses)", min=1)
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
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")
        if (self.predictions is None) != (self.annotations is None):
            raise UserError("--predictions are scored against --annotations; give both")
        if self.images is not None and self.predictions is None:
            raise UserError("--images are the pictures of --annotations; without those, --data has its own")
        if self.predictions is not None and (self.weights or self.data or self.save_json or self.save_txt):
            raise UserError("--predictions takes no --weights, --data, --save-json or --save-txt")

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
    from data.description import read_description
    from data.pictures import read_picture
    from data.records import coco_category_ids
    from models.runtime import load_predictor
    from models.test_time_augmentation import TestTimeAugmentation
    from utils.device import select_device
    from utils.runs import make_run_folder, newest_weights
    from utils.val_run import write_json, write_labels

    device = select_device(cfg.device)
    weights = cfg.weights or (newest_weights(),)
    predictor = load_predictor(weights, device, half=cfg.half)
    description = read_description(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    check_classes(predictor.names, description, cfg.single_cls)
    loader = make_loader(cfg, predictor, description)
    names = ("object",) if cfg.single_cls else description.names
    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    imgsz = loader.dataset.imgsz
    title = f"{' + '.join(map(str, weights))} on {description.file} ({cfg.task}) at {imgsz} px"
    print(f"{title}, into {folder}")
    predict: Callable[[Tensor], Tensor] = TestTimeAugmentation(predictor) if cfg.augment else predictor
    evaluation = evaluate(
        as_one_class(predict) if cfg.single_cls else predict,
        loader,
        names,
        device,
        cfg.conf_thres,
        cfg.iou_thres,
        cfg.max_det or max(300, *(cfg.max_dets or cfg.scoring().max_dets)),
        cfg.scoring(),
        cfg.max_dets,
        cfg.evaluator,
    )
    if cfg.save_json:
        ids = None if cfg.single_cls else coco_category_ids(description, cfg.task)
        write_json(evaluation, folder / "predictions.json", ids)
    if cfg.save_txt:
        write_labels(evaluation, folder / "labels", cfg.save_conf)
    used = replace(cfg, weights=weights, data=description.file, imgsz=imgsz)
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


def make_loader(cfg: ValConfig, predictor: Predictor, description: DataDescription) -> BatchLoader:
    """Return the split's views in batches, at the size the weights take."""
    from data.dataset import validation_set
    from data.loader import build_loader

    imgsz = square_size(cfg.imgsz, predictor)
    records = read_views(description, cfg.task, cfg.single_cls)
    rect = cfg.rect and predictor.imgsz is None
    dataset = validation_set(records, imgsz, predictor.stride, rect)
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
