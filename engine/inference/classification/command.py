"""detect.py for classifiers: the most probable classes of images, videos and cameras."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from data.classification.transform import InputTransform
from data.media.large_image import overview
from data.media.sources import Source
from engine.inference.classification.drawing import draw_lines
from engine.inference.classification.pipeline import classify_frames, input_transform
from engine.inference.outputs.display import Display
from engine.inference.outputs.folder import make_output_folder
from engine.inference.outputs.media import Frames, Media
from engine.inference.outputs.result import DRAWN_SIDE, FrameResult, Output, Style, UniqueNames
from engine.runtimes import Predictor
from utils.detections import Detections
from utils.errors import UserError
from utils.log import RESULT

if TYPE_CHECKING:
    from engine.inference.config import DetectConfig

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassifiedFrame(FrameResult):
    """The most probable classes of one frame.

    Attributes:
        best: the most probable classes, best first, with their probabilities.
    """

    best: list[tuple[int, float]]

    @cached_property
    def drawn(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR: the frame with its classes; a tiny one is enlarged."""
        image, _ = overview(self.frame.image, DRAWN_SIDE)
        confident = self.style.confidences
        lines = [
            f"{probability:.2f} {self.names[k]}" if confident else self.names[k]
            for k, probability in self.best
        ]
        return draw_lines(image, lines if self.style.labels else [])


def classify_source(cfg: DetectConfig, source: Source, weights: Sequence[Path], predictor: Predictor) -> int:
    """Classify every frame, log a line each and write what was asked for; 1 where sources were left out.

    Raises:
        UserError: an option is for detectors, or the size does not fit.
    """
    cfg.refuse_other_tasks("classify", " + ".join(map(str, weights)))
    if cfg.imgsz and len(set(cfg.imgsz)) > 1:
        raise UserError(f"--imgsz takes one side for a classifier, got {' '.join(map(str, cfg.imgsz))}")
    transform = input_transform(predictor, cfg.imgsz[0] if cfg.imgsz else None)
    LOG.info("%s on %s: %s", " + ".join(map(str, weights)), predictor.device, source)
    batch_size = cfg.batch_size or (1 if source.count is None else 8)
    results = _results(cfg, source, predictor, transform, batch_size)
    start, count, code = time.perf_counter(), 0, 0
    with ExitStack() as stack:
        stack.enter_context(closing(results))
        first = list(islice(results, 1))  # a broken source leaves no run folder behind
        folder = make_output_folder(cfg, source) if first and cfg.saves else None
        outputs = _open_outputs(cfg, folder)
        for output in outputs:
            stack.enter_context(closing(output))
        try:
            for result in chain(first, results):
                count += 1
                for output in outputs:
                    output.add(result)
                LOG.info("%s", _line(result))
        except KeyboardInterrupt:
            LOG.warning("stopped; what was finished is saved")
            code = 130
    LOG.log(RESULT, f"{count} classified, {count / (time.perf_counter() - start):.1f} per second")
    if folder:
        LOG.log(RESULT, f"saved in {folder}")
    return code or bool(source.problems)


def _results(
    cfg: DetectConfig, source: Source, predictor: Predictor, transform: InputTransform, batch_size: int
) -> Generator[ClassifiedFrame, None, None]:
    style = Style(None, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    name_of, nothing = UniqueNames(), Detections.empty()
    with closing(classify_frames(source, predictor, transform, batch_size)) as frames:
        for frame, best in frames:
            yield ClassifiedFrame(frame, name_of(frame.path), nothing, predictor.names, style, best=best)


def _open_outputs(cfg: DetectConfig, folder: Path | None) -> list[Output]:
    chosen: list[Output] = [Display()] if cfg.draw.view_img else []
    if folder is None:
        return chosen
    if not cfg.draw.nosave:
        chosen.append(Media(folder))
    if cfg.draw.save_frames:
        chosen.append(Frames(folder / "frames"))
    if cfg.labels.save_txt:
        chosen.append(Texts(folder / "labels"))
    if cfg.save_csv:
        chosen.append(Csv(folder / "predictions.csv"))
    return chosen


def _line(result: ClassifiedFrame) -> str:
    frame = result.frame
    number = f" frame {frame.number}" if frame.is_video else ""
    classes = ", ".join(f"{result.names[k]} {probability:.2f}" for k, probability in result.best)
    return f"{frame.where}{number}: {classes}"


class Texts:
    """labels/*.txt: a line per class, its probability and its name; a file for every frame."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file."""
        assert isinstance(result, ClassifiedFrame)
        lines = [f"{probability:.5f} {result.names[k]}\n" for k, probability in result.best]
        (self.folder / f"{result.frame_name}.txt").write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


class Csv:
    """One line per class of a frame: file, frame, rank, class, name, probability."""

    COLUMNS = ("file", "frame", "rank", "class", "name", "confidence")

    def __init__(self, path: Path):
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Append this frame's classes."""
        assert isinstance(result, ClassifiedFrame)
        for rank, (k, probability) in enumerate(result.best, 1):
            about = [result.frame.where, result.frame.number, rank, k, result.names[k]]
            self._writer.writerow([*about, f"{probability:.5f}"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
