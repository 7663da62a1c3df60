"""Writing a few words on an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

LEAST = 256  # px, longer side of what is written on
SHARE = 0.05  # of the shorter side that a line is high


def draw_lines(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> a copy with the lines in its upper left corner.

    Images smaller than 256 px are enlarged by a whole number, so that words fit beside the pixels.
    """
    from PIL import Image, ImageDraw

    zoom = -(-LEAST // max(image.shape[:2]))
    if zoom > 1:
        image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    if not lines:
        return image.copy()
    canvas = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    draw = ImageDraw.Draw(canvas, "RGBA")
    font, text = _font(max(12, round(SHARE * min(image.shape[:2])))), "\n".join(lines)
    left, top, right, bottom = draw.multiline_textbbox((6, 4), text, font=font)
    draw.rectangle((left - 6, top - 4, right + 6, bottom + 4), fill=(0, 0, 0, 150))
    draw.multiline_text((6, 4), text, font=font, fill=(255, 255, 255, 255))
    return cv2.cvtColor(np.array(canvas), cv2.COLOR_RGB2BGR)


@lru_cache
def _font(size: int) -> Any:
    """DejaVu Sans, which comes with Matplotlib and knows most alphabets."""
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
