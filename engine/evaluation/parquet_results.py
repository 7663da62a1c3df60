"""Reading the Parquet of detect.py --ray into columns: a run folder, its detections/, or one file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from data.image_record import ImageRecord
from engine.evaluation.metrics import DetectionColumns
from engine.inference.fleet.cluster import check_ray
from engine.inference.fleet.shards import BOX
from utils.errors import UserError, quoted, suggest
from utils.reading import reading

COLUMNS = ("image", *BOX, "score", "class_name")


def is_parquet(path: Path) -> bool:
    """Whether predictions are in Parquet, as far as the name tells."""
    return path.suffix.lower() == ".parquet" or path.is_dir()


def read_parquet(
    path: Path, source: Path, records: Sequence[ImageRecord], names: Sequence[str]
) -> DetectionColumns:
    """Read detections; images are matched by the ends of their paths, classes by their names.

    Detections of images that the annotations do not have are left out where other images match.

    Args:
        path: of the results.
        source: of the annotations, for messages.
        records: the images.
        names: the classes.

    Raises:
        UserError: it is not in this format, no image matches, two do, or a class is unknown.
    """
    check_ray("--predictions in Parquet", ("pyarrow",))
    import pyarrow.parquet as pq

    numbers = _Numbers(record.path for record in records)
    classes = {name: number for number, name in enumerate(names)}
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]] = []
    for file in _files(path):
        with reading(file, "Parquet of detections"), pq.ParquetFile(file) as opened:
            missing = [name for name in COLUMNS if name not in opened.schema_arrow.names]
            if missing:
                raise UserError(f"{file} has no column {', '.join(missing)}; detect.py --ray writes them")
            table = opened.read(list(COLUMNS)).to_pandas()
        unknown = sorted(set(table["class_name"]) - set(classes))
        if unknown:
            raise UserError(
                f"{file}: class {quoted(unknown[0])} is not in {source}. {suggest(unknown[0], names)}"
            )
        image = np.array([numbers.of(name) for name in table["image"]], np.int64)
        known = image >= 0
        low, high = table[["x1", "y1"]].to_numpy(np.float64), table[["x2", "y2"]].to_numpy(np.float64)
        class_ids = np.array([classes[name] for name in table["class_name"]], np.int64)
        boxes_xywh = np.hstack((low, high - low))
        parts.append(
            (image[known], boxes_xywh[known], table["score"].to_numpy(np.float64)[known], class_ids[known])
        )
    image, boxes_xywh, scores, class_ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    if numbers.asked and not numbers.matched:
        raise UserError(f"{path}: none of its images is in {source}, such as {quoted(numbers.asked)}")
    return DetectionColumns(
        num_images=len(records), image=image, boxes_xywh=boxes_xywh, scores=scores, classes=class_ids
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folder = path / "detections" if (path / "detections").is_dir() else path
    files = sorted(file for file in folder.glob("*.parquet") if re.fullmatch(r"[^.].*", file.name))
    if not files:
        raise UserError(f"{path}: no Parquet of detections there; detect.py --ray writes some")
    return files


class _Numbers:
    """Which record an image is: the one whose path ends like its own, in as many parts as it takes."""

    def __init__(self, paths: Iterable[Path]):
        self._by_end: dict[tuple[str, ...], list[int]] = {}
        self._parts: list[tuple[str, ...]] = []
        self._of: dict[str, int] = {}
        self.asked, self.matched = "", False
        for number, path in enumerate(paths):
            self._parts.append(PurePosixPath(path.as_posix()).parts)
            self._by_end.setdefault(self._parts[-1][-1:], []).append(number)

    def of(self, name: str) -> int:
        """Return the number of the record, -1 where there is none.

        Raises:
            UserError: several fit equally well.
        """
        if name not in self._of:
            self._of[name] = self._look_up(name)
            self.asked = self.asked or name
            self.matched |= self._of[name] >= 0
        return self._of[name]

    def _look_up(self, name: str) -> int:
        parts = PurePosixPath(name.partition("?")[0].replace("\\", "/")).parts
        fitting = self._by_end.get(parts[-1:], [])
        for count in range(2, len(parts) + 1):
            if len(fitting) < 2:
                break
            closer = [number for number in fitting if self._parts[number][-count:] == parts[-count:]]
            if not closer:
                break
            fitting = closer
        if len(fitting) > 1:
            raise UserError(f"{name} may be {len(fitting)} images of the annotations, which have equal names")
        return fitting[0] if fitting else -1
