"""The options of detect.py."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.inference.tile_options import check_tile
from utils.cli import opt, validate
from utils.errors import UserError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class DetectConfig:
    """Detect objects in images, videos and streams."""

    weights: tuple[Path, ...] = opt(
        (),
        ".pt, .onnx, .torchscript, OpenVINO .xml; several are an ensemble (default: newest best.pt)",
    )
    source: tuple[str, ...] = opt(
        ("data/samples/treecrowns/images/val",),
        "images, videos, folders, globs, .txt lists, camera numbers, URLs",
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
    max_det: int = opt(1000, "objects kept in an image", min=1)
    classes: tuple[int, ...] | None = opt(None, "keep these classes only, such as 0 2 3", min=0)
    agnostic_nms: bool = opt(False, "let boxes of different classes suppress each other")
    augment: bool = opt(False, "look at scaled and mirrored copies as well: about 2.1 times the work")
    tile: str | None = opt(
        None,
        "look at tiles of this side, px; 0 for none, or auto (default: as trained: tiles, or full images)",
    )
    overlap: float = opt(0.2, "share of its side that a tile has in common with the next", min=0, max=0.9)
    tile_whole: bool = opt(False, "look at the full image as well, for objects larger than a tile")
    tile_merge: Literal["seams", "nms", "nmm"] = opt("seams", "how the tiles' boxes become one image's")
    tile_metric: Literal["iou", "ios"] = opt("iou", "what overlap is in --tile-merge")
    tile_thres: float | None = opt(
        None, "largest overlap in --tile-merge (default: --iou-thres)", min=0, max=1
    )
    batch_size: int | None = opt(
        None, "images, frames or tiles at a time (default: 8, of streams 1)", "--batch", min=1
    )
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    half: bool = opt(False, "16-bit inference on a GPU")
    track: Literal["bytetrack", "botsort"] | None = opt(None, "follow objects through videos: ids and counts")
    vid_stride: int = opt(1, "look at every n-th frame of a video", min=1)
    quiet: bool = opt(False, "no line for each image and frame")
    view_img: bool = opt(False, "show results on the screen; a key goes on, q ends")
    nosave: bool = opt(False, "do not save annotated images and videos")
    save_frames: bool = opt(False, "write each annotated frame of a video to frames/")
    save_txt: bool = opt(False, "write labels/*.txt in YOLO's format")
    save_conf: bool = opt(False, "add confidences to --save-txt")
    save_json: bool = opt(False, "write predictions.json in COCO's results format")
    save_csv: bool = opt(False, "write predictions.csv, a line for each object")
    save_crop: bool = opt(False, "write each object's image to crops/")
    heatmap: bool = opt(False, "write the density of objects to heatmaps/")
    line_thickness: int | None = opt(None, "line width, px (default: by image and boxes)", min=1)
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
