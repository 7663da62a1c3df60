"""The outputs of detect.py that were asked for besides Parquet, written from the shards when all are there.

They are the files that detect.py writes without --ray, made by the same classes in the order of the listing.
Where pixels are needed, images are read once more, by this process alone.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.media.frame import Frame
from data.media.sources import VIDEO_SUFFIXES, MediaFiles
from engine.inference.config import DetectConfig
from engine.inference.fleet.run import RunState
from engine.inference.fleet.shards import detections_of, read_shards
from engine.inference.fleet.stores import local_file, path_of
from engine.inference.outputs.chosen import open_outputs
from engine.inference.outputs.result import DetectedFrame, Style
from engine.inference.pipeline import StageTimes
from utils.detections import Detections
from utils.errors import UserError
from utils.unique_names import UniqueNames

LOG = logging.getLogger(__name__)
Image = tuple[dict[str, Any], Detections]  # a row of images/, and what was detected


def wants_outputs(cfg: DetectConfig) -> bool:
    """Whether something besides Parquet was asked for."""
    return chosen(cfg).saves


def chosen(cfg: DetectConfig) -> DetectConfig:
    """Return the options of the outputs: a million images are annotated only where --save-frames says so."""
    return cfg.replace(nosave=cfg.draw.nosave or not cfg.draw.save_frames)


def write_outputs(
    cfg: DetectConfig, folder: Path, state: RunState, category_ids: Sequence[int] | None
) -> None:
    """Write labels, JSON, CSV, crops, heat maps and annotated files, as asked for.

    Raises:
        UserError: a file cannot be written.
    """
    cfg = chosen(cfg)
    with_pixels = cfg.draws or cfg.save_crop or cfg.heatmap
    style = Style(cfg.draw.line_thickness, not cfg.draw.hide_labels, not cfg.draw.hide_conf)
    name_of = UniqueNames()
    with ExitStack() as stack:
        outputs = [stack.enter_context(closing(output)) for output in open_outputs(cfg, folder, category_ids)]
        for _, images in itertools.groupby(_images(folder), key=lambda image: image[0]["index"]):
            for frame, (row, detections) in _frames(list(images), cfg.vid_stride, with_pixels):
                name = name_of(path_of(row["image"]), frame.is_video)
                about = (frame, name, state.names, detections)
                result = DetectedFrame(*about, (0, 0), row["tiles"], StageTimes(), style=style)
                for output in outputs:
                    output.add(result)


def _images(folder: Path) -> Iterator[Image]:
    """Yield every image that was detected on, in the order of the listing."""
    for images, detections in zip(
        read_shards(folder, "images"), read_shards(folder, "detections"), strict=True
    ):
        every, start = detections_of(detections), 0
        for row in images.to_pylist():
            yield row, every[start : start + row["objects"]]
            start += row["objects"]


def _frames(images: Sequence[Image], vid_stride: int, with_pixels: bool) -> Iterator[tuple[Frame, Image]]:
    """Yield the frames of a file; without pixels they have a size only."""
    name = images[0][0]["image"]
    path = path_of(name)
    if not with_pixels:
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        for image in images:
            row = image[0]
            empty = np.broadcast_to(np.uint8(0), (row["height"], row["width"], 3))  # takes no memory
            yield Frame(empty, path, number=row["frame"], fps=1.0 if is_video else None), image
        return
    by_number = {image[0]["frame"]: image for image in images}
    try:
        with local_file(name) as local:
            for frame in MediaFiles([Path(os.getcwd()) / local], vid_stride):
                if frame.number in by_number:
                    yield replace(frame, path=path), by_number[frame.number]
    except UserError as error:
        LOG.warning("left out of what needs pixels: %s", error)
