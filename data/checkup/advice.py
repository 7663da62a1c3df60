"""Advice from sizes: each function looks at one thing and returns a sentence with its numbers, or None.

The yardstick is two cells of the finest feature map: a narrower object shares its cell with background, and
in a crowd with its neighbors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.checkup.sizes import Sizes, share, share_small, sides, thin
from data.tiling import Tiling, tiles_pay_from
from utils.anchors import best_possible_recall, fit_anchors, side_ratio

CELLS = 2
MANY_UNDER = 0.1  # share of objects under two cells that is worth a change
LARGEST_INPUT = 1536  # pixels; from here on tiles are cheaper than a larger input
ENOUGH_RECALL = 0.98
ANCHOR_T = 4.0
COCO_LIMIT, NMS_LIMIT = 100, 300  # detections per class that COCO's AP counts; detections that NMS keeps


@dataclass(frozen=True, eq=False)
class Facts:
    """What advice is based on.

    Attributes:
        sizes: of the training objects.
        trained_sizes: (m, 2) widths and heights of boxes as they are trained on, pixels of the input.
        counts: (t,) objects of each image or tile.
        imgsz: side of the input, pixels.
        tiling: how images are cut.
        strides: of the detector's levels, ascending.
        anchors: (k, 2) of all levels, pixels; none of an anchor-free detector.
        names: class names.
    """

    sizes: Sizes
    trained_sizes: np.ndarray
    counts: np.ndarray
    imgsz: int
    tiling: Tiling | None
    strides: tuple[float, ...]
    anchors: np.ndarray
    names: tuple[str, ...]

    @property
    def need(self) -> float:
        """Two cells of the finest feature map, pixels."""
        return CELLS * self.strides[0]

    @property
    def recall(self) -> float:
        """Best possible recall of the anchors; without anchors every box has its cell."""
        return (
            1.0 if not len(self.anchors) else best_possible_recall(self.trained_sizes, self.anchors, ANCHOR_T)
        )

    @property
    def scale(self) -> float:
        """Input pixels per file pixel, in the median image."""
        return float(np.median(self.sizes.scales))

    @property
    def full_size(self) -> int:
        """The input at which nine of ten images (or tiles) are not shrunk, a multiple of 32."""
        return int(-(-np.percentile(self.sizes.long_sides, 90) // 32) * 32)

    def under(self, scale: float = 1.0, need: float | None = None) -> float:
        """Share of objects under `need` (two cells) if all were `scale` times as large as at the input."""
        return share(sides(self.sizes.at_input) * scale < (need or self.need))

    @property
    def shrinks(self) -> bool:
        """Whether images are shrunk so far that many objects are under two cells, or become COCO-small."""
        grown = share_small(self.sizes.at_input) - share_small(self.sizes.in_file)
        return self.scale < 0.95 and (self.under() > MANY_UNDER or grown > MANY_UNDER)


def advise(facts: Facts) -> list[str]:
    """Return all advice, the most useful first; none for a data set without objects."""
    if not len(facts.sizes.in_file):
        return []
    return [sentence for check in CHECKS if (sentence := check(facts))]


def image_size(facts: Facts) -> str | None:
    """Advise an input at which images keep their size."""
    if not facts.shrinks or facts.full_size > LARGEST_INPUT:
        return None
    small = f"{share_small(facts.sizes.in_file):.0%} to {share_small(facts.sizes.at_input):.0%}"
    what = "tiles" if facts.tiling else "images"
    return (
        f"--imgsz {facts.full_size}: at {facts.imgsz} the {what} are shrunk to {facts.scale:.0%} of their "
        f"size. That raises the share of objects COCO would call small from {small}, and "
        f"{facts.under():.0%} are under {facts.need:g} px, two cells of the finest feature map; at "
        f"{facts.full_size} it is {facts.under(1 / facts.scale):.0%}."
    )


def tiling(facts: Facts) -> str | None:
    """Advise tiles where images are far larger than the input."""
    if facts.tiling or not facts.shrinks or facts.full_size < tiles_pay_from(facts.imgsz):
        return None
    size = facts.imgsz
    overlap, long_side = _overlap(facts, size), np.median(facts.sizes.long_sides)
    return (
        f"tile: {{size: {size}, overlap: {overlap:g}}} in the data set's YAML: images are about "
        f"{long_side:.0f} px long and shrunk to {facts.scale:.0%}; as tiles they keep "
        f"their size at --imgsz {size}, and {facts.under(1 / facts.scale):.0%} instead of "
        f"{facts.under():.0%} of the objects are under {facts.need:g} px."
    )


def tile_overlap(facts: Facts) -> str | None:
    """Advise more overlap where many objects may lie whole in no tile."""
    if facts.tiling is None:
        return None
    shared = facts.tiling.overlap * facts.tiling.size
    longer = facts.sizes.in_file.max(1)
    overlap, cut = _overlap(facts, facts.tiling.size), share(longer > shared)
    if cut <= MANY_UNDER or overlap <= facts.tiling.overlap:
        return None
    return (
        f"tile overlap {overlap:g}: neighboring tiles share {shared:.0f} px, but {cut:.0%} "
        f"of the objects are longer and may be whole in no tile."
    )


def _overlap(facts: Facts, size: int) -> float:
    """Share of a tile's side that 19 of 20 objects fit into, in steps of .05."""
    longest = np.percentile(facts.sizes.in_file.max(1), 95)
    return float(np.clip(np.ceil(longest / size * 20) / 20, 0.1, 0.5))


