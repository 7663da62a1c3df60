"""Duplicate images: the same bytes, or the same image encoded or resized again."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.image_record import ImageRecord
from data.media.signatures import HEAD, is_image_data

_GRID = 16  # a fingerprint is a grid of so many mean gray levels on each side
_COARSE = 4  # neighbors are looked up by a grid of so many means on each side
_MEAN, _WORST = 1.5, 8.0  # largest difference between copies, gray levels: on average, and in any cell
_FLAT = 3.0  # gray levels; an image whose means vary less looks like too many others
_BLOCK_BYTES = 1 << 20


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """Return groups of files with the same content; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(path.resolve() for path in paths):
        by_size[path.stat().st_size].append(path)
    candidates = [path for group in by_size.values() if len(group) > 1 for path in group]
    by_digest: dict[bytes, list[Path]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for path, digest in zip(candidates, pool.map(_digest, candidates), strict=True):
            by_digest[digest].append(path)
    return [group for group in by_digest.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.digest()


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Small gray versions of n images.

    Attributes:
        paths: n files.
        means: (n, 16, 16) float32, mean gray level of each cell; nan where an image cannot be decoded.
        aspects: (n,) width over height.
    """

    paths: list[Path]
    means: np.ndarray
    aspects: np.ndarray

    @property
    def undecoded(self) -> list[Path]:
        """The images that cannot be decoded."""
        bad = np.isnan(self.means).any((1, 2))
        return [path for path, is_bad in zip(self.paths, bad, strict=True) if is_bad]


def read_fingerprints(records: Sequence[ImageRecord]) -> Fingerprints:
    """Decode the images at a fraction of their size, in threads."""
    with ThreadPoolExecutor() as pool:
        means = list(pool.map(_means, records))
    aspects = np.array([record.width / record.height for record in records])
    stacked = np.array(means, np.float32).reshape(-1, _GRID, _GRID)
    return Fingerprints([record.path for record in records], stacked, aspects)


def _means(record: ImageRecord) -> np.ndarray:
    """(16, 16) mean gray levels; a JPEG is shrunk while it is decoded."""
    side = min(record.width, record.height)
    flags = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}
    flag = next((flag for factor, flag in flags.items() if side >= 8 * _GRID * factor), cv2.IMREAD_GRAYSCALE)
    try:
        encoded = np.fromfile(record.path, np.uint8)
        image = cv2.imdecode(encoded, flag) if is_image_data(encoded[:HEAD].tobytes()) else None
    except (OSError, cv2.error):
        image = None
    if image is None:
        return np.full((_GRID, _GRID), np.nan, np.float32)
    return cv2.resize(image.astype(np.float32), (_GRID, _GRID), interpolation=cv2.INTER_AREA)


def similar(queries: Fingerprints, known: Fingerprints, neighbors: int = 3) -> list[tuple[Path, Path]]:
    """Return pairs (query, known) of different files that show the same image.

    Those that are nearest by coarse means are compared cell by cell. Flat images (fog, night) are left out:
    too many of them look alike.

    Args:
        queries: each is compared with its nearest neighbors among `known`.
        known: the images to compare with; may be the same as `queries`.
        neighbors: how many of the nearest are compared.
    """
    from scipy.spatial import cKDTree

    first, second = _usable(queries), _usable(known)
    if not len(first) or not len(second):
        return []
    tree = cKDTree(_coarse(known.means[second]))
    reach = _MEAN * _COARSE * 2  # a distance over 4 x 4 means that differ by twice the allowed mean
    _, nearest = tree.query(_coarse(queries.means[first]), k=neighbors, distance_upper_bound=reach)
    pairs = []
    for query, row in zip(first, np.reshape(nearest, (len(first), -1)), strict=True):
        for other in second[row[row < len(second)]]:  # the tree gives its size where there is no neighbor
            if queries.paths[query] != known.paths[other] and _alike(queries, query, known, other):
                pairs.append((queries.paths[query], known.paths[other]))
    return pairs


def _usable(prints: Fingerprints) -> np.ndarray:
    if not len(prints.paths):
        return np.zeros(0, int)
    return np.flatnonzero(prints.means.std((1, 2)) > _FLAT)  # false for nan


def _coarse(means: np.ndarray) -> np.ndarray:
    """(n, 16, 16) means -> (n, 16) means of 4 x 4 blocks."""
    step = _GRID // _COARSE
    blocks = means.reshape(-1, _COARSE, step, _COARSE, step)
    return blocks.mean((2, 4)).reshape(len(means), -1)


def _alike(queries: Fingerprints, query: int, known: Fingerprints, other: int) -> bool:
    difference = np.abs(queries.means[query] - known.means[other])
    same_aspect = abs(queries.aspects[query] / known.aspects[other] - 1) < 0.03
    return bool(same_aspect and difference.mean() < _MEAN and difference.max() < _WORST)
