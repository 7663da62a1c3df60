"""Training images made in worker processes: mosaic, random perspective, color, flips and mixing.

What happens is drawn in data/augment/plan.py; this file does it to the pixels. They are interpolated once: an
image's place in the mosaic and the random perspective are one matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from data.augment.copy_paste import paste
from data.augment.loaded_image import LoadedImage
from data.augment.plan import Layer, Plan, Shape, draw_plan
from data.augment.settings import AugmentationSettings
from data.augment.warp import draw_resized, draw_warped
from data.letterbox import GRAY, letterbox

_STRIP = 64  # rows whose colors are changed at once: they stay in the processor's cache
_ROTATIONS = {
    1: cv2.ROTATE_90_COUNTERCLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_CLOCKWISE,
}  # by quarter turns


def augmented(
    first: LoadedImage,
    other: Callable[[], LoadedImage | None],
    settings: AugmentationSettings,
    shape: int | Shape,
    rng: np.random.Generator,
) -> LoadedImage:
    """Return a training image made from `first` and others; see `draw_plan`.

    Args:
        first: the image that the sample is about.
        other: draws another image; None where that one is broken.
        settings: how strong each augmentation is.
        shape: side of the result, or its height and width, pixels.
        rng: the source of every random number.
    """
    height_width = (shape, shape) if isinstance(shape, int) else shape
    plan = draw_plan(first, other, settings, height_width, rng)
    return LoadedImage(draw_pixels(plan), *plan.annotations())


def draw_pixels(plan: Plan) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 BGR of a planned sample."""
    first = plan.layers[0]
    simple = len(plan.layers) == 1 and not first.letterboxed and None not in first.placements
    table = None if plan.colors is None else color_table(plan.colors)
    if simple and table is not None:
        image = _draw_colored(first, plan.shape, table)
    else:
        image = _draw_layer(first, plan.shape)
        if len(plan.layers) == 2:  # Zhang et al., arXiv:1710.09412
            second = _draw_layer(plan.layers[1], plan.shape)
            image = cv2.addWeighted(image, plan.weight, second, 1 - plan.weight, 0)
        if table is not None:
            change_colors(image, table)
    if plan.upside_down or plan.mirrored:
        image = cv2.flip(image, -1 if plan.upside_down and plan.mirrored else int(plan.mirrored))
    return image if not plan.turns else cv2.rotate(image, _ROTATIONS[plan.turns])


def _draw_colored(layer: Layer, shape: Shape, table: np.ndarray) -> np.ndarray:
    """A layer in other colors; the border, a third of a mosaic, is drawn in its new color at once."""
    image = _draw_layer(layer, shape, gray=int(table[0, GRAY, 2]))
    for placement in layer.placements:
        assert placement is not None
        region = placement.region_of(image)
        if region.size:
            change_colors(region, table)
    return image


def _draw_layer(layer: Layer, shape: Shape, gray: int = GRAY) -> np.ndarray:
    if layer.letterboxed:
        image = letterbox(layer.images[0].pixels, shape)[0].copy()  # the image's own where it fits as it is
    else:
        image = np.full((*shape, 3), gray, np.uint8)
        for source, matrix, placement in zip(layer.images, layer.matrices, layer.placements, strict=True):
            if placement is None:
                draw_warped(image, source.pixels, matrix)
            else:
                draw_resized(image, source.pixels, matrix, placement)
    for patch in layer.patches:
        paste(image, patch)
    return image


def color_table(factors: np.ndarray) -> np.ndarray:
    """Return (1, 256, 3) uint8: each level of hue, saturation and brightness times its factor (3,)."""
    levels = np.arange(256)[:, None] * factors  # (256, 3)
    table = np.clip(levels, 0, 255)
    table[:, 0] = levels[:, 0] % 180
    return table.astype(np.uint8)[None]


def change_colors(image: np.ndarray, table: np.ndarray) -> None:
    """Look hue, saturation and brightness of a BGR image (H, W, 3) up in a table (1, 256, 3), in place."""
    for top in range(0, len(image), _STRIP):
        strip = image[top : top + _STRIP]
        hsv = cv2.LUT(cv2.cvtColor(strip, cv2.COLOR_BGR2HSV), table)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, dst=strip)
