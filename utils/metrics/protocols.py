"""Evaluation protocols as data: size classes, IoU thresholds and detection limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALL_AREAS = (0.0, 1e10)  # px²
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class SizeClass:
    """Objects whose area in original-image pixels² lies in low..high, both ends included."""

    name: str
    low: float
    high: float

    def __str__(self):
        """'S <32²', 'M 32²-96²', 'L >=96²'."""
        if self.low == 0:
            return f"{self.name} <{_area(self.high)}"
        if self.high >= ALL_AREAS[1]:
            return f"{self.name} >={_area(self.low)}"
        return f"{self.name} {_area(self.low)}-{_area(self.high)}"


@dataclass(frozen=True)
class Protocol:
    """How detections are scored."""

    name: str
    sizes: tuple[SizeClass, ...]
    max_dets: tuple[int, ...]  # detections a class may have in an image, ascending; AP uses the last
    ious: tuple[float, ...] = COCO_IOUS


def _area(value: float) -> str:
    side = value**0.5
    return f"{side:.0f}²" if side.is_integer() else f"{value:g}"


def _sizes(*edges: tuple[str, float, float]) -> tuple[SizeClass, ...]:
    return tuple(SizeClass(name, low, high) for name, low, high in edges)


_END = ALL_AREAS[1]
PROTOCOLS = {
    # Lin et al., ECCV 2014, arXiv:1405.0312
    "coco": Protocol(
        "coco", _sizes(("S", 0, 32**2), ("M", 32**2, 96**2), ("L", 96**2, _END)), max_dets=(1, 10, 100)
    ),
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
}
