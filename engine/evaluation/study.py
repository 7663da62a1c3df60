"""val.py --task study: AP and time over the size of the input."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable

from engine.evaluation.config import ValConfig
from engine.evaluation.evaluator import EvaluationResult
from engine.evaluation.metrics.tables import align
from utils.errors import UserError
from utils.files import write_atomically
from utils.log import RESULT
from utils.run_folders import make_run_folder

LOG = logging.getLogger(__name__)
SIZES = range(256, 1536 + 128, 256)  # pixels
COLUMNS = ("imgsz", "AP", "AP50", "AP_S", "inference_ms", "nms_ms")


def run_study(cfg: ValConfig, evaluate: Callable[[ValConfig], object]) -> list[dict[str, float | None]]:
    """Evaluate at each size, print the table and write study.csv into the run folder.

    Args:
        cfg: the options; those of the task and of the size are replaced.
        evaluate: evaluates weights and returns the result.

    Raises:
        UserError: the weights are a classifier.
    """
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    rows: list[dict[str, float | None]] = []
    for imgsz in SIZES:
        one = cfg.replace(task="val", imgsz=imgsz, plots=False, project=folder, name=str(imgsz))
        result = evaluate(one)
        if not isinstance(result, EvaluationResult):
            raise UserError("--task study is for detectors, and these weights are a classifier")
        values, seconds = result.metrics.values, result.seconds
        row = {"imgsz": imgsz, **{key: values.get(key) for key in ("AP", "AP50", "AP_S")}}
        row |= {f"{stage}_ms": 1e3 * seconds.get(stage, 0.0) for stage in ("inference", "nms")}
        rows.append(row)
    with write_atomically(folder / "study.csv") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    table = [list(COLUMNS), *(["-" if row[c] is None else f"{row[c]:.4g}" for c in COLUMNS] for row in rows)]
    LOG.log(RESULT, f"\n{align(table)}")
    LOG.log(RESULT, f"saved in {folder}")
    return rows
