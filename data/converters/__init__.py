"""Converters of published data sets: one file for each format, and one table of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data.converters import aitod, coco, dota, sku110k, sodad, tinyperson, uavdt, visdrone, voc, xview
from data.converters.ground_truth import Converted


class Format(NamedTuple):
    """A published format.

    Attributes:
        title: the data set's name.
        layout: the files and folders that are read, below the source folder.
        read: returns the data set in a source folder.
    """

    title: str
    layout: str
    read: Callable[[Path], Converted]


FORMATS = {
    "aitod": Format("AI-TOD and AI-TOD-v2", aitod.LAYOUT, aitod.read),
    "coco": Format("COCO 2017, or your own data in its layout", coco.LAYOUT, coco.read),
    "dota": Format("DOTA 1.0, 1.5 and 2.0, horizontal boxes", dota.LAYOUT, dota.read),
    "sku110k": Format("SKU-110K", sku110k.LAYOUT, sku110k.read),
    "sodad": Format("SODA-D", sodad.LAYOUT, sodad.read),
    "tinyperson": Format("TinyPerson", tinyperson.LAYOUT, tinyperson.read),
    "uavdt": Format("UAVDT-DET", uavdt.LAYOUT, uavdt.read),
    "visdrone": Format("VisDrone-DET", visdrone.LAYOUT, visdrone.read),
    "voc": Format("Pascal VOC, or your own data in its XML format", voc.LAYOUT, voc.read),
    "xview": Format("xView", xview.LAYOUT, xview.read),
}
