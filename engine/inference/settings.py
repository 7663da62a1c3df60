"""How to detect: the settings of the pipeline, made from options in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.letterbox import Interpolation
from data.tiling import Tiling
from engine.inference.config import DetectConfig
from engine.inference.merging.merge import MergeRule
from engine.inference.sizes import input_size, interpolation_for, tiling_for
from engine.options import NmsOptions, TileOptions
from engine.runtimes import Predictor
from utils.errors import UserError

MAX_DET = 1000  # detections kept per image where the user does not say
TRACKED_FROM = 0.1  # confidence that suffices to continue a known track


@dataclass(frozen=True)
class DetectSettings:
    """How to detect.

    Attributes:
        imgsz: height and width that an image, or a tile, is fitted into, pixels.
        conf_thres: smallest confidence.
        iou_thres: the largest IoU of two boxes of a class.
        max_det: largest number of objects in an image, and in a tile.
        classes: these only; None is all.
        agnostic: let boxes of different classes suppress each other.
        multi_label: a box may count for several classes (evaluation), not its best one only.
        tiling: cut images into tiles; None detects on full images.
        tile_from: images whose longer side is shorter than this, pixels, are not cut.
        whole: detect on the full image besides its tiles, for objects larger than a tile.
        merge: how the tiles' boxes become one image's; None is by seams, with `iou_thres`.
        batch_size: images or tiles at a time.
        interpolation: of images that shrink into the input, as in the network's training.
    """

    imgsz: tuple[int, int]
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 1000
    classes: Sequence[int] | None = None
    agnostic: bool = False
    multi_label: bool = False
    tiling: Tiling | None = None
    tile_from: int = 0
    whole: bool = False
    merge: MergeRule | None = None
    batch_size: int = 8
    interpolation: Interpolation = "area"


def make_settings(predictor: Predictor, cfg: DetectConfig, live: bool = False) -> DetectSettings:
    """Return how to detect, once all of it is known to fit the weights.

    Args:
        predictor: the network.
        cfg: the options of detection; those of sources and outputs do not matter.
        live: frames come from cameras or streams; one at a time then where `cfg` leaves the batch size open.

    Raises:
        UserError: a class that the weights do not have, or a size that does not fit.
    """
    for index in cfg.classes or ():
        if not 0 <= index < len(predictor.names):
            known = ", ".join(f"{i} {name}" for i, name in enumerate(predictor.names))
            raise UserError(f"--classes {index}: the weights have no such class; choose from: {known}")
    size = input_size(cfg.imgsz, predictor)
    tiles, suppression = cfg.tiles, cfg.suppression
    tiling, tile_from = tiling_for(tiles.side, tiles.overlap, predictor, size)
    conf_thres = suppression.conf_thres
    return DetectSettings(
        imgsz=size,
        conf_thres=min(conf_thres, TRACKED_FROM) if cfg.track else conf_thres,
        iou_thres=suppression.iou_thres,
        max_det=suppression.max_det or MAX_DET,
        classes=cfg.classes,
        agnostic=cfg.agnostic_nms,
        tiling=tiling,
        tile_from=tile_from,
        whole=tiles.tile_whole,
        merge=merge_rule(suppression, tiles),
        batch_size=cfg.batch_size or (1 if live else usual_batch(predictor, size)),
        interpolation=interpolation_for(predictor, cfg.resizing.interpolation, validation=False),
    )


BATCH = 8
CACHED = 2**18  # pixels


def usual_batch(predictor: Predictor, imgsz: tuple[int, int]) -> int:
    """Return how many inputs to compute at a time.

    On a CPU only so many that what the layers put out may stay in its caches, for each thread of
    `pipeline.detect_images`: 4 of 256 x 256 pixels, 1 of 640 x 640, of which 8 take 1.25 times as long each.
    """
    if predictor.device.type != "cpu":
        return BATCH
    return max(1, min(BATCH, CACHED // (imgsz[0] * imgsz[1])))


def merge_rule(suppression: NmsOptions, tiles: TileOptions) -> MergeRule:
    """Return how the detections of tiles are merged."""
    threshold = suppression.iou_thres if tiles.tile_thres is None else tiles.tile_thres
    return MergeRule(tiles.tile_merge, tiles.tile_metric, threshold)
