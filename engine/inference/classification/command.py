"""detect.py for classifiers: the most probable classes of images, videos and cameras."""

from __future__ import annotations

import csv
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import cv2
import numpy as np
import torch

from data.classification.transform import InputTransform
from data.media.frame import Frame
from data.media.large_image import overview
from data.media.sources import Source
from engine.inference.classification.drawing import draw_lines
from engine.inference.outputs.display import Display
from engine.inference.outputs.media import Frames, Media
from engine.inference.outputs.result import DRAWN_SIDE, FrameResult, Output, Style, UniqueNames
from engine.inference.sizes import square_side
from engine.runtimes import Predictor
from utils.detections import Detections
from utils.errors import UserError
from utils.prefetch import prefetch
from utils.run_folders import make_run_folder

if TYPE_CHECKING:
    from engine.inference.config import DetectConfig

SHOWN = 5  # classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Labeled(FrameResult):
    """What a classifier says of one frame.

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


def label(cfg: DetectConfig, source: Source, weights: tuple[Path, ...], predictor: Predictor) -> int:
    """Label every frame, print a line each and write what was asked for; 1 where sources were left out.

    Raises:
        UserError: an option is for detectors, or the size does not fit.
    """
    cfg.refuse_other_tasks("classify", " + ".join(map(str, weights)))
    if cfg.imgsz and len(set(cfg.imgsz)) > 1:
        raise UserError(f"--imgsz takes one side for a classifier, got {' '.join(map(str, cfg.imgsz))}")
    side = square_side(cfg.imgsz[0] if cfg.imgsz else None, predictor)
    shown = predictor.config.get("resize")
    view = InputTransform(min(shown, side) if isinstance(shown, int) else side, side)
    print(f"{' + '.join(map(str, weights))} on {predictor.device}: {source}")
    results = _label_all(cfg, source, predictor, view)
    start, count, code = time.perf_counter(), 0, 0
    with ExitStack() as stack:
        stack.enter_context(closing(results))
        first = list(islice(results, 1))  # a broken source leaves no run folder behind
        folder = _make_folder(cfg, source) if first and cfg.saves else None
        outputs = _open_outputs(cfg, folder)
        for output in outputs:
            stack.enter_context(closing(output))
        try:
            for result in chain(first, results):
                count += 1
                for output in outputs:
                    output.add(result)
                if not cfg.log.quiet:
                    print(_line(result), flush=True)
        except KeyboardInterrupt:
            print("stopped; what was finished is saved")
            code = 130
    print(f"{count} labeled, {count / (time.perf_counter() - start):.1f} a second")
    if folder:
        print(f"saved in {folder}")
    return code or bool(source.problems)


def _label_all(
    cfg: DetectConfig, source: Source, predictor: Predictor, view: InputTransform
) -> Generator[Labeled, None, None]:
    """Read a little ahead, run the network on batches and yield frame by frame."""
    style = Style(None, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    size = cfg.batch_size or (1 if source.count is None else 8)
    name_of, nothing = UniqueNames(), Detections.empty()
    with closing(prefetch(source)) as frames:
        while batch := list(islice(frames, size)):
            for frame, best in zip(batch, _best(batch, predictor, view), strict=True):
                yield Labeled(frame, name_of(frame.path), nothing, predictor.names, style, best=best)


def _best(frames: list[Frame], predictor: Predictor, view: InputTransform) -> list[list[tuple[int, float]]]:
    """Return the most probable classes of each frame."""
    inputs = [cv2.cvtColor(view(_pixels(frame, view)), cv2.COLOR_BGR2RGB) for frame in frames]
    images = torch.from_numpy(np.stack(inputs)).to(predictor.device).permute(0, 3, 1, 2).float() / 255
    probabilities, classes = predictor(images).float().softmax(1).cpu().sort(1, descending=True)
    return [
        list(zip(k[:SHOWN], p[:SHOWN], strict=True))
        for k, p in zip(classes.tolist(), probabilities.tolist(), strict=True)
    ]


def _pixels(frame: Frame, view: InputTransform) -> np.ndarray:
    """(H, W, 3) uint8 BGR; of what is read by windows, an overview."""
    if isinstance(frame.image, np.ndarray):
        return frame.image
    height, width = frame.image.shape[:2]
    return overview(frame.image, max(4 * view.resize * max(height, width) // min(height, width), 64))[0]


def _make_folder(cfg: DetectConfig, source: Source) -> Path:
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    if any(path.parent.resolve() == folder.resolve() for path in source.files):
        raise UserError(f"results in {folder} would overwrite the source; choose another --project or --name")
    return folder


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


def _line(result: Labeled) -> str:
    frame = result.frame
    number = f" frame {frame.number}" if frame.is_video else ""
    said = ", ".join(f"{result.names[k]} {probability:.2f}" for k, probability in result.best)
    return f"{frame.where}{number}: {said}"


class Texts:
    """labels/*.txt: a line a class, its probability and its name; a file for every frame."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, result: FrameResult) -> None:
        """Write one file."""
        assert isinstance(result, Labeled)
        lines = [f"{probability:.5f} {result.names[k]}\n" for k, probability in result.best]
        (self.folder / f"{result.frame_name}.txt").write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        """Nothing is open."""


class Csv:
    """One line a class of a frame: file, frame, rank, class, name, probability."""

    COLUMNS = ("file", "frame", "rank", "class", "name", "confidence")

    def __init__(self, path: Path):
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self.COLUMNS)

    def add(self, result: FrameResult) -> None:
        """Append this frame's classes."""
        assert isinstance(result, Labeled)
        for rank, (k, probability) in enumerate(result.best, 1):
            who = [result.frame.where, result.frame.number, rank, k, result.names[k]]
            self._writer.writerow([*who, f"{probability:.5f}"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()
