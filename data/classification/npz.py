"""NumPy's .npz: `images` (N, H, W) or (N, H, W, 1 or 3) uint8, `labels` (N,), and optionally `names`.

Or Keras' `x_train`, `y_train`, `x_test` and `y_test` in one file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.classification.dataset_yaml import ClassificationDatasetConfig
from data.classification.images import ImageSet, check_labels, transform_all
from data.classification.transform import InputTransform
from utils.errors import UserError
from utils.limits import check_unpacked
from utils.reading import check_regular, reason


def read(description: ClassificationDatasetConfig, split: str, transform: InputTransform) -> ImageSet:
    """Read a split, whose one source is an .npz file.

    Raises:
        UserError: it cannot be read, or its arrays are not as above.
    """
    sources = description.sources(split)
    if len(sources) != 1:
        raise UserError(f"{description.file}: '{split}' must name one .npz file, found {len(sources)}")
    images, labels, names = _arrays(sources[0], "train" if split == "train" else "test")
    names = description.names or names or tuple(map(str, range(int(labels.max()) + 1)))
    check_labels(labels, len(names), sources[0])
    pixels = transform_all(images, len(images), images.shape[3], transform)
    return ImageSet(pixels, labels, names, [f"{sources[0]} #{i}" for i in range(len(labels))])


def _arrays(file: Path, part: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(N, H, W, C) uint8, (N,) int64 and the names, or ()."""
    try:
        check_regular(file, "an .npz file")
        with np.load(file, allow_pickle=False) as content:
            check_unpacked(
                sum(entry.file_size for entry in content.zip.infolist()), file.stat().st_size, file
            )
            keras = f"x_{part}" in content
            keys = (f"x_{part}", f"y_{part}") if keras else ("images", "labels")
            images, labels = (content[key] for key in keys)
            names = tuple(map(str, content["names"])) if "names" in content else ()
    except KeyError as error:
        raise UserError(
            f"{file}: no 'images' and 'labels' (nor Keras' x_{part}, y_{part}): {error}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged or crafted file can make zlib, zipfile and NumPy raise anything
        why = reason(error)
        raise UserError(f"{file}: cannot be read as an .npz file of plain arrays ({why})") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(f"{file}: images must be uint8 (N, H, W) or (N, H, W, 3), got {_described(images)}")
    if labels.dtype.kind not in "iu" or labels.size != len(images) or not len(images):
        raise UserError(f"{file}: labels must be one whole number for each image, got {_described(labels)}")
    return images, labels.reshape(-1).astype(np.int64), names


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
