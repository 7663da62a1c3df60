"""Images that are too large to decode whole, read crop by crop."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.media.image_files import ImageReadError
from data.media.signatures import PILLOW_FORMATS
from utils.reading import is_regular

LARGE = 64_000_000  # pixels; larger images are read crop by crop where the format allows it:
CROPPED = (".jp2", ".tif", ".tiff")
DRIVERS = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".tiff": "GTiff"}  # the only ones of GDAL that are tried
_EXIF_ORIENTATION = 0x0112


class LargeImage:
    """An image file that is sliced like an array: `image[y0:y1, x0:x1]` is (h, w, 3) uint8 BGR.

    Of 16 bits per channel the upper eight are taken, as OpenCV does, and of more than three channels the
    first three. May be used from several threads.

    Attributes:
        shape: height, width, 3.
    """

    def __init__(self, path: Path):
        import rasterio

        self.path = path
        self._lock = threading.Lock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            self._file = rasterio.open(path, driver=DRIVERS[path.suffix.lower()])
        self._negative = self._file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"  # 0 is white
        self.shape = (self._file.height, self._file.width, 3)

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        """Read a crop, which ends where the image does, as with an array.

        Raises:
            ImageReadError: this part of the file cannot be read.
        """
        y0, y1, _ = place[0].indices(self.shape[0])
        x0, x1, _ = place[1].indices(self.shape[1])
        return self._read(window=((y0, y1), (x0, x1)))

    def overview(self, side: int) -> np.ndarray:
        """Return the full image, shrunk to at most `side` pixels on its longer side."""
        height, width = self.shape[:2]
        scale = min(side / max(height, width), 1.0)
        shape = (max(round(height * scale), 1), max(round(width * scale), 1))
        return self._read(out_shape=shape, average=scale < 1)

    def _read(self, average: bool = False, **options: Any) -> np.ndarray:
        import rasterio
        from rasterio.enums import Resampling

        bands = [1, 2, 3] if self._file.count >= 3 else [1]
        if "out_shape" in options:
            options["out_shape"] = (len(bands), *options["out_shape"])
        try:
            with self._lock:
                resampling = Resampling.average if average else Resampling.nearest
                pixels = self._file.read(bands, resampling=resampling, **options)  # (bands, h, w)
        except rasterio.errors.RasterioError as error:
            raise ImageReadError(f"{self.path}: broken image ({error})") from error
        if pixels.dtype == np.uint16:
            pixels = (pixels >> 8).astype(np.uint8)
        if self._negative:
            pixels = ~pixels
        if len(bands) == 1:
            return cv2.cvtColor(pixels[0], cv2.COLOR_GRAY2BGR)
        return np.ascontiguousarray(pixels[::-1].transpose(1, 2, 0))


def open_large(path: Path) -> LargeImage | None:
    """Return a TIFF or JPEG 2000 file of more than 64 million pixels; None if the image must be read whole.

    That is so for smaller images, other formats, palettes and images that EXIF rotates, and for all images
    without the package rasterio.
    """
    if path.suffix.lower() not in CROPPED or not is_regular(path) or not _is_large(path):
        return None
    try:
        import rasterio
        from rasterio.enums import ColorInterp
    except ImportError:
        return None
    try:
        image = LargeImage(path)
    except rasterio.errors.RasterioError:
        return None
    file = image._file
    plain = set(file.dtypes) <= {"uint8", "uint16"} and ColorInterp.palette not in file.colorinterp
    return image if plain else None


def _is_large(path: Path) -> bool:
    """Whether the header tells of many pixels and of no rotation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
                return image.width * image.height > LARGE and not turned
    except Image.DecompressionBombError:
        return True
    except Exception:  # broken, or unknown to Pillow
        return False


def overview(image: np.ndarray | LargeImage, side: int) -> tuple[np.ndarray, float]:
    """Return an array to draw on, and its scale relative to the image."""
    if isinstance(image, LargeImage):
        small = image.overview(side)
        return small, small.shape[1] / image.shape[1]
    return image, 1.0
