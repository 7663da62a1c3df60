"""detect.py for classifiers: the most probable classes of images, videos and cameras."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from data.classification.transform import InputTransform
from data.media.sources import Source
from engine.inference.classification.pipeline import classify_frames, input_transform
from engine.inference.outputs.csv_file import ClassesCsv
from engine.inference.outputs.display import Display
from engine.inference.outputs.labels import ClassLabels
from engine.inference.outputs.media import Frames, Media
from engine.inference.outputs.result import ClassifiedFrame, Output, Style
from engine.inference.outputs.writing import write_results
from engine.runtimes import Predictor
from utils.errors import UserError
from utils.log import RESULT
from utils.unique_names import UniqueNames

if TYPE_CHECKING:
    from engine.inference.config import DetectConfig

LOG = logging.getLogger(__name__)


def classify_source(cfg: DetectConfig, source: Source, weights: Sequence[Path], predictor: Predictor) -> int:
    """Classify every frame, log a line each and write what was asked for; 1 where sources were left out.

    Raises:
        UserError: an option is for detectors, the size does not fit, or a file cannot be written.
    """
    cfg.refuse_other_tasks("classify", " + ".join(map(str, weights)))
    if cfg.imgsz and len(set(cfg.imgsz)) > 1:
        raise UserError(f"--imgsz takes one side for a classifier, got {' '.join(map(str, cfg.imgsz))}")
    transform = input_transform(predictor, cfg.imgsz[0] if cfg.imgsz else None)
    LOG.info("%s on %s: %s", " + ".join(map(str, weights)), predictor.device, source)
    batch_size = cfg.batch_size or (1 if source.live else 8)
    start, count = time.perf_counter(), 0

    def log(result: ClassifiedFrame) -> None:
        nonlocal count
        count += 1
        LOG.info("%s", _line(result))

    results = _results(cfg, source, predictor, transform, batch_size)
    code, folder = write_results(cfg, source, results, lambda folder: _open_outputs(cfg, folder), log)
    LOG.log(RESULT, f"{count} classified, {count / (time.perf_counter() - start):.1f} per second")
    if folder:
        LOG.log(RESULT, f"saved in {folder}")
    return code or bool(source.problems)


def _results(
    cfg: DetectConfig, source: Source, predictor: Predictor, transform: InputTransform, batch_size: int
) -> Generator[ClassifiedFrame, None, None]:
    style = Style(None, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    name_of = UniqueNames()
    with closing(classify_frames(source, predictor, transform, batch_size)) as frames:
        for frame, best in frames:
            yield ClassifiedFrame(
                frame, name_of(frame.path, frame.is_video), predictor.names, best, style=style
            )


def _open_outputs(cfg: DetectConfig, folder: Path | None) -> list[Output[ClassifiedFrame]]:
    chosen: list[Output[ClassifiedFrame]] = [Display()] if cfg.draw.view_img else []
    if folder is None:
        return chosen
    if not cfg.draw.nosave:
        chosen.append(Media(folder))
    if cfg.draw.save_frames:
        chosen.append(Frames(folder / "frames"))
    if cfg.labels.save_txt:
        chosen.append(ClassLabels(folder / "labels"))
    if cfg.save_csv:
        chosen.append(ClassesCsv(folder / "predictions.csv"))
    return chosen


def _line(result: ClassifiedFrame) -> str:
    frame = result.frame
    number = f" frame {frame.number}" if frame.is_video else ""
    classes = ", ".join(f"{result.names[k]} {probability:.2f}" for k, probability in result.best)
    return f"{frame.where}{number}: {classes}"
