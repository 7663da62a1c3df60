"""How long does it take to score 1.5 million detections, beside hotcoco on arrays and beside pycocotools?

    python -m benchmarks.eval            # 5,000 images with 300 detections each; pycocotools takes minutes
    python -m benchmarks.eval --quick

The three sides score the same columns and must get the same precision, bit by bit. "ours" is
`evaluate_detections`: checks, hotcoco, and the tables of all classes. "hotcoco" hands it the same arrays
directly, without checks or summary. "pycocotools" is its documented way: a data set of dicts, `loadRes` of an
array. Each side runs in a process of its own, whose peak memory, the data included, is printed.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engine.evaluation.metrics import DetectionColumns, GroundTruthColumns, evaluate_detections
from utils.cli import run
from utils.options import Options, opt
from utils.overlap import xywh_of, xyxy_of

OBJECTS = 7.3  # of an image, as in COCO's validation images


@dataclass(frozen=True)
class EvalBenchmark(Options):
    """Compare our evaluation with hotcoco on arrays and with pycocotools."""

    images: int = opt(5000, "images", min=1)
    per_image: int = opt(300, "detections in each", min=1)
    classes: int = opt(80, "classes", min=1)
    repeats: int = opt(3, "times the fast sides run", min=1)
    quick: bool = opt(False, "250 images with 100 detections each")
    side: Literal["all", "ours", "hotcoco", "pycocotools"] = opt("all", "run one side only")


def random_data(images: int, per_image: int, classes: int) -> tuple[GroundTruthColumns, DetectionColumns]:
    """Make objects of all sizes, and detections around them, most of them of the same class."""
    rng = np.random.default_rng(0)
    count = int(OBJECTS * images)
    image = np.sort(rng.integers(0, images, count))
    corner, size = rng.uniform(0, 500, (count, 2)), rng.lognormal(3.3, 1.0, (count, 2))
    boxes_xywh, labels = np.hstack((corner, size)), rng.integers(0, classes, count)
    ground_truth = GroundTruthColumns(
        num_images=images,
        image=image,
        boxes_xywh=boxes_xywh,
        classes=labels,
        areas=size.prod(1),
        crowd=rng.random(count) < 0.01,
    )

    total = images * per_image
    near = rng.integers(0, count, total)
    detected = xyxy_of(boxes_xywh)[near] + rng.normal(0, 0.12, (total, 4)) * np.tile(size[near], 2)
    detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2])
    guess = np.where(rng.random(total) < 0.8, labels[near], rng.integers(0, classes, total))
    return ground_truth, DetectionColumns(
        num_images=images,
        image=image[near],
        boxes_xywh=xywh_of(detected),
        scores=rng.random(total) ** 3,
        classes=guess,
    )


def ours(ground_truth: GroundTruthColumns, detections: DetectionColumns, classes: int) -> np.ndarray:
    """Return the precision array of our evaluation."""
    return evaluate_detections(
        ground_truth, detections, [str(k) for k in range(classes)]
    ).accumulated.precision


def header(images: int, classes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return COCO's `images` and `categories`; ids start from 1, as 0 means "no match" to pycocotools."""
    return (
        [{"id": i + 1, "width": 640, "height": 640} for i in range(images)],
        [{"id": k + 1, "name": str(k)} for k in range(classes)],
    )


def result_rows(detections: DetectionColumns) -> np.ndarray:
    """Return the (m, 7) array of detections that `loadRes` takes."""
    return np.column_stack(
        (detections.image + 1, detections.boxes_xywh, detections.scores, detections.classes + 1)
    )


def hotcoco_on_arrays(
    ground_truth: GroundTruthColumns, detections: DetectionColumns, classes: int
) -> np.ndarray:
    """Return the precision array of hotcoco when it gets the arrays directly."""
    from hotcoco import COCO, COCOeval

    ids = np.arange(len(ground_truth.image)) + 1
    crowd = ground_truth.crowd.astype(np.int64)
    coco = COCO.from_arrays(
        *header(ground_truth.num_images, classes),
        ground_truth.image + 1,
        ground_truth.classes + 1,
        ground_truth.boxes_xywh,
        ids=ids,
        area=ground_truth.areas,
        iscrowd=crowd,
    )
    coco_eval = COCOeval(coco, coco.load_res(result_rows(detections)), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    result = coco_eval.eval
    assert result is not None
    return np.asarray(result["precision"])


def pycocotools(ground_truth: GroundTruthColumns, detections: DetectionColumns, classes: int) -> np.ndarray:
    """Return the precision array of the reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    columns = (
        ground_truth.image + 1,
        ground_truth.classes + 1,
        ground_truth.boxes_xywh,
        ground_truth.areas,
        ground_truth.crowd.astype(int),
    )
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    objects = zip(*(column.tolist() for column in columns), strict=True)
    annotations = [dict(zip(keys, row, strict=True), id=i) for i, row in enumerate(objects, 1)]
    images, categories = header(ground_truth.num_images, classes)
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
    coco.createIndex()
    coco_eval = COCOeval(coco, coco.loadRes(result_rows(detections)), "bbox")
    coco_eval.evaluate()
    coco_eval.accumulate()
    return coco_eval.eval["precision"]


SIDES: dict[str, Callable[[GroundTruthColumns, DetectionColumns, int], np.ndarray]] = {
    "ours": ours,
    "hotcoco": hotcoco_on_arrays,
    "pycocotools": pycocotools,
}


def run_side(cfg: EvalBenchmark) -> None:
    """Time one side in this process and print what it took as JSON."""
    data = random_data(cfg.images, cfg.per_image, cfg.classes)
    seconds = []
    precision = np.zeros(0)
    for _ in range(1 if cfg.side == "pycocotools" else cfg.repeats):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            precision = SIDES[cfg.side](*data, cfg.classes)
        seconds.append(time.perf_counter() - start)
    unit = 1 << (30 if sys.platform == "darwin" else 20)  # bytes there, KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    digest = zlib.crc32(np.ascontiguousarray(precision).tobytes())
    print(json.dumps({"seconds": statistics.median(seconds), "peak": peak, "digest": digest}))


def main(cfg: EvalBenchmark) -> int:
    """Run every side in its own process; print times, ratios and peak memory."""
    if cfg.side != "all":
        run_side(cfg)
        return 0
    images, per_image = (250, 100) if cfg.quick else (cfg.images, cfg.per_image)
    print(f"{images:,} images, {images * per_image:,} detections, {cfg.classes} classes")
    sizes = {"images": images, "per-image": per_image, "classes": cfg.classes, "repeats": cfg.repeats}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    results = {}
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.eval", "--side", side, *options]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took = results[side] = json.loads(answer)
        print(f"{side:<12} {took['seconds']:8.2f} s   peak {took['peak']:5.2f} GiB", flush=True)
    base = results["ours"]["seconds"]
    print(f"ours / hotcoco on arrays  {base / results['hotcoco']['seconds']:6.2f}")
    print(f"pycocotools / ours        {results['pycocotools']['seconds'] / base:6.1f}")
    same = len({result["digest"] for result in results.values()}) == 1
    print(f"the same precision, bit by bit: {'yes' if same else 'NO'}")
    return 0 if same else 1


if __name__ == "__main__":
    run(EvalBenchmark, main)
