"""TIFF's fourth band, which OpenCV takes for transparency and multiplies the colors with.

GDAL calls the fourth of 8-bit bands alpha unless told otherwise, so that it is often near infrared.
"""

from __future__ import annotations

import numpy as np

_EXTRA_SAMPLES, _SHORT = 338, 3  # TIFF 6.0, pages 31 and 15
_ASSOCIATED, _UNASSOCIATED = 1, 2  # the colors are multiplied with alpha already; they are not


def keep_colors(encoded: np.ndarray) -> None:
    """Say in the bytes (n,) uint8 of a TIFF file that its colors are multiplied with alpha already.

    OpenCV then leaves the colors as they are, in every layout and compression. Other formats, other bands and
    broken files are not changed.
    """
    head = encoded[:4].tobytes()
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return
    big = 43 in head[2:]  # BigTIFF
    offset = _number(encoded, 8 if big else 4, f"{order}u{8 if big else 4}")
    length = f"{order}u{8 if big else 2}"
    count = _number(encoded, offset, length)
    entry = np.dtype(
        [
            ("tag", f"{order}u2"),
            ("type", f"{order}u2"),
            ("count", f"{order}u{8 if big else 4}"),
            ("value", f"{order}u2"),
            ("rest", "V6" if big else "V2"),
        ]
    )
    start = offset + np.dtype(length).itemsize
    if start + count * entry.itemsize > len(encoded):
        return
    entries = encoded[start : start + count * entry.itemsize].view(entry)
    alpha = (entries["tag"] == _EXTRA_SAMPLES) & (entries["type"] == _SHORT) & (entries["count"] == 1)
    entries["value"][alpha & (entries["value"] == _UNASSOCIATED)] = _ASSOCIATED


def _number(encoded: np.ndarray, offset: int, kind: str) -> int:
    """An unsigned number of this type; 0 beyond the end."""
    data = encoded[offset : offset + np.dtype(kind).itemsize].tobytes()
    return int(np.frombuffer(data, kind)[0]) if len(data) == np.dtype(kind).itemsize else 0
