"""Boxes that are plausibly written in another form than the one they are read in.

A single box rarely tells how it was written; all boxes of a split together do. They count as written in
another form where many of them, as they are read, reach far out of their images, and where all would be
inside in the other form, up to their edges. Nothing is converted: whoever made the labels decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Form = Literal["center", "corner", "corners"]
FORMS: dict[Form, str] = {
    "center": "center and size (cx cy w h)",
    "corner": "upper left corner and size (x y w h)",
    "corners": "two corners (x1 y1 x2 y2)",
}
EXAMPLES = 3
LEAST, LEAST_ONE_SIDED = 10, 200  # boxes of a split that can tell a form
MANY = 0.1  # share of the boxes that must reach far out as they are read
ALL = 0.99  # share of the boxes that must be inside in another form: a few rows may be wrong in other ways
FAR = 0.2  # share of a box's area outside of its image that is far
MARGIN = 0.15  # of the image, which boxes that were clipped at its edges reach into
CUT = 0.1  # share from which a box that is cut to its image is worth a note
ROUNDING = 1e-3  # a written fraction may exceed 0..1 by this much

Place = Callable[[int], str]


def such_as(places: Sequence[str]) -> str:
    """Return up to three places as text."""
    return "such as " + ", ".join(places[:EXAMPLES])


def boxes_of(numbers: np.ndarray, form: Form) -> np.ndarray:
    """Four numbers of each box, (n, 4) -> corners (n, 4), as written in `form`."""
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "corners":
        return numbers
    low = first - second / 2 if form == "center" else first
    return np.concatenate([low, low + second], axis=1)


def share_outside(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Share (n,) of each box's area outside of 0..1; boxes (n, 4) are fractions and have a size."""
    inside = np.clip(boxes_xyxy, 0, 1)
    areas, left = (
        (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (boxes_xyxy, inside)
    )
    return 1 - left / areas


def check_form(numbers: np.ndarray, read_as: Form, place: Place) -> tuple[list[str], list[str]]:
    """Return what is wrong with the boxes of a split, and what is worth a note, one line each.

    Args:
        numbers: (n, 4), the four numbers of each box, as fractions of its image's width and height.
        read_as: how the boxes are read.
        place: where box i is written.
    """
    if not len(numbers):
        return [], []
    outside = _outside(numbers, read_as)
    far = np.flatnonzero(outside > FAR)
    tells = len(numbers) >= LEAST and len(far) >= MANY * len(numbers)
    form = _other_form(numbers, read_as) if tells else None
    if form is not None:
        where = such_as([place(int(index)) for index in far[:EXAMPLES]])
        return [
            f"boxes are probably written as {FORMS[form]}, but are read as {FORMS[read_as]}: {len(far)} of "
            f"{len(numbers)} reach far out of their images, and as the former all would be inside; {where}"
        ], []
    cut = np.flatnonzero((outside > CUT) & (outside < 1))  # 1: dropped where it is read
    if not len(cut):
        return [], []
    where = such_as([place(int(index)) for index in cut[:EXAMPLES]])
    return [], [f"{len(cut)} of {len(numbers)} boxes reach out of their images and are cut there; {where}"]


def _outside(numbers: np.ndarray, form: Form) -> np.ndarray:
    """Share (n,) of each box's area outside of its image; 0 for boxes of no size."""
    boxes = boxes_of(numbers, form)
    outside = np.zeros(len(boxes))
    sized = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    outside[sized] = share_outside(boxes[sized])
    return outside


def _other_form(numbers: np.ndarray, read_as: Form) -> Form | None:
    """The form in which all boxes have a size, are inside their images and reach all their edges."""
    for form in ("corners", "corner", "center"):
        if form != read_as:
            boxes = boxes_of(numbers, form)
            inside = (boxes >= -ROUNDING).all(axis=1) & (boxes <= 1 + ROUNDING).all(axis=1)
            fits = inside & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            if fits.mean() >= ALL and _is_clear(boxes[fits], form):
                return form
    return None


def _is_clear(boxes_xyxy: np.ndarray, form: Form) -> bool:
    """Whether boxes are not inside by chance, as where all crowd in one corner of the images.

    Center and corner differ by half a size to one side only; that takes more boxes, at opposite edges.
    """
    low, high = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    if form == "corners":
        return bool((low.min(0) <= MARGIN).all() and (high.max(0) >= 1 - MARGIN).all())
    near = (low <= MARGIN).any(axis=1).mean(), (high >= 1 - MARGIN).any(axis=1).mean()
    return len(boxes_xyxy) >= LEAST_ONE_SIDED and min(near) >= MANY
