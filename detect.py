"""Detect objects in pictures and videos.

python detect.py                                                  # the newest training run, on a sample
python detect.py --weights best.pt --source photos/ --save-txt --save-conf
python detect.py --weights best.onnx --source street.mp4 --classes 0 2
python detect.py --weights best.pt --source aerial.jpg --tile 640     # small objects in a large picture
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli import opt, run, validate
from utils.errors import UserError

if TYPE_CHECKING:
    from data.description import DataDescription
    from data.outputs import Output
    from data.sources import Frame, MediaFiles
    from models.inference import DetectSettings, Found
    from models.runtime import Predictor


@dataclass(frozen=True)
class DetectConfig:
    """Detect objects in pictures and videos."""

    weights: tuple[Path, ...] = opt(
        (), ".pt or .onnx; several are an ensemble (default: the newest run's best.pt)"
    )
    source: str = opt(
        "data/samples/treecrowns/images/val", "picture, video, folder, glob, or .txt list of paths"
    )
    data: Path | None = opt(None, "data-set YAML: class names, and category ids for --save-json")
    imgsz: tuple[int, ...] | None = opt(
        None,
        "input side or height and width, px (default: as trained, else 640)",
        "--img",
        "--img-size",
        min=32,
    )
    conf_thres: float = opt(0.25, "smallest confidence", "--conf", min=0, max=1)
    iou_thres: float = opt(0.45, "NMS: largest IoU of two boxes of a class", "--iou", min=0, max=1)
    max_det: int = opt(1000, "objects kept in a picture", min=1)
    classes: tuple[int, ...] | None = opt(None, "keep these classes only, such as 0 2 3", min=0)
    agnostic_nms: bool = opt(False, "let boxes of different classes suppress each other")
    augment: bool = opt(False, "look at scaled and mirrored copies as well: about 2.1 times the work")
    tile: int | None = opt(None, "cut pictures into tiles of this side, px, and look at each", min=32)
    overlap: float = opt(0.2, "share of its side that a tile has in common with the next", min=0, max=0.9)
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    half: bool = opt(False, "16-bit inference on a GPU")
    vid_stride: int = opt(1, "look at every n-th frame of a video", min=1)
    view_img: bool = opt(False, "show results on the screen; a key goes on, q ends")
    nosave: bool = opt(False, "do not save annotated pictures and videos")
    save_txt: bool = opt(False, "write labels/*.txt in YOLO's format")
    save_conf: bool = opt(False, "add confidences to --save-txt")
    save_json: bool = opt(False, "write predictions.json in COCO's results format")
    save_csv: bool = opt(False, "write predictions.csv, a line for each object")
    save_crop: bool = opt(False, "write each object's picture to crops/")
    line_thickness: int | None = opt(None, "line width, px (default: by picture and boxes)", min=1)
    hide_labels: bool = opt(False, "draw boxes without labels")
    hide_conf: bool = opt(False, "draw labels without confidences")
    project: Path = opt("runs/detect", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")
        if self.view_img and sys.platform.startswith("linux") and not _has_display():
            raise UserError("--view-img needs a screen, and there is none here ($DISPLAY is not set)")

    @property
    def saves(self) -> bool:
        """Whether anything is written."""
        return not self.nosave or self.save_txt or self.save_json or self.save_csv or self.save_crop


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@dataclass
class Tally:
    """What the summary says."""

    frames: int = 0
    objects: int = 0
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # of the three stages

    def add(self, found: Found) -> None:
        """Count a frame."""
        self.frames += 1
        self.objects += len(found.rows)
        stages = (found.stages.pre, found.stages.inference, found.stages.post)
        self.seconds = [total + spent for total, spent in zip(self.seconds, stages, strict=True)]


def main(cfg: DetectConfig) -> int:
    """Detect, print a line for each picture and a summary; 1 where files had to be left out."""
    from data.sources import open_source
    from models.runtime import load_predictor
    from models.test_time_augmentation import TestTimeAugmentation
    from utils.device import select_device
    from utils.runs import newest_weights

    source = open_source(cfg.source, cfg.vid_stride)
    description = _description(cfg)
    weights = cfg.weights or (newest_weights(),)
    names = description.names if description else None
    predictor = load_predictor(weights, select_device(cfg.device), half=cfg.half, names=names)
    settings = _settings(cfg, predictor)
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    print(f"{' + '.join(map(str, weights))} on {predictor.device}: {_number(len(source.files), 'file')}")
    frames = iter(source)
    first = list(islice(frames, 1))  # a broken source leaves no run folder behind
    folder = _make_folder(cfg, source) if first and cfg.saves else None
    tally, code = Tally(), 0
    with ExitStack() as stack:
        outputs = _open_outputs(cfg, folder, description)
        for output in outputs:
            stack.enter_context(closing(output))
        try:
            _detect(cfg, chain(first, frames), predictor, settings, outputs, tally)
        except KeyboardInterrupt:
            print("\nstopped; what was finished is saved", file=sys.stderr)
            code = 130
    _summarize(tally, folder, source.problems)
    return code or bool(source.problems)


def _make_folder(cfg: DetectConfig, source: MediaFiles) -> Path:
    from utils.runs import make_run_folder

    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    if any(path.parent.resolve() == folder.resolve() for path in source.files):
        raise UserError(f"results in {folder} would overwrite the source; choose another --project or --name")
    return folder


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _description(cfg: DetectConfig) -> DataDescription | None:
    if cfg.data is None:
        return None
    from data.description import read_description

    return read_description(cfg.data)


def _settings(cfg: DetectConfig, predictor: Predictor) -> DetectSettings:
    """Return how to detect, once all of it is known to fit the weights."""
    from data.tiling import Tiling
    from models.inference import DetectSettings
    from models.sizes import input_size

    for index in cfg.classes or ():
        if index >= len(predictor.names):
            known = ", ".join(f"{i} {name}" for i, name in enumerate(predictor.names))
            raise UserError(f"--classes {index}: the weights have no such class; choose from: {known}")
    trained = predictor.config.get("tile")
    if cfg.tile is None and isinstance(trained, dict) and trained.get("size"):
        size = trained["size"]
        print(
            f"note: trained on tiles of {size} px; for pictures much larger than that consider --tile {size}"
        )
    return DetectSettings(
        imgsz=input_size(cfg.imgsz, predictor),
        conf_thres=cfg.conf_thres,
        iou_thres=cfg.iou_thres,
        max_det=cfg.max_det,
        classes=cfg.classes,
        agnostic=cfg.agnostic_nms,
        tiling=Tiling(cfg.tile, cfg.overlap) if cfg.tile else None,
    )


def _open_outputs(
    cfg: DetectConfig, folder: Path | None, description: DataDescription | None
) -> list[Output]:
    from data import outputs as out

    chosen: list[Output] = [out.Window()] if cfg.view_img else []
    if folder is None:
        return chosen
    if not cfg.nosave:
        chosen.append(out.Media(folder))
    if cfg.save_txt:
        chosen.append(out.Labels(folder / "labels", cfg.save_conf))
    if cfg.save_json:
        chosen.append(
            out.CocoResults(folder / "predictions.json", description.category_ids if description else None)
        )
    if cfg.save_csv:
        chosen.append(out.Csv(folder / "predictions.csv"))
    if cfg.save_crop:
        chosen.append(out.Crops(folder / "crops"))
    return chosen


def _detect(
    cfg: DetectConfig,
    frames: Iterable[Frame],
    predictor: Predictor,
    settings: DetectSettings,
    outputs: list[Output],
    tally: Tally,
) -> None:
    """Detect on every frame and hand the result to every output."""
    from data.outputs import Result, Style, UniqueNames
    from models.inference import find_objects

    style = Style(cfg.line_thickness, not cfg.hide_labels, not cfg.hide_conf)
    name_of = UniqueNames()
    for frame in frames:
        found = find_objects(predictor, frame.image, settings)
        print(_line(frame, found, predictor.names), flush=True)
        result = Result(frame, name_of(frame.path), found.rows, predictor.names, style)
        for output in outputs:
            output.add(result)
        tally.add(found)


def _line(frame: Frame, found: Found, names: list[str]) -> str:
    """Return 'image 1/4 a.jpg: 416x320 12 trees, pre 1.2 ms, inference 20.1 ms, NMS 0.5 ms'."""
    kind = "video" if frame.is_video else "image"
    number = f" (frame {frame.number}/{frame.total or '?'})" if frame.is_video else ""
    tiles = f" x {found.tiles} tiles" if found.tiles > 1 else ""
    counts = sorted(Counter(found.rows[:, 5].astype(int).tolist()).items())
    objects = ", ".join(f"{count} {names[index]}{'s' * (count > 1)}" for index, count in counts)
    size = f"{found.shape[0]}x{found.shape[1]}{tiles}"
    stages = found.stages
    times = _times([stages.pre, stages.inference, stages.post])
    return f"{kind} {frame.index}/{frame.files}{number} {frame.path}: {size} {objects or 'nothing'}, {times}"


def _times(seconds: list[float]) -> str:
    names = ("pre", "inference", "NMS")
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in zip(names, seconds, strict=True))


def _summarize(tally: Tally, folder: Path | None, problems: list[str]) -> None:
    if tally.frames:
        counted = f"{_number(tally.objects, 'object')} in {_number(tally.frames, 'image')}"
        mean = _times([spent / tally.frames for spent in tally.seconds])
        print(f"{counted}; mean of an image: {mean}")
    if folder is not None:
        print(f"saved in {folder}")
    if problems:
        print(f"{_number(len(problems), 'file')} could not be read, wholly or in part:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in problems), file=sys.stderr)


if __name__ == "__main__":
    run(DetectConfig, main)
