"""The rows that travel from the readers over the actors to the driver: one for each tile.

A file ends with a row of its own (tile -1) where its number of frames was not known before, or where it is
broken; an image has one frame, as all of its rows say. Rows may come twice and in any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.letterbox import Letterbox
from data.media.large_image import LargeImage
from data.media.sources import MediaFiles
from engine.inference.fleet.stores import local_file
from engine.inference.settings import DetectSettings
from utils.reading import reason

END = -1  # the tile of a row that only says how a file ended


def detected_schema() -> Any:
    """Return the schema of what actors return: which tile of which frame of which file, and its boxes."""
    import pyarrow as pa

    numbers = ["frame", "frames", "tile", "tiles", "width", "height", "x0", "y0", "x1", "y1"]
    return pa.schema(
        [
            ("index", pa.int64()),  # of the file in the listing
            *((name, pa.int32()) for name in numbers),  # frames: 0 where the last row will say
            ("input_height", pa.int32()),
            ("input_width", pa.int32()),
            ("error", pa.string()),
            ("boxes", pa.binary()),  # (n, 6) float32 x1, y1, x2, y2 in pixels of the tile, score, class
        ]
    )


def tile_schema() -> Any:
    """Return the schema of what readers return: the same, with the network's input in place of boxes."""
    import pyarrow as pa

    schema = detected_schema()
    schema = schema.remove(schema.get_field_index("boxes"))
    return schema.append(pa.field("pixels", pa.large_binary())).append(
        pa.field("placed", pa.list_(pa.float64()))  # a Letterbox's values
    )


@dataclass(frozen=True)
class Reader:
    """Decodes files and cuts them into inputs of the network; runs in Ray's reader tasks.

    Attributes:
        settings: how to detect.
        stride: see `fit_tile`.
        vid_stride: use every n-th frame of a video.
        folder: that relative paths start from.
    """

    settings: DetectSettings
    stride: int | None
    vid_stride: int
    folder: str

    def __call__(self, batch: Any) -> Iterator[Any]:
        """Yield a table for each tile of files, given as a table of `index` and `image`."""
        import cv2

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        cv2.setNumThreads(1)  # cores are shared out by Ray
        for index, name in zip(*(batch[key].to_pylist() for key in ("index", "image")), strict=True):
            yield from map(row_table, self._rows(index, name))

    def _rows(self, index: int, name: str) -> Iterator[dict[str, Any]]:
        """Yield the tiles of a file; whatever is wrong with it is said by its last row."""
        frames, is_video, problem, path = 0, False, None, Path(name)
        try:
            with local_file(name) as local:
                path = Path(self.folder) / local
                source = MediaFiles([path], self.vid_stride, lambda problem: None)
                for frame in source:
                    is_video = frame.is_video
                    for row in tile_rows(frame.image, self.settings, self.stride, frame.number):
                        yield {"index": index, "frames": 0 if is_video else 1, **row}
                    frames += 1
                problem = next(iter(source.problems), None)
        except Exception as error:  # of a million files some are broken in ways that nobody thought of
            ours = isinstance(error, ValueError) and str(error)
            problem = str(error) if ours else f"{name}: cannot be read ({reason(error)})"
        if problem is not None or is_video:
            problem = problem and problem.replace(str(path), name)
            yield {"index": index, "frames": frames, "tile": END, "error": problem}


def tile_rows(
    image: np.ndarray | LargeImage, settings: DetectSettings, stride: int | None, frame: int = 1
) -> Iterator[dict[str, Any]]:
    """Yield the inputs of an image, with where they are in it; see `fit_tile`."""
    from engine.inference.pipeline import fit_tile, tiles_of

    height, width = image.shape[:2]
    boxes = tiles_of(image, settings).tolist()
    about = {"frame": frame, "tiles": len(boxes), "width": width, "height": height}
    for number, tile in enumerate(boxes):
        pixels, placed = fit_tile(image, tile, settings, stride)
        yield about | {"tile": number, **place_columns(tile), **input_columns(pixels, placed)}


def place_columns(tile: Sequence[int]) -> dict[str, int]:
    """Return the columns of where a tile is, x0, y0, x1, y1 in pixels of the image."""
    return dict(zip(("x0", "y0", "x1", "y1"), tile, strict=True))


def input_columns(pixels: np.ndarray, placed: Letterbox) -> dict[str, Any]:
    """Return the columns of an input of the network, (h, w, 3) uint8 RGB."""
    return {
        "input_height": pixels.shape[0],
        "input_width": pixels.shape[1],
        "pixels": pixels.tobytes(),
        "placed": [float(value) for value in dataclasses.astuple(placed)],
    }


def row_table(row: dict[str, Any]) -> Any:
    """Return a table of one row, whose missing columns are null."""
    import pyarrow as pa

    return pa.Table.from_pylist([row], schema=tile_schema())


def letterbox_of(values: list[float]) -> Letterbox:
    """Return the Letterbox of a row's `placed`."""
    scale, pad_x, pad_y, width, height, stretch = values
    return Letterbox(scale, pad_x, pad_y, int(width), int(height), stretch)
