"""Which height and width a detector is given, and in which tiles it looks at large pictures."""

from __future__ import annotations

from collections.abc import Sequence

from data.tiling import Tiling
from models.runtime import Predictor
from utils.errors import UserError

DEFAULT = 640  # pixels, where neither the user nor the training says


def input_size(wanted: Sequence[int] | None, predictor: Predictor) -> tuple[int, int]:
    """Return height and width in pixels: as wanted, else as the file fixes it, else as trained.

    Args:
        wanted: one side, or height and width; None leaves the choice.
        predictor: whose stride and fixed size must fit.

    Raises:
        UserError: it does not fit.
    """
    if wanted is not None and len(wanted) not in (1, 2):
        raise UserError(f"--imgsz takes one side or height and width, got {' '.join(map(str, wanted))}")
    sides = tuple(wanted) if wanted else predictor.imgsz or (_trained(predictor),)
    size = (sides[0], sides[-1])
    if predictor.imgsz and size != predictor.imgsz:
        fixed = " ".join(map(str, predictor.imgsz))
        raise UserError(f"--imgsz {' '.join(map(str, sides))}: these weights are fixed to --imgsz {fixed}")
    stride = predictor.stride
    if any(side % stride for side in size):
        better = " ".join(str(-(-side // stride) * stride) for side in sides)
        raise UserError(f"--imgsz must be a multiple of the stride {stride}; try --imgsz {better}")
    return size


def _trained(predictor: Predictor) -> int:
    side = predictor.config.get("imgsz")
    return side if isinstance(side, int) and side > 0 else DEFAULT


def tiling_for(
    wanted: int | str | None, overlap: float, predictor: Predictor, imgsz: tuple[int, int]
) -> Tiling | None:
    """Return how pictures are cut into tiles; None looks at them whole.

    Args:
        wanted: side of a tile, pixels; 0 for none; "auto" for the tiles of the training, or of the input's
            size where the training saw whole pictures; None for the tiles of the training, if it had any.
        overlap: share of its side that a tile has in common with the next.
        predictor: which knows of its training.
        imgsz: height and width of the input.

    Raises:
        UserError: not a size.
    """
    trained = predictor.config.get("tile")
    size = trained.get("size") if isinstance(trained, dict) else None
    if wanted == "auto":
        size = size or max(imgsz)
    elif wanted is not None:
        size = wanted
    if isinstance(size, str):
        raise UserError(f"tile takes a number of pixels, 0 or auto, got '{size}'")
    return Tiling(size, overlap) if size else None
