"""Groups of options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.options import Options, opt

SMALLEST_TILE = 32  # pixels
LOCAL = "local"  # --ray without an address


@dataclass(frozen=True)
class RunOptions(Options):
    """Run folder."""

    project: Path = opt("runs", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")


@dataclass(frozen=True)
class DeviceOptions(Options):
    """Device."""

    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    half: bool = opt(False, "16-bit inference on a GPU")


@dataclass(frozen=True)
class ResizeOptions(Options):
    """Resizing."""

    interpolation: Literal["area", "linear"] | None = opt(
        None,
        "how images that shrink into the input are interpolated (default: as in the weights' training)",
        task="detect",
    )


@dataclass(frozen=True)
class NmsOptions(Options):
    """Detections."""

    conf_thres: float = opt(0.25, "smallest confidence", "--conf", min=0, max=1, task="detect")
    iou_thres: float = opt(0.45, "largest IoU of two boxes of a class", "--iou", min=0, max=1, task="detect")
    max_det: int | None = opt(1000, "detections kept per image", min=1, task="detect")


@dataclass(frozen=True)
class TileOptions(Options):
    """Tiles of large images."""

    tile: str | None = opt(
        None,
        "side of a tile, px; 0 for none, or auto (default: as trained, or as the data set says)",
        task="detect",
    )
    overlap: float = opt(
        0.2, "share of its side that a tile has in common with the next", min=0, max=0.9, task="detect"
    )
    tile_whole: bool = opt(
        False, "detect on the full image as well, for objects larger than a tile", task="detect"
    )
    tile_merge: Literal["seams", "nms", "nmm"] = opt(
        "seams", "how the detections of tiles become those of the full image", task="detect"
    )
    tile_metric: Literal["iou", "ios"] = opt("iou", "overlap measure of --tile-merge", task="detect")
    tile_thres: float | None = opt(
        None, "largest overlap in --tile-merge (default: --iou-thres)", min=0, max=1, task="detect"
    )

    def __post_init__(self) -> None:
        """Check that the values fit together."""
        if isinstance(self.tile, int):
            object.__setattr__(self, "tile", str(self.tile))
        super().__post_init__()
        if self.side == 0 and self.tile_whole:
            raise UserError(
                "--tile-whole detects on the full image besides its tiles, but --tile 0 makes none"
            )

    @property
    def side(self) -> int | Literal["auto"] | None:
        """Side of a tile in pixels; 0 for no tiles, "auto", or None where the user leaves the choice.

        Raises:
            UserError: no number of pixels, or fewer than 32.
        """
        if self.tile is None or self.tile == "auto":
            return self.tile  # type: ignore[return-value]
        if not self.tile.isdecimal() or 0 < int(self.tile) < SMALLEST_TILE:
            raise UserError(
                f"--tile takes a number of pixels from {SMALLEST_TILE}, 0 for none, or auto, got {self.tile}"
            )
        return int(self.tile)


@dataclass(frozen=True)
class LabelOptions(Options):
    """Results."""

    save_txt: bool = opt(False, "write labels/*.txt in YOLO's format")
    save_format: Literal[0, 1] = opt(
        0, "numbers of --save-txt: 0 fractions as in YOLO, 1 corners in pixels (Pascal VOC)", task="detect"
    )
    save_conf: bool = opt(False, "add confidences to --save-txt", task="detect")
    save_json: bool = opt(False, "write predictions.json in COCO's results format", task="detect")

    def __post_init__(self) -> None:
        """Check that the values fit together."""
        super().__post_init__()
        if self.save_conf and not self.save_txt:
            raise UserError("--save-conf adds confidences to the files of --save-txt; give both")
        if self.save_format and not self.save_txt:
            raise UserError("--save-format says how the files of --save-txt give boxes; give both")


@dataclass(frozen=True)
class FleetOptions(Options):
    """Ray."""

    ray: str | None = opt(
        None,
        "share the work out to actors of Ray: on this machine, or on the cluster at HOST:PORT or auto",
        const=LOCAL,
        task="detect",
    )
    actors: int | None = opt(
        None,
        "with --ray: actors at work (default: one a GPU; without GPUs, one a core but one)",
        min=1,
        task="detect",
    )

    def __post_init__(self) -> None:
        """Check that the values fit together."""
        super().__post_init__()
        if self.actors is not None and self.ray is None:
            raise UserError("--actors says how many networks --ray runs; give both")
        if self.ray is not None and "://" in self.ray:
            raise UserError(f"--ray takes auto or HOST:PORT, got {self.ray}; submit the command with ray job")