def fine_head(facts: Facts) -> str | None:
    """Advise a level of stride 4 where objects are small even at full size."""
    at_best = max(1.0, 1 / facts.scale) if facts.shrinks else 1.0
    if facts.strides[0] <= 4 or facts.under(at_best) <= 2 * MANY_UNDER:
        return None
    when = "even at full size" if at_best > 1 else f"at {facts.imgsz}"
    return (
        f"a head with stride 4 (--cfg yolov5n-spd-p2): {when}, {facts.under(at_best):.0%} of the objects are "
        f"under {facts.need:g} px, two cells of stride {facts.strides[0]:g}; "
        f"{facts.under(at_best, CELLS * 4):.0%} are under {CELLS * 4} px, two cells of stride 4."
    )


def anchors(facts: Facts) -> str | None:
    """Advise new anchors where they miss boxes, or where many of them fit none."""
    if not len(facts.trained_sizes) or not len(facts.anchors):
        return None
    recall = facts.recall
    fits = np.atleast_1d((side_ratio(facts.trained_sizes, facts.anchors) > 1 / ANCHOR_T).any(0))
    idle = int((~fits).sum())
    if recall >= ENOUGH_RECALL and 3 * idle < len(fits):
        return None
    sizes, count = facts.trained_sizes, len(facts.anchors)
    fitted = fit_anchors(sizes, count, ANCHOR_T, generations=200, strides=facts.strides)
    if fitted is None:
        return None
    after = best_possible_recall(facts.trained_sizes, fitted, ANCHOR_T)
    state = f"{idle} of {len(fits)} anchors fit no box; the best possible recall is {recall:.1%}"
    if recall < ENOUGH_RECALL:
        return f"new anchors: {state}, and {after:.1%} with anchors fitted to the data. train.py fits them."
    return (
        f"new anchors: {state} and stays {after:.1%}. 'anchor_recall: 2' in the --hyp file fits all of them."
    )


def thin_objects(facts: Facts) -> str | None:
    """Warn of objects that are too thin to be learned."""
    few = thin(facts.sizes.at_input)
    if not few.any():
        return None
    at_full = thin(facts.sizes.at_input * max(1.0, 1 / facts.scale))
    return (
        f"{int(few.sum()):,} objects ({share(few):.1%}) are under 3 px wide or high at {facts.imgsz}, where "
        f"nothing is left to learn from; at full size it is {int(at_full.sum()):,}."
    )


def limits(facts: Facts) -> str | None:
    """Warn where images hold more objects than NMS keeps or COCO counts."""
    fullest, fullest_class = int(facts.counts.max()), int(facts.sizes.fullest_class.max())
    warnings = []
    if fullest > NMS_LIMIT:
        above = int((facts.counts > NMS_LIMIT).sum())
        hold = "images hold" if above > 1 else "image holds"
        warnings.append(f"--max-det {fullest}: {above:,} {hold} more than the {NMS_LIMIT} NMS keeps")
    if fullest_class > COCO_LIMIT and facts.tiling is None:
        above = int((facts.sizes.fullest_class > COCO_LIMIT).sum())
        hold = "hold" if above > 1 else "holds"
        warnings.append(
            f"val.py --max-dets 1 10 {fullest_class}: {above:,} {hold} more of one class than the "
            f"{COCO_LIMIT} that COCO's AP counts"
        )
    return "; ".join(warnings) + f" (the fullest has {fullest:,})." if warnings else None


def rare_classes(facts: Facts) -> str | None:
    """Warn of classes with hardly any objects."""
    counts = np.bincount(facts.sizes.classes, minlength=len(facts.names))
    few = [f"{name} ({count})" for name, count in zip(facts.names, counts, strict=True) if count < 10]
    if not few:
        return None
    listed = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
    return f"more images of {listed}: classes with fewer than 10 objects to train on are not learned."


CHECKS: tuple[Callable[[Facts], str | None], ...] = (
    *(image_size, tiling, tile_overlap, fine_head, anchors, thin_objects, limits, rare_classes),
)
