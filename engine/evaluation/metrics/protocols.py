"""Evaluation protocols as data: size classes, IoU thresholds, detection limits and what is ignored."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

ALL_AREAS = (0.0, 1e10)  # px²
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class SizeClass:
    """Objects whose area in original-image pixels² lies in low..high, both ends included."""

    name: str
    low: float
    high: float

    @property
    def range(self) -> str:
        """'<32²', '32²-96²', '>=96²'."""
        if self.high >= ALL_AREAS[1]:
            return f">={_area(self.low)}"
        return f"{_area(self.low)}-{_area(self.high)}" if self.low else f"<{_area(self.high)}"

    def __str__(self) -> str:
        """'S <32²', 'M 32²-96²', 'L >=96²'."""
        return f"{self.name} {self.range}"


@dataclass(frozen=True)
class Protocol:
    """How detections are scored."""

    name: str
    sizes: tuple[SizeClass, ...]
    max_dets: tuple[int, ...]  # detections that count per class and image, ascending; AP uses the last
    ious: tuple[float, ...] = COCO_IOUS
    ap_of_sizes_at_each_iou: bool = False  # besides their mean, such as AP50_tiny1
    drops_in_regions: bool = False  # objects and detections half inside a region to ignore are dropped

    def with_sizes(self, sides: Sequence[float]) -> Protocol:
        """Return the protocol with size classes between these sides (√area, px); the last class is open.

        Raises:
            ValueError: they do not ascend from 0 or more.
        """
        ascending = all(low < high for low, high in itertools.pairwise(sides))
        if not len(sides) or not ascending or sides[0] < 0 or not all(map(math.isfinite, sides)):
            shown = ",".join(f"{side:g}" for side in sides)
            raise ValueError(f"edges of sizes must ascend from 0 px or more, such as 0,8,16,32, got {shown}")
        sizes = (
            SizeClass(f"{low:g}-{high:g}" if high < math.inf else f"{low:g}+", low**2, min(high**2, _END))
            for low, high in itertools.pairwise([*sides, math.inf])
        )
        return replace(self, sizes=tuple(sizes))

    def with_limits(self, max_dets: Sequence[int]) -> Protocol:
        """Return the protocol with other detection limits.

        Raises:
            ValueError: there are none, or one is below 1.
        """
        limits = tuple(sorted(set(max_dets)))
        if not limits or limits[0] < 1:
            raise ValueError(f"detection limits must be 1 or more, got {limits}")
        return replace(self, max_dets=limits)


def _area(value: float) -> str:
    side = value**0.5
    return f"{side:.0f}²" if side.is_integer() else f"{value:g}"


def _sizes(*edges: tuple[str, float, float]) -> tuple[SizeClass, ...]:
    return tuple(SizeClass(name, low, high) for name, low, high in edges)


_END = ALL_AREAS[1]
_COCO_SIZES = _sizes(("S", 0, 32**2), ("M", 32**2, 96**2), ("L", 96**2, _END))
PROTOCOLS = {
    # Lin et al., ECCV 2014, arXiv:1405.0312
    "coco": Protocol("coco", _COCO_SIZES, max_dets=(1, 10, 100)),
    # Wang et al., ICPR 2020: AI-TOD
    "aitod": Protocol(
        "aitod",
        _sizes(("vt", 0, 8**2), ("t", 8**2, 16**2), ("s", 16**2, 32**2), ("m", 32**2, _END)),
        max_dets=(1, 100, 1500),
    ),
    # Cheng et al., TPAMI 2023, arXiv:2207.14096: SODA-D
    "sodad": Protocol(
        "sodad",
        _sizes(("eS", 0, 12**2), ("rS", 12**2, 20**2), ("gS", 20**2, 32**2), ("N", 32**2, 2000)),
        max_dets=(100,),
    ),
    # Yu et al., WACV 2020, arXiv:1912.10664
    "tinyperson": Protocol(
        "tinyperson",
        _sizes(
            *(("tiny1", 1, 8**2), ("tiny2", 8**2, 12**2), ("tiny3", 12**2, 20**2), ("tiny", 1, 20**2)),
            *(("small", 20**2, 32**2), ("reasonable", 32**2, _END)),
        ),
        max_dets=(200,),
        ious=(0.25, 0.5, 0.75),
        ap_of_sizes_at_each_iou=True,
    ),
    # Zhu et al., TPAMI 2021, arXiv:2001.06303: VisDrone-DET
    "visdrone": Protocol("visdrone", _COCO_SIZES, max_dets=(1, 10, 100, 500), drops_in_regions=True),
}
