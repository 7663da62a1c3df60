"""detect.py: from options to detections on images, videos and streams, and their outputs."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from engine.inference.config import DetectConfig

if TYPE_CHECKING:
    from data.media.sources import Source
    from engine.inference.outputs.result import DetectedFrame, Output
    from engine.inference.settings import DetectSettings
    from engine.inference.tracking import Tracks
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)


def main(cfg: DetectConfig) -> int:
    """Detect, log a line per image and a summary; 1 where sources had to be left out."""
    if cfg.fleet.ray is not None:
        from engine.inference.fleet.command import detect_fleet

        return detect_fleet(cfg)
    from data.media.sources import open_source
    from engine.runtimes import load_predictor
    from utils.device import select_device
    from utils.run_folders import default_weights

    source = open_source(cfg.source, cfg.vid_stride, leave_out)
    names, category_ids = _classes(cfg)
    weights = cfg.weights or (default_weights(),)
    device = select_device(cfg.hardware.device)
    predictor = load_predictor(weights, device, half=cfg.hardware.half, names=names, task=None)
    if predictor.task == "classify":
        from engine.inference.classification.command import classify_source

        return classify_source(cfg, source, weights, predictor)
    return detect_source(cfg, source, weights, predictor, category_ids)


def leave_out(problem: str) -> None:
    """Log a file, stream or image that could not be read."""
    LOG.warning("left out: %s", problem)


def detect_source(
    cfg: DetectConfig,
    source: Source,
    weights: Sequence[Path],
    predictor: Predictor,
    category_ids: Sequence[int] | None,
) -> int:
    """Detect on every frame of a source and write what was asked for.

    Raises:
        UserError: an option does not fit, or a file cannot be written.
    """
    from engine.inference.outputs.writing import write_results
    from engine.inference.progress import Progress
    from engine.inference.settings import make_settings
    from engine.inference.test_time_augmentation import TestTimeAugmentation
    from engine.inference.tracking import Tracks

    settings = make_settings(predictor, cfg, live=source.live)
    if cfg.augment:
        predictor = TestTimeAugmentation(predictor)
    tiles = f", tiles of {settings.tiling.size} px" if settings.tiling else ""
    LOG.info("%s on %s: %s%s", " + ".join(map(str, weights)), predictor.device, source, tiles)
    tracks = Tracks(predictor.names) if cfg.track else None
    results = _detected_frames(cfg, predictor, source, settings)
    with closing(Progress(source.count)) as progress:
        code, folder = write_results(
            cfg,
            source,
            results,
            lambda folder: _open_outputs(cfg, folder, category_ids, tracks),
            progress.add,
        )
    progress.summarize(folder, tracks.counts() if tracks else None, source.problems)
    return code or bool(source.problems)


def _classes(cfg: DetectConfig) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """Class names and category ids of --data."""
    if cfg.data is None:
        return None, None
    from data.dataset_yaml import read_class_names

    return read_class_names(cfg.data)


def _detected_frames(
    cfg: DetectConfig, predictor: Predictor, source: Source, settings: DetectSettings
) -> Generator[DetectedFrame, None, None]:
    """Detect on every frame, and track the objects where asked to."""
    from engine.inference.outputs.result import DetectedFrame, Style
    from engine.inference.pipeline import detect_images
    from engine.inference.tracking import Tracking
    from utils.ultralytics_adapter import import_before_threads
    from utils.unique_names import UniqueNames

    if cfg.draws or cfg.track:
        import_before_threads()
    style = Style(cfg.draw.line_thickness, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    names, name_of = predictor.names, UniqueNames()
    track = Tracking(cfg.track, cfg.suppression.conf_thres) if cfg.track else None
    with closing(detect_images(predictor, source, settings, report=source.leave_out)) as results:
        for one in results:
            detections = track(one.item, one.detections) if track else one.detections
            about = (one.item, name_of(one.item.path, one.item.is_video), names)
            yield DetectedFrame(*about, detections, one.shape, one.tiles, one.stages, style=style)


def _open_outputs(
    cfg: DetectConfig, folder: Path | None, category_ids: Sequence[int] | None, tracks: Tracks | None
) -> list[Output[DetectedFrame]]:
    from engine.inference.outputs.chosen import open_outputs
    from engine.inference.outputs.display import Display

    chosen: list[Output[DetectedFrame]] = [Display()] if cfg.draw.view_img else []
    if tracks is not None:
        tracks.path = folder / "tracks.csv" if folder else None
        chosen.append(tracks)
    return chosen + (open_outputs(cfg, folder, category_ids) if folder else [])
