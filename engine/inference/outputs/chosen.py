"""The outputs that the options of detect.py ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.inference.config import DetectConfig
from engine.inference.outputs.coco import CocoResults
from engine.inference.outputs.crops import Crops
from engine.inference.outputs.csv_file import Csv
from engine.inference.outputs.heat_map import HeatMap
from engine.inference.outputs.labels import Labels
from engine.inference.outputs.media import Frames, Media
from engine.inference.outputs.result import DetectedFrame, Output


def open_outputs(
    cfg: DetectConfig, folder: Path, category_ids: Sequence[int] | None
) -> list[Output[DetectedFrame]]:
    """Open the files that were asked for.

    Args:
        cfg: the options.
        folder: of the run.
        category_ids: of each class, for predictions.json; None numbers the classes from 0.
    """
    chosen: list[Output[DetectedFrame]] = []
    if not cfg.draw.nosave:
        chosen.append(Media(folder))
    if cfg.draw.save_frames:
        chosen.append(Frames(folder / "frames"))
    if cfg.labels.save_txt:
        chosen.append(Labels(folder / "labels", cfg.labels.save_conf, cfg.labels.save_format == 1))
    if cfg.labels.save_json:
        chosen.append(CocoResults(folder / "predictions.json", category_ids))
    if cfg.save_csv:
        chosen.append(Csv(folder / "predictions.csv"))
    if cfg.save_crop:
        chosen.append(Crops(folder / "crops"))
    if cfg.heatmap:
        chosen.append(HeatMap(folder / "heatmaps"))
    return chosen
