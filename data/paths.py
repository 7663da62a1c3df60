"""Where things are: every path that a person writes is resolved here.

A path may be written on another system (backslashes) and is relative to one of several folders; the first
place where something is, wins. Folders are walked with their linked folders, without hidden ones and what
macOS, Jupyter and network drives leave in them.
"""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError
from utils.reading import reading

PROJECT = Path(__file__).resolve().parents[1]  # default data, hyperparameters and sources are below it
_LITTER = frozenset(
    {".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
)
KEPT_PIXELS = ".pixels"  # the folder of train.py --cache disk, beside the images
_SILENT = frozenset(  # endings of files that usually lie beside images, of which nothing need be said
    {"", ".txt", ".json", ".xml", ".yaml", ".yml", ".csv", ".md", ".db", ".ini", ".cache", ".npy", ".npz"}
)


def is_litter(name: str) -> bool:
    """Whether a file or folder is called like what macOS, Jupyter, Windows and network drives leave."""
    return name in _LITTER or name.startswith("._")


def as_path(written: str) -> Path:
    """Return a path as it is meant here: `~` is the home folder, backslashes separate folders."""
    path = Path(written).expanduser()
    return Path(written.replace("\\", "/")).expanduser() if "\\" in written and not path.exists() else path


def places(written: str, folders: Sequence[Path]) -> list[Path]:
    """Return where a path may be: itself if absolute, else below each of the folders, in their order.

    Zips of Roboflow hold `../train/images` in a file that lies beside `train`; so the leading `../` are also
    left out, after all else.
    """
    path = as_path(written)
    if path.is_absolute():
        return [path]
    below = [folder / path for folder in folders]
    parts = path.parts
    while parts and parts[0] == "..":
        parts = parts[1:]
    if parts and len(parts) < len(path.parts):
        below += [folder / Path(*parts) for folder in folders]
    return list(dict.fromkeys(below))


def resolve(
    written: str, folders: Sequence[Path], exists: Callable[[Path], bool] = Path.exists
) -> Path | None:
    """Return the first of `places` that exists, or None."""
    return next((place for place in places(written, folders) if exists(place)), None)


def in_project(path: Path) -> Path:
    """Return a path as written if it exists from the current folder, else below the project's own folder.

    Where neither exists, it is returned as written.
    """
    return resolve(str(path), [Path(), PROJECT]) or path


def read_lines(file: Path) -> list[str]:
    """Return the lines of a list file, without blank lines, comments (#) and quotes.

    UTF-8, and UTF-16 with its byte-order mark, are read; lines may end as on any system.

    Raises:
        UserError: it is not text.
    """
    with reading(file, "a list of images"):
        content = file.read_bytes()
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a list of images: {error}") from error
    if "\0" in text:
        raise UserError(f"{file} is not a list of images: it holds a NUL, which no name of a file has")
    stripped = (line.strip().strip("\"'") for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


@dataclass
class Listing:
    """The files of a folder, and what was skipped.

    Attributes:
        files: sorted.
        hidden: hidden files and folders, and those that systems leave.
        other: files of other kinds: how many of each ending.
    """

    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)

    def notes(self, folder: Path) -> list[str]:
        """Return one line for each kind of thing that was skipped, with its count."""
        notes = []
        if self.hidden:
            count = len(self.hidden)
            notes.append(f"{folder}: {count} hidden file(s) or folder(s) skipped, such as {self.hidden[0]}")
        if self.other:
            kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(self.other.items()))
            notes.append(f"{folder}: file(s) skipped that are no images by their ending: {kinds}")
        return notes


def list_folder(folder: Path, is_meant: Callable[[Path], bool]) -> Listing:
    """Return the files of a folder and its subfolders, linked ones included, each folder once."""
    listing = Listing()
    for here, names in _walk(folder, listing.hidden, {os.path.realpath(folder)}):
        for name in names:
            file = here / name
            if is_meant(file):
                (listing.hidden if name.startswith(".") else listing.files).append(file)
            elif not name.startswith(".") and file.suffix.lower() not in _SILENT:
                listing.other[file.suffix.lower()] += 1
    listing.files.sort()
    listing.hidden.sort()
    return listing


def _walk(folder: Path, skipped: list[Path], visited: set[str]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names of its files; a link back to a folder already seen ends there."""
    for here, folders, names in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            path = Path(here, name)
            real = os.path.realpath(path)
            if name == KEPT_PIXELS:
                continue
            if name.startswith(".") or name in _LITTER:
                skipped.append(path)
            elif real not in visited:
                visited.add(real)
                kept.append(name)
        folders[:] = kept
        yield Path(here), names
