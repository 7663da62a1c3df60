"""MNIST's IDX files, plain or gzipped: the images are named, the labels lie beside them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, check_labels, transform_all
from data.classification.transform import InputTransform
from utils.errors import UserError
from utils.limits import check_unpacked
from utils.reading import reading

DIGITS = tuple("0123456789")


def read(description: ClassificationDatasetConfig, split: str, transform: InputTransform) -> ImageSet:
    """Read a split, whose one source is a file of images such as train-images-idx3-ubyte.gz.

    Raises:
        UserError: its labels are not beside it, or a file is cut short or no IDX file.
    """
    sources = description.sources(split)
    if len(sources) != 1 or "images" not in sources[0].name:
        raise UserError(f"{description.file}: '{split}' must name one file, such as train-images-idx3-ubyte")
    names = description.names or DIGITS
    file, labels_file = sources[0], _labels_of(sources[0])
    images, labels = _read_idx(file, 3), _read_idx(labels_file, 1).astype(np.int64)
    if len(images) != len(labels):
        raise UserError(f"{file} holds {len(images)} images, {labels_file} {len(labels)} labels")
    check_labels(labels, len(names), labels_file)
    pixels = transform_all(images[..., None], len(images), 1, transform)
    return ImageSet(pixels, labels, names, [f"{file} #{i}" for i in range(len(labels))])


def _labels_of(file: Path) -> Path:
    """train-images-idx3-ubyte -> train-labels-idx1-ubyte, gzipped or not."""
    name = file.name.replace("images", "labels").replace("idx3", "idx1")
    plain = file.with_name(name.removesuffix(".gz"))
    paths = [path for path in (file.with_name(name), plain, Path(f"{plain}.gz")) if path.is_file()]
    if not paths:
        raise UserError(f"{file}: its labels, {file.with_name(name)}, are not beside it")
    return paths[0]


def _read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Return the array of bytes that an IDX file holds."""
    with reading(file, "an IDX file"):
        return _array(file, file.read_bytes(), dimensions)


def _unpacked(file: Path, packed: bytes, head: int) -> bytes:
    """Return what a gzip file holds, if its header's sizes are plausible: not a byte more."""
    with gzip.open(io.BytesIO(packed)) as stream:
        start = stream.read(head)
        count = int(np.prod(struct.unpack(f">{len(start[4:]) // 4}I", start[4:]), dtype=object))
        check_unpacked(count, len(packed), file)
        return start + stream.read(count + 1)


def _array(file: Path, content: bytes, dimensions: int) -> np.ndarray:
    head = 4 + 4 * dimensions
    try:
        content = _unpacked(file, content, head) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: broken or cut short ({error})") from error
    if len(content) < head or content[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{file}: not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != int(np.prod(shape, dtype=object)):
        sizes = "x".join(map(str, shape))
        raise UserError(f"{file}: cut short: {len(content) - head} bytes, but its header says {sizes}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
