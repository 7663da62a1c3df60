"""Detect objects in pictures, videos and streams.

python detect.py                                                  # the newest training run, on a sample
python detect.py --weights best.pt --source photos/ --save-txt --save-conf
python detect.py --weights best.onnx --source street.mp4 --track bytetrack
python detect.py --weights best.pt --source aerial.tif --tile auto    # small objects in a large picture
python detect.py --weights best.pt --source rtsp://camera/live 0      # a stream and a webcam

In Python: `from detect import Detector`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.python_api import Detector
from utils.cli import opt, run, validate
from utils.errors import UserError
from utils.tile_options import check_tile, parse_tile

if TYPE_CHECKING:
    from data.description import DataDescription
    from data.media.frame import Frame
    from data.media.outputs import Output
    from data.media.report import Report
    from data.media.sources import Source
    from data.media.tracking import Tracks
    from models.inference import DetectSettings, Found
    from models.runtimes import Predictor

__all__ = ["DetectConfig", "Detector", "main"]


@dataclass(frozen=True)
class DetectConfig:
    """Detect objects in pictures, videos and streams."""

    weights: tuple[Path, ...] = opt(
        (),
        ".pt, .onnx, .torchscript, OpenVINO .xml; several are an ensemble (default: newest best.pt)",
    )
    source: tuple[str, ...] = opt(
        ("data/samples/treecrowns/images/val",),
        "pictures, videos, folders, globs, .txt lists, camera numbers, URLs",
    )
    data: Path | None = opt(None, "data-set YAML: class names, and category ids for --save-json")
    imgsz: tuple[int, ...] | None = opt(
        None,
        "input side or height and width, px (default: as trained, else 640)",
        "--img",
        "--img-size",
        min=4,
    )
    conf_thres: float = opt(0.25, "smallest confidence", "--conf", min=0, max=1)
    iou_thres: float = opt(0.45, "NMS: largest IoU of two boxes of a class", "--iou", min=0, max=1)
    max_det: int = opt(1000, "objects kept in a picture", min=1)
    classes: tuple[int, ...] | None = opt(None, "keep these classes only, such as 0 2 3", min=0)
    agnostic_nms: bool = opt(False, "let boxes of different classes suppress each other")
    augment: bool = opt(False, "look at scaled and mirrored copies as well: about 2.1 times the work")
    tile: str | None = opt(
        None,
        "look at tiles of this side, px; 0 for none, or auto (default: as trained: tiles, or whole pictures)",
    )
    overlap: float = opt(0.2, "share of its side that a tile has in common with the next", min=0, max=0.9)
    tile_whole: bool = opt(False, "look at the whole picture as well, for objects larger than a tile")
    tile_merge: Literal["seams", "nms", "nmm"] = opt("seams", "how the tiles' boxes become one picture's")
    tile_metric: Literal["iou", "ios"] = opt("iou", "what overlap is in --tile-merge")
    tile_thres: float | None = opt(
        None, "largest overlap in --tile-merge (default: --iou-thres)", min=0, max=1
    )
    batch_size: int | None = opt(
        None, "pictures, frames or tiles at a time (default: 8, of streams 1)", "--batch", min=1
    )
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    half: bool = opt(False, "16-bit inference on a GPU")
    track: Literal["bytetrack", "botsort"] | None = opt(None, "follow objects through videos: ids and counts")
    vid_stride: int = opt(1, "look at every n-th frame of a video", min=1)
    quiet: bool = opt(False, "no line for each picture and frame")
    view_img: bool = opt(False, "show results on the screen; a key goes on, q ends")
    nosave: bool = opt(False, "do not save annotated pictures and videos")
    save_frames: bool = opt(False, "write each annotated frame of a video to frames/")
    save_txt: bool = opt(False, "write labels/*.txt in YOLO's format")
    save_conf: bool = opt(False, "add confidences to --save-txt")
    save_json: bool = opt(False, "write predictions.json in COCO's results format")
    save_csv: bool = opt(False, "write predictions.csv, a line for each object")
    save_crop: bool = opt(False, "write each object's picture to crops/")
    heatmap: bool = opt(False, "write the density of objects to heatmaps/")
    line_thickness: int | None = opt(None, "line width, px (default: by picture and boxes)", min=1)
    hide_labels: bool = opt(False, "draw boxes without labels")
    hide_conf: bool = opt(False, "draw labels without confidences")
    project: Path = opt("runs/detect", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")

    def __post_init__(self) -> None:
        """Check every option."""
        validate(self)
        check_tile(self.tile, self.tile_whole)
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")
        if self.view_img and sys.platform.startswith("linux") and not _has_display():
            raise UserError("--view-img needs a screen, and there is none here ($DISPLAY is not set)")

    @property
    def saves(self) -> bool:
        """Whether anything is written."""
        chosen = (
            self.save_frames,
            self.save_txt,
            self.save_json,
            self.save_csv,
            self.save_crop,
            self.heatmap,
        )
        return not self.nosave or self.track is not None or any(chosen)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main(cfg: DetectConfig) -> int:
    """Detect, print a line for each picture and a summary; 1 where sources had to be left out."""
    from data.media.report import Report
    from data.media.sources import open_source
    from data.media.tracking import Tracks
    from models.inference import find_all
    from models.runtimes import load_predictor
    from models.test_time_augmentation import TestTimeAugmentation
    from utils.device import select_device
    from utils.runs import newest_weights

    source = open_source(cfg.source, cfg.vid_stride, lambda line: print(f"left out: {line}", file=sys.stderr))
    description = _description(cfg)
    weights = cfg.weights or (newest_weights(),)
    names = description.names if description else None
    device = select_device(cfg.device)
    predictor = load_predictor(weights, device, half=cfg.half, names=names, task=None)
    if predictor.task == "classify":
        from models.classification.label import label

        return label(cfg, source, weights, predictor)
    settings = _settings(cfg, predictor, live=source.count is None)
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    tiles = f", tiles of {settings.tiling.size} px" if settings.tiling else ""
    print(f"{' + '.join(map(str, weights))} on {predictor.device}: {source}{tiles}")
    report = Report(source.count, predictor.names, not cfg.quiet)
    source.report = lambda line: report.warn(f"left out: {line}")
    found = find_all(predictor, source, settings, report=source.leave_out)
    code = 0
    with ExitStack() as stack:
        stack.enter_context(closing(report))
        stack.enter_context(closing(found))
        first = list(islice(found, 1))  # a broken source leaves no run folder behind
        folder = _make_folder(cfg, source) if first and cfg.saves else None
        tracks = Tracks(folder / "tracks.csv" if folder else None, predictor.names) if cfg.track else None
        outputs = _open_outputs(cfg, folder, description, tracks)
        for output in outputs:
            stack.enter_context(closing(output))
        try:
            _write(cfg, chain(first, found), predictor, outputs, report)
        except KeyboardInterrupt:
            report.warn("stopped; what was finished is saved")
            code = 130
    report.summarize(folder, tracks.counts() if tracks else None, source.problems)
    return code or bool(source.problems)


def _make_folder(cfg: DetectConfig, source: Source) -> Path:
    from utils.runs import make_run_folder

    folder = make_run_folder(cfg.project, cfg.name, cfg.exist_ok)
    if any(path.parent.resolve() == folder.resolve() for path in source.files):
        raise UserError(f"results in {folder} would overwrite the source; choose another --project or --name")
    return folder


def _description(cfg: DetectConfig) -> DataDescription | None:
    if cfg.data is None:
        return None
    from data.description import read_description

    return read_description(cfg.data)


def _settings(cfg: DetectConfig, predictor: Predictor, live: bool) -> DetectSettings:
    """Return how to detect, once all of it is known to fit the weights."""
    from data.media.tracking import LOW
    from models.inference import DetectSettings
    from models.sizes import input_size, tiling_for
    from utils.merge import MergeRule

    for index in cfg.classes or ():
        if index >= len(predictor.names):
            known = ", ".join(f"{i} {name}" for i, name in enumerate(predictor.names))
            raise UserError(f"--classes {index}: the weights have no such class; choose from: {known}")
    imgsz = input_size(cfg.imgsz, predictor)
    tiling, tile_from = tiling_for(parse_tile(cfg.tile), cfg.overlap, predictor, imgsz)
    threshold = cfg.iou_thres if cfg.tile_thres is None else cfg.tile_thres
    return DetectSettings(
        imgsz=imgsz,
        conf_thres=min(cfg.conf_thres, LOW) if cfg.track else cfg.conf_thres,
        iou_thres=cfg.iou_thres,
        max_det=cfg.max_det,
        classes=cfg.classes,
        agnostic=cfg.agnostic_nms,
        tiling=tiling,
        tile_from=tile_from,
        whole=cfg.tile_whole,
        merge=MergeRule(cfg.tile_merge, cfg.tile_metric, threshold),
        batch_size=cfg.batch_size or (1 if live else 8),
    )


def _open_outputs(
    cfg: DetectConfig, folder: Path | None, description: DataDescription | None, tracks: Tracks | None
) -> list[Output]:
    from data.media import outputs as out
    from data.media.heat_map import HeatMap

    chosen: list[Output] = [out.Window()] if cfg.view_img else []
    if tracks is not None:
        chosen.append(tracks)
    if folder is None:
        return chosen
    if not cfg.nosave:
        chosen.append(out.Media(folder))
    if cfg.save_frames:
        chosen.append(out.Frames(folder / "frames"))
    if cfg.save_txt:
        chosen.append(out.Labels(folder / "labels", cfg.save_conf))
    if cfg.save_json:
        ids = description.category_ids if description else None
        chosen.append(out.CocoResults(folder / "predictions.json", ids))
    if cfg.save_csv:
        chosen.append(out.Csv(folder / "predictions.csv"))
    if cfg.save_crop:
        chosen.append(out.Crops(folder / "crops"))
    if cfg.heatmap:
        chosen.append(HeatMap(folder / "heatmaps"))
    return chosen


def _write(
    cfg: DetectConfig,
    found_frames: Iterator[Found[Frame]],
    predictor: Predictor,
    outputs: list[Output],
    report: Report,
) -> None:
    """Follow the objects of every frame, where asked to, and hand the result to every output."""
    from data.media.outputs import Result, Style, UniqueNames
    from data.media.tracking import Tracking

    style = Style(cfg.line_thickness, not cfg.hide_labels, not cfg.hide_conf)
    name_of = UniqueNames()
    follow = Tracking(cfg.track, cfg.conf_thres) if cfg.track else None
    for found in found_frames:
        frame = found.item
        rows, ids = follow(frame, found.rows) if follow else (found.rows, None)
        result = Result(frame, name_of(frame.path), rows, predictor.names, style, ids)
        for output in outputs:
            output.add(result)
        report.add(found, result)


if __name__ == "__main__":
    run(DetectConfig, main)
