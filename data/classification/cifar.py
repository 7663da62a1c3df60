"""CIFAR-10 and CIFAR-100 in their published files: the binary version, and the Python version.

The Python version's batches are pickles. They are read by an unpickler that builds text, numbers, lists and
dicts, and keeps the bytes of the array; anything else that a file names is refused, and nothing in it is run.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, check_labels, transform_all
from data.classification.transform import InputTransform
from utils.errors import UserError
from utils.reading import reading, reason

SIDE = 32  # pixels
_VALUES = 3 * SIDE * SIDE  # of an image: all of red, then green, then blue
_LABEL_BYTES = {10: 1, 100: 2}  # of a binary record; CIFAR-100's second one is the class
_LABEL_KEYS = {10: b"labels", 100: b"fine_labels"}


def read(description: ClassificationDatasetConfig, split: str, transform: InputTransform) -> ImageSet:
    """Read a split: `*.bin` files are binary, others are of the Python version.

    Raises:
        UserError: there are neither 10 nor 100 names; a file is cut short, names code, or is no CIFAR file.
    """
    classes = len(description.names)
    if classes not in _LABEL_BYTES:
        raise UserError(f"{description.file}: CIFAR has 10 or 100 'names', found {classes}")
    values, labels, where = [], [], []
    for file in description.sources(split):
        with reading(file, "a CIFAR batch"):
            pixels, numbers = (_binary if file.suffix == ".bin" else _pickled)(file, classes)
        check_labels(numbers, classes, file)
        values.append(pixels)
        labels.append(numbers)
        where += [f"{file} #{i}" for i in range(len(numbers))]
    planes = np.concatenate(values).reshape(-1, 3, SIDE, SIDE)
    pixels = transform_all(planes.transpose(0, 2, 3, 1), len(planes), 3, transform)
    return ImageSet(pixels, np.concatenate(labels).astype(np.int64), description.names, where)


def _binary(file: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) values and (N,) labels."""
    head = _LABEL_BYTES[classes]
    content = np.fromfile(file, np.uint8)
    if not len(content) or len(content) % (head + _VALUES):
        raise UserError(
            f"{file}: cut short, or not CIFAR-{classes}: {len(content)} bytes are not whole records of "
            f"{head + _VALUES}"
        )
    records = content.reshape(-1, head + _VALUES)
    return records[:, head:], records[:, head - 1]


def _pickled(file: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) values and (N,) labels."""
    try:
        check_pickle(file.read_bytes())
        with file.open("rb") as stream:
            content = _Reader(stream, encoding="bytes").load()
    except UserError:
        raise
    except Exception as error:  # a damaged or crafted file can make the unpickler raise anything
        raise UserError(
            f"{file}: cut short, or not a CIFAR batch of the Python version ({reason(error)})"
        ) from error
    key = _LABEL_KEYS[classes]
    if not isinstance(content, dict) or not {key, b"data"} <= content.keys():
        raise UserError(f"{file}: not a CIFAR-{classes} batch: it must hold 'data' and '{key.decode()}'")
    numbers = content[key]
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise UserError(f"{file}: no CIFAR-{classes} batch: its labels are no list of numbers")
    labels = np.array(numbers)
    pixels = content[b"data"].values() if isinstance(content[b"data"], _Array) else np.zeros(0, np.uint8)
    if labels.ndim != 1 or labels.dtype.kind != "i" or pixels.size != len(labels) * _VALUES:
        raise UserError(
            f"{file}: cut short, or no CIFAR-{classes} batch: {pixels.size} values for {labels.size} images"
        )
    return pixels.reshape(-1, _VALUES), labels


def check_pickle(content: bytes) -> None:
    """Raise a ValueError for a pickle that asks for more memory than it fills.

    The places of its memo are allocated up to the highest, and bytearrays before their bytes are read.
    """
    for operation, argument, position in pickletools.genops(content):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > (position or 0):
            raise ValueError("it remembers more than it holds")
        if operation.name == "BYTEARRAY8":
            raise ValueError("it holds a bytearray")


class _Array:
    """Stands in for a NumPy array and keeps the state that the file gives it."""

    state: Any = ()

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def values(self) -> np.ndarray:
        """Return its content, which must be bytes in row-major order."""
        state = self.state if isinstance(self.state, tuple) and len(self.state) == 5 else (None,) * 5
        _, _, dtype, column_major, content = state
        if (
            not isinstance(dtype, _Dtype)
            or dtype.name != "u1"
            or column_major
            or not isinstance(content, bytes)
        ):
            raise UserError("the data of a CIFAR batch must be bytes in row-major order")
        return np.frombuffer(content, np.uint8)


class _Dtype:
    """Stands in for a NumPy dtype."""

    def __init__(self, name: Any, *rest: Any):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Builds plain data and the stand-ins, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Array
        if (module, name) == ("numpy", "ndarray"):
            return _Array
        if (module, name) == ("numpy", "dtype"):
            return _Dtype
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old protocols
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"it names {module}.{name}, and loading would run that code")
