"""--tile and the options that go with it, as detect.py and val.py take them."""

from __future__ import annotations

from typing import Literal

from utils.errors import UserError

SMALLEST = 32  # pixels


def parse_tile(tile: str | None) -> int | Literal["auto"] | None:
    """'640' -> 640, '0' -> 0 (no tiles), 'auto' and None stay.

    Raises:
        UserError: anything else, or fewer than 32 pixels.
    """
    if tile is None or tile == "auto":
        return tile  # type: ignore[return-value]
    if not tile.isdecimal() or 0 < int(tile) < SMALLEST:
        raise UserError(f"--tile takes a number of pixels from {SMALLEST}, 0 for none, or auto, got {tile}")
    return int(tile)


def check_tile(tile: str | None, whole: bool) -> None:
    """Check --tile, and --tile-whole with it.

    Raises:
        UserError: not a tile, or the full image is wanted besides no tiles.
    """
    if parse_tile(tile) == 0 and whole:
        raise UserError("--tile-whole looks at the full image besides its tiles, but --tile 0 makes none")
