"""Training images: mosaic, random perspective, color, flips and mixing, with YOLOv5's hyperparameters.

What happens is drawn in data/augment_plan.py; this file does it to the pixels, in a worker process. They are
interpolated once: an image's place in the mosaic and the random perspective are one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from data.augment.copy_paste import paste
from data.augment.plan import Layer, LoadedImage, Plan, Shape, draw_plan
from data.augment.warp import draw_upright, draw_warped
from data.letterbox import GRAY, letterbox
from utils.errors import UserError

_STRIP = 64  # rows whose colors change at once: they stay in the processor's cache
_ROTATIONS = {
    1: cv2.ROTATE_90_COUNTERCLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_CLOCKWISE,
}  # by quarter turns


@dataclass(frozen=True)
class Augmentation:
    """How much of what; everything off is the plain letterbox.

    Attributes:
        hsv_h: hue changes by up to this share of itself.
        hsv_s: saturation changes by up to this share.
        hsv_v: brightness changes by up to this share.
        degrees: rotation up to this, either way.
        translate: shift up to this share of the side, either way.
        scale: zoom from 1 - scale to 1 + scale.
        shear: shear up to this many degrees, either way.
        perspective: strength of the perspective, 0 to 0.001.
        flipud: probability of a flip upside down.
        fliplr: probability of a flip left to right.
        mosaic: probability of four images around a random point instead of one.
        mixup: probability of blending with a second such image.
        rot90: probability of one to three quarter turns, for images without an up, such as aerial ones.
        tile_jitter: a tile is moved by up to this share of its side, within its full image.
        copy_paste: probability of each small object to be pasted a second time.
        crop: probability that of an image larger than the input a window of the input's size is taken, at
            full resolution, instead of the whole, shrunk.

    Raises:
        UserError: a value is out of range.
    """

    hsv_h: float = 0.0
    hsv_s: float = 0.0
    hsv_v: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    rot90: float = 0.0
    tile_jitter: float = 0.0
    copy_paste: float = 0.0
    crop: float = 0.0

    def __post_init__(self) -> None:
        largest = {"degrees": 180.0, "shear": 40.0, "perspective": 0.01, "scale": 0.99}
        for item in fields(self):
            value, high = getattr(self, item.name), largest.get(item.name, 1.0)
            if not 0 <= value <= high:
                raise UserError(f"augmentation '{item.name}' must be from 0 to {high:g}, got {value!r}")

    @property
    def warps(self) -> bool:
        """Whether a single image is more than letterboxed."""
        return any((self.degrees, self.translate, self.scale, self.shear, self.perspective))

    def without_mixing(self) -> Augmentation:
        """The same for single images: no mosaic, no blend, nothing pasted."""
        return replace(self, mosaic=0.0, mixup=0.0, copy_paste=0.0)

    def for_rectangles(self) -> Augmentation:
        """The same as far as it suits inputs that are no squares: no mosaic, no quarter turns."""
        return replace(self, mosaic=0.0, rot90=0.0)


def augmented(
    first: LoadedImage,
    other: Callable[[], LoadedImage | None],
    augmentation: Augmentation,
    shape: int | Shape,
    rng: np.random.Generator,
) -> LoadedImage:
    """Return a training image made from `first` and others; see `draw_plan`.

    Args:
        first: the image that the sample is about.
        other: draws another image; None where that one is broken.
        augmentation: how much of what.
        shape: side of the result, or its height and width, pixels.
        rng: the source of every random number.
    """
    height_width = (shape, shape) if isinstance(shape, int) else shape
    plan = draw_plan(first, other, augmentation, height_width, rng)
    return LoadedImage(draw_pixels(plan), *plan.truth())


def draw_pixels(plan: Plan) -> np.ndarray:
    """Do to the pixels what was planned: (H, W, 3) uint8 BGR."""
    first = plan.layers[0]
    simple = len(plan.layers) == 1 and not first.letterboxed and None not in first.places
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
    """A layer in other colors, those of the border known beforehand: a third of a mosaic is border."""
    image = _draw_layer(layer, shape, gray=int(table[0, GRAY, 2]))
    for place in layer.places:
        assert place is not None
        part = place.part_of(image)
        if part.size:
            change_colors(part, table)
    return image


def _draw_layer(layer: Layer, shape: Shape, gray: int = GRAY) -> np.ndarray:
    if layer.letterboxed:
        image = letterbox(layer.views[0].image, shape)[0].copy()  # the image's own where it fits as it is
    else:
        image = np.full((*shape, 3), gray, np.uint8)
        for view, matrix, place in zip(layer.views, layer.matrices, layer.places, strict=True):
            if place is None:
                draw_warped(image, view.image, matrix)
            else:
                draw_upright(image, view.image, matrix, place)
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
