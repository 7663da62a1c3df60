"""The options of detect.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from engine.options import (
    DeviceOptions,
    FleetOptions,
    LabelOptions,
    NmsOptions,
    ResizeOptions,
    RunOptions,
    TileOptions,
)
from utils.errors import UserError
from utils.log import LogOptions
from utils.options import Options, group, opt


@dataclass(frozen=True)
class DrawOptions(Options):
    """Annotated images."""

    view_img: bool = opt(False, "show results on the screen; any key continues, q ends")
    nosave: bool = opt(False, "do not save annotated images and videos")
    save_frames: bool = opt(False, "write each annotated frame of a video to frames/")
    line_thickness: int | None = opt(
        None, "line width, px (default: by image and boxes)", min=1, task="detect"
    )
    hide_labels: bool = opt(False, "draw boxes without labels")
    hide_conf: bool = opt(False, "draw labels without confidences")

    def __post_init__(self) -> None:
        """Check that there is a screen to show on."""
        super().__post_init__()
        if self.view_img and sys.platform.startswith("linux") and not _has_display():
            raise UserError("--view-img needs a screen, and there is none here ($DISPLAY is not set)")


@dataclass(frozen=True)
class DetectConfig(Options):
    """Detect objects in images, videos and streams."""

    left_out: ClassVar[Mapping[str, str]] = {
        "--visualize": "python -m tools.summary shows the shapes of all layers",
        "--update": "nothing here changes a file of weights",
        "--dnn": "ONNX files run in ONNX Runtime, which is faster than OpenCV's reader",
    }

    weights: tuple[Path, ...] = opt(
        (),
        ".pt, or an export of any format; several are an ensemble (default: newest best.pt, or what ships)",
    )
    source: tuple[str, ...] = opt(
        ("data/samples/treecrowns/images/val",),
        "images, videos, folders, globs, .txt lists, camera numbers, URLs",
    )
    data: Path | None = opt(
        None, "data-set YAML: class names, and category ids for --save-json", task="detect"
    )
    imgsz: tuple[int, ...] | None = opt(
        None,
        "input side or height and width, px (default: as trained, else 640)",
        "--img",
        "--img-size",
        min=4,
    )
    batch_size: int | None = opt(
        None, "images, frames or tiles at a time (default: 1 to 8 by size and device)", "--batch", min=1
    )
    augment: bool = opt(
        False, "detect on scaled and mirrored copies as well: about 2.1 times the work", task="detect"
    )
    track: Literal["bytetrack", "botsort"] | None = opt(
        None, "track objects through videos: ids and counts", task="detect"
    )
    vid_stride: int = opt(1, "use every n-th frame of a video", min=1)
    resizing: ResizeOptions = group(ResizeOptions)
    suppression: NmsOptions = group(NmsOptions)
    classes: tuple[int, ...] | None = opt(
        None, "keep these classes only, such as 0 2 3", min=0, task="detect"
    )
    agnostic_nms: bool = opt(False, "let boxes of different classes suppress each other", task="detect")
    tiles: TileOptions = group(TileOptions)
    labels: LabelOptions = group(LabelOptions)
    save_csv: bool = opt(False, "write predictions.csv, a line per object")
    save_crop: bool = opt(False, "write each object's crop to crops/", task="detect")
    heatmap: bool = opt(False, "write the density of objects to heatmaps/", task="detect")
    draw: DrawOptions = group(DrawOptions)
    hardware: DeviceOptions = group(DeviceOptions)
    fleet: FleetOptions = group(FleetOptions)
    resume: str | None = opt(
        None, "with --ray: finish the run in this folder, or the newest", const="newest", task="detect"
    )
    run: RunOptions = group(RunOptions, project="runs/detect")
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        if self.resume is not None and self.fleet.ray is None:
            raise UserError("--resume finishes a run of --ray; give both")
        if self.fleet.ray is not None:
            for given, flag in ((self.draw.view_img, "--view-img"), (self.track, "--track")):
                if given:
                    raise UserError(f"{flag} needs one process, which sees frame by frame; leave out --ray")

    @property
    def draws(self) -> bool:
        """Whether frames are annotated."""
        return not self.draw.nosave or self.draw.save_frames or self.draw.view_img

    @property
    def saves(self) -> bool:
        """Whether anything is written."""
        chosen = (
            self.draw.save_frames,
            self.labels.save_txt,
            self.labels.save_json,
            self.save_csv,
            self.save_crop,
            self.heatmap,
        )
        return not self.draw.nosave or self.track is not None or any(chosen)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
