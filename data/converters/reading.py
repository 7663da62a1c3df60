"""Reading published annotations: rows, numbers, sizes and folders, with errors that name file and line."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.media.image_files import ImageReadError, is_image, read_size
from data.paths import is_litter
from utils.errors import UserError
from utils.reading import guarded, reading


def read_text(file: Path) -> str:
    """Return a text file's content.

    Raises:
        UserError: it is missing, or no UTF-8 text.
    """
    with reading(file, "an annotation file"):
        return file.read_text(encoding="utf-8-sig")


def read_rows(file: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield "file:line" and the cells of each row that is not empty; a comma at the end adds no cell.

    Raises:
        UserError: a row has fewer or more columns.
    """
    with guarded(file, "a table of annotations"):
        rows = list(csv.reader(read_text(file).splitlines()))
    for number, row in enumerate(rows, 1):
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        where = f"{file}:{number}"
        if len(cells) != columns:
            raise UserError(f"{where}: {len(cells)} columns; a row has {columns}")
        yield where, cells


def numbers(where: str, cells: Sequence[str]) -> list[float]:
    """Return cells as finite numbers.

    Raises:
        UserError: a cell is not a finite number; the message starts with `where`.
    """
    values = []
    for cell in cells:
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{where}: '{cell}' is not a number")
        values.append(value)
    return values


def list_images(folder: Path) -> list[Path]:
    """Return the images of a folder, sorted.

    Raises:
        UserError: the folder is missing or has no image.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}, where the images of the data set should be")
    images = sorted(path for path in folder.iterdir() if is_image(path) and not is_litter(path.name))
    if not images:
        raise UserError(f"no images in the folder {folder}")
    return images


def read_sizes(images: Iterable[Path], notes: Counter[str]) -> dict[Path, tuple[int, int]]:
    """Return width and height of each image that can be read; the others are noted."""

    def size(path: Path) -> tuple[int, int] | str:
        try:
            return read_size(path)
        except ImageReadError as error:
            return str(error)

    paths = list(images)
    sizes = {}
    with ThreadPoolExecutor() as pool:
        for path, result in zip(paths, pool.map(size, paths), strict=True):
            if isinstance(result, str):
                notes[f"image left out: {result}"] += 1
            else:
                sizes[path] = result
    return sizes


def folder_of(names: Sequence[str], folders: Sequence[Path], about: Path) -> Path:
    """Return the first folder that holds any of the first 50 images.

    Args:
        names: of the images, below the folder.
        folders: where they may be.
        about: the file that names them, for the message.

    Raises:
        UserError: no folder does.
    """
    for folder in folders:
        if any((folder / name).is_file() for name in names[:50]):
            return folder
    tried = ", ".join(map(str, dict.fromkeys(folders)))
    example = names[0] if names else "none"
    raise UserError(f"{about}: its images (such as {example}) are not in {tried}")
