"""Detect objects in images, videos and streams.

python detect.py                                                  # the newest training run, on a sample
python detect.py --weights best.pt --source photos/ --save-txt --save-conf
python detect.py --weights best.onnx --source street.mp4 --track bytetrack
python detect.py --weights best.pt --source aerial.tif --tile auto    # small objects in a large image
python detect.py --weights best.pt --source rtsp://camera/live 0      # a stream and a webcam

In Python: `from detect import Detector`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.inference.config import DetectConfig
from engine.inference.detector import Detector
from utils.errors import UserError

if TYPE_CHECKING:
    from data.dataset_yaml import DatasetConfig
    from data.media.frame import Frame
    from data.media.sources import Source
    from engine.inference.outputs.result import Output
    from engine.inference.pipeline import DetectionResult, DetectSettings
    from engine.inference.progress import Report
    from engine.inference.tracking import Tracks
    from engine.runtimes import Predictor

__all__ = ["DetectConfig", "Detector", "main"]


def main(cfg: DetectConfig) -> int:
    """Detect, print a line for each image and a summary; 1 where sources had to be left"""
    from data.media.sources import open_source
    from engine.inference.pipeline import detect_images
    from engine.inference.progress import Report
    from engine.inference.test_time_augmentation import TestTimeAugmentation
    from engine.inference.tracking import Tracks
    from engine.runtimes import load_predictor
    from utils.device import select_device
    from utils.run_folders import newest_weights

    source = open_source(cfg.source, cfg.vid_stride, lambda line: print(f"left out: {line}", file=sys.stderr))
    description = _description(cfg)
    weights = cfg.weights or (newest_weights(),)
    names = description.names if description else None
    device = select_device(cfg.hardware.device)
    predictor = load_predictor(weights, device, half=cfg.hardware.half, names=names, task=None)
    if predictor.task == "classify":
        from engine.inference.classification.command import label

        return label(cfg, source, weights, predictor)
    settings = _settings(cfg, predictor, live=source.count is None)
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    tiles = f", tiles of {settings.tiling.size} px" if settings.tiling else ""
    print(f"{' + '.join(map(str, weights))} on {predictor.device}: {source}{tiles}")
    report = Report(source.count, predictor.names, not cfg.log.quiet)
    source.report = lambda line: report.warn(f"left out: {line}")
    found = detect_images(predictor, source, settings, report=source.leave_out)
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
    from utils.run_folders import make_run_folder

    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    if any(path.parent.resolve() == folder.resolve() for path in source.files):
        raise UserError(f"results in {folder} would overwrite the source; choose another --project or --name")
    return folder


def _description(cfg: DetectConfig) -> DatasetConfig | None:
    if cfg.data is None:
        return None
    from data.dataset_yaml import read_dataset_yaml

    return read_dataset_yaml(cfg.data)


def _settings(cfg: DetectConfig, predictor: Predictor, live: bool) -> DetectSettings:
    """Return how to detect, once all of it is known to fit the weights."""
    from engine.inference.merging.merge import MergeRule
    from engine.inference.pipeline import DetectSettings
    from engine.inference.sizes import input_size, interpolation_for, tiling_for
    from engine.inference.tracking import LOW

    for index in cfg.classes or ():
        if index >= len(predictor.names):
            known = ", ".join(f"{i} {name}" for i, name in enumerate(predictor.names))
            raise UserError(f"--classes {index}: the weights have no such class; choose from: {known}")
    imgsz = input_size(cfg.imgsz, predictor)
    tiling, tile_from = tiling_for(cfg.tiles.side, cfg.tiles.overlap, predictor, imgsz)
    threshold = cfg.suppression.iou_thres if cfg.tiles.tile_thres is None else cfg.tiles.tile_thres
    return DetectSettings(
        imgsz=imgsz,
        conf_thres=min(cfg.suppression.conf_thres, LOW) if cfg.track else cfg.suppression.conf_thres,
        iou_thres=cfg.suppression.iou_thres,
        max_det=cfg.suppression.max_det or 1000,
        classes=cfg.classes,
        agnostic=cfg.agnostic_nms,
        tiling=tiling,
        tile_from=tile_from,
        whole=cfg.tiles.tile_whole,
        merge=MergeRule(cfg.tiles.tile_merge, cfg.tiles.tile_metric, threshold),
        batch_size=cfg.batch_size or (1 if live else 8),
        interpolation=interpolation_for(predictor, cfg.resizing.interpolation, validation=False),
    )


def _open_outputs(
    cfg: DetectConfig, folder: Path | None, description: DatasetConfig | None, tracks: Tracks | None
) -> list[Output]:
    from engine.inference.outputs.coco import CocoResults
    from engine.inference.outputs.crops import Crops
    from engine.inference.outputs.csv_file import Csv
    from engine.inference.outputs.display import Display
    from engine.inference.outputs.heat_map import HeatMap
    from engine.inference.outputs.labels import Labels
    from engine.inference.outputs.media import Frames, Media

    chosen: list[Output] = [Display()] if cfg.draw.view_img else []
    if tracks is not None:
        chosen.append(tracks)
    if folder is None:
        return chosen
    if not cfg.draw.nosave:
        chosen.append(Media(folder))
    if cfg.draw.save_frames:
        chosen.append(Frames(folder / "frames"))
    if cfg.labels.save_txt:
        chosen.append(Labels(folder / "labels", cfg.labels.save_conf))
    if cfg.labels.save_json:
        ids = description.category_ids if description else None
        chosen.append(CocoResults(folder / "predictions.json", ids))
    if cfg.save_csv:
        chosen.append(Csv(folder / "predictions.csv"))
    if cfg.save_crop:
        chosen.append(Crops(folder / "crops"))
    if cfg.heatmap:
        chosen.append(HeatMap(folder / "heatmaps"))
    return chosen


def _write(
    cfg: DetectConfig,
    found_frames: Iterator[DetectionResult[Frame]],
    predictor: Predictor,
    outputs: list[Output],
    report: Report,
) -> None:
    """Follow the objects of every frame, where asked to, and hand the result to every output."""
    from engine.inference.outputs.result import FrameResult, Style, UniqueNames
    from engine.inference.tracking import Tracking

    style = Style(cfg.draw.line_thickness, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    name_of = UniqueNames()
    follow = Tracking(cfg.track, cfg.suppression.conf_thres) if cfg.track else None
    for found in found_frames:
        frame = found.item
        detections = follow(frame, found.detections) if follow else found.detections
        result = FrameResult(frame, name_of(frame.path), detections, predictor.names, style)
        for output in outputs:
            output.add(result)
        report.add(found, result)
