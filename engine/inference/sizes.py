"""Which height and width a detector is given, and into which tiles large images are cut."""

from __future__ import annotations

from collections.abc import Sequence

from data.letterbox import Interpolation
from data.tiling import Tiling, tiles_pay_from
from engine.runtimes import Predictor
from utils.errors import UserError

DEFAULT = {"detect": 640, "classify": 32}  # pixels, where neither the user nor the training says


def input_size(imgsz: Sequence[int] | None, predictor: Predictor) -> tuple[int, int]:
    """Return height and width in pixels: as asked for, else as the file fixes it, else as trained.

    Args:
        imgsz: one side, or height and width; None leaves the choice.
        predictor: whose stride and fixed size must fit.

    Raises:
        UserError: it does not fit.
    """
    if imgsz is not None and len(imgsz) not in (1, 2):
        raise UserError(f"--imgsz takes one side or height and width, got {' '.join(map(str, imgsz))}")
    sides = tuple(imgsz) if imgsz else predictor.imgsz or (_trained(predictor),)
    size = (sides[0], sides[-1])
    if predictor.imgsz and size != predictor.imgsz:
        fixed = " ".join(map(str, predictor.imgsz))
        raise UserError(f"--imgsz {' '.join(map(str, sides))}: these weights are fixed to --imgsz {fixed}")
    stride = predictor.stride
    if any(side % stride for side in size):
        better = " ".join(str(-(-side // stride) * stride) for side in sides)
        raise UserError(f"--imgsz must be a multiple of the stride {stride}; try --imgsz {better}")
    return size


def square_side(imgsz: int | None, predictor: Predictor) -> int:
    """Return the side of a square input in pixels, chosen as by `input_size`.

    Raises:
        UserError: it does not fit, or the file takes a size that is not square.
    """
    height, width = input_size((imgsz,) if imgsz else None, predictor)
    if height != width:
        raise UserError(f"these weights take {height}x{width} only; export them square")
    return height


def _trained(predictor: Predictor) -> int:
    side = predictor.config.get("imgsz")
    return side if isinstance(side, int) and side > 0 else DEFAULT[predictor.task]


def interpolation_for(predictor: Predictor, chosen: Interpolation | None, validation: bool) -> Interpolation:
    """Return how images shrink into the input: as chosen, else as in the training of the weights.

    Training here validates on averaged pixels ("area"), as checkpoints note. YOLOv5 trains and detects with
    "linear", while its validation averages; its weights get the same here.

    Args:
        predictor: whose training counts.
        chosen: by the user.
        validation: for the batches of a validation loader, not for detection.
    """
    if chosen:
        return chosen
    noted = predictor.config.get("interpolation")
    if noted in ("area", "linear"):
        return noted
    return "area" if predictor.config or validation else "linear"


def tiling_for(
    tile: int | str | None, overlap: float, predictor: Predictor, imgsz: tuple[int, int]
) -> tuple[Tiling | None, int]:
    """Return how images are cut into tiles, and the longer side in pixels from which they are.

    Args:
        tile: side of a tile, pixels; 0 for none; None for the tiles of the training, if it had any. "auto"
            shows objects as large as in training: its tiles, larger ones where the input is larger; where the
            training saw full images, tiles of the input's size for images that `tools.doctor` would cut.
        overlap: share of its side that a tile has in common with the next.
        predictor: which knows of its training.
        imgsz: height and width of the input.

    Raises:
        UserError: not a size.
    """
    noted = predictor.config.get("tile")
    trained = noted.get("size") if isinstance(noted, dict) else None
    side, size = max(imgsz), tile
    if tile == "auto":
        size = round(trained * side / _trained(predictor)) if trained else side
    elif tile is None:
        size = trained
    if isinstance(size, str):
        raise UserError(f"tile takes a number of pixels, 0 or auto, got '{size}'")
    cut_all = tile != "auto" or bool(trained)
    return Tiling(size, overlap) if size else None, 0 if cut_all else tiles_pay_from(side)
