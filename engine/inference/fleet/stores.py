"""Object stores: what is in them, and a file of theirs as a local one for as long as it is read."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from data.media.image_files import IMAGE_SUFFIXES
from data.media.sources import VIDEO_SUFFIXES
from data.paths import is_litter
from utils.errors import UserError, one_line

ARROW = ("s3", "gs", "gcs", "hdfs")  # schemes that pyarrow reads itself
FSSPEC = ("abfs", "abfss", "az", "file")  # and those that it reads through fsspec
SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def is_stored(name: str) -> bool:
    """Whether a source is the address of something in an object store."""
    scheme, separator, _ = name.partition("://")
    return bool(separator) and scheme.lower() in ARROW + FSSPEC


def path_of(name: str) -> Path:
    """Return a source as a path: an address without its options; the name of a file may hold a '?'."""
    return Path(name.partition("?")[0] if is_stored(name) else name)


def list_store(address: str) -> list[str]:
    """Return the addresses of images and videos: one, those of a folder itself, or those that a glob matches.

    Args:
        address: such as s3://bucket/folder, or s3://bucket/folder/**/*.jpg.

    Raises:
        UserError: there are none, or the store cannot be reached or does not let us in.
    """
    from pyarrow.fs import FileSelector, FileType

    plain, question, query = address.partition("?")
    fixed = re.split(r"[*\[]", plain, maxsplit=1)[0]
    has_magic = fixed != plain
    base = fixed.rpartition("/")[0] if has_magic else plain.rstrip("/")
    with _explained(address):
        store, path = _open(base + question + query)
        if not has_magic and store.get_file_info(path).type == FileType.File:
            return [address]
        if has_magic and store.get_file_info(path + plain[len(base) :]).type == FileType.File:
            return [address]  # a file whose name has brackets
        below = plain[len(base) + 1 :]
        infos = store.get_file_info(
            FileSelector(path, recursive=has_magic and ("/" in below or "**" in below))
        )
    prefix = base[: len(base) - len(path)]  # "s3://", which the store's own paths leave out
    names = sorted(prefix + info.path for info in infos if info.type == FileType.File)
    matches = re.compile(_pattern(plain) if has_magic else ".*", re.DOTALL).fullmatch
    listed = [name for name in names if matches(name) and _is_media(name)]
    if not listed:
        raise UserError(f"{plain}: no image or video there; for folders inside it give '{fixed}/**/*.jpg'")
    return [name + question + query for name in listed]


def _is_media(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not is_litter(path.name)


def _pattern(glob: str) -> str:
    """Return the regular expression of a glob: * stays within a folder, **/ does not; ? begins options."""
    return re.sub(r"\*\*/|\*\*|\*|\[!?[^]/-]+\]|\[!?.-.\]|.", _expression, glob, flags=re.DOTALL)


def _expression(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == "[" and len(token) > 1:  # characters, or one range of them
        first, dash, last = token[1:-1].removeprefix("!").partition("-")
        inside = re.escape(first) + dash + re.escape(last)
        return f"[{'^' if token[1] == '!' else ''}{inside}]" if not dash or first <= last else "(?!)"
    return {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}.get(token) or re.escape(token)


@contextlib.contextmanager
def local_file(name: str) -> Iterator[Path]:
    """Yield a path under which a file can be read: its own, or that of a copy from an object store.

    Raises:
        UserError: the store does not give it.
    """
    if not is_stored(name):
        yield Path(name)
        return
    plain = name.partition("?")[0]
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        copy = Path(folder) / (PurePosixPath(plain).name or "file")
        with _explained(name):
            store, path = _open(name)
            with store.open_input_stream(path) as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        yield copy


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path there."""
    scheme = address.partition("://")[0].lower()
    plain, _, query = address.partition("?")
    base = f"{scheme}://{plain.partition('://')[2].partition('/')[0]}"
    if scheme in FSSPEC:
        from fsspec.core import url_to_fs
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        files, path = url_to_fs(plain)
        return PyFileSystem(FSSpecHandler(files)), path
    return _arrow_store(f"{base}?{query}" if query else base), plain.partition("://")[2]


@functools.lru_cache(maxsize=8)
def _arrow_store(address: str) -> Any:
    """Open a bucket once in each process."""
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(address)[0]


@contextlib.contextmanager
def _explained(address: str) -> Iterator[None]:
    """Make one line of whatever a store says.

    Raises:
        UserError: it said something.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = one_line(str(error).strip() or type(error).__name__, 200)
        raise UserError(f"{address.partition('?')[0]}: the store cannot be read ({why})") from error
