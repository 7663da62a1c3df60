"""Drafts: files and folders that are written under a hidden name beside their place, and locked meanwhile.

The system frees a lock when its process ends, however it ends. A draft that nobody holds was left by a
process that was killed, and is removed at the next start of the command that made it. Where there are no
locks (some network file systems, Windows) drafts stay, since their process may be alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_DRAFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>tmp|old)")
_LONGEST = 100  # characters of a file's name that its draft's has
_HERE, _EXCHANGE = -100, 2  # of Linux: AT_FDCWD, RENAME_EXCHANGE


def draft_path(path: Path, kind: str = "tmp") -> Path:
    """Return a new hidden name beside `path`: `.<name>.<random>.tmp`, or `.old` for what steps aside."""
    return path.with_name(f".{path.name[:_LONGEST]}.{secrets.token_hex(4)}.{kind}")


def open_draft(path: Path) -> tuple[Path, int, int | None]:
    """Create a draft of the file `path`.

    Returns:
        The draft, a descriptor to write it, and one that holds its lock, to be closed once the draft is no
        longer one; None where there are no locks.

    Raises:
        OSError: it cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        draft = draft_path(path)
        # the system applies the umask, as for any new file; asking for it would change it for other threads
        descriptor = os.open(draft, flags, 0o666)
        if fcntl is None or (_lock(descriptor) and _is_at(descriptor, draft)):
            return draft, descriptor, None if fcntl is None else os.dup(descriptor)
        os.close(descriptor)  # taken for a dead one, and removed, before it was locked


@contextlib.contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """Yield a new draft of the folder `path`, which is removed at the end if it is still there.

    Raises:
        OSError: it cannot be created.
    """
    while True:
        draft = draft_path(path)
        draft.mkdir(parents=True)
        held = hold(draft)
        if held is None or _is_at(held, draft):
            break
        os.close(held)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if held is not None:
            os.close(held)


def hold(path: Path) -> int | None:
    """Lock a file or folder that is there; return the descriptor that holds it, None where it cannot be."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except OSError:
        return None
    if _lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file or folder still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def clear_drafts(folder: Path, *names: str) -> None:
    """Remove the drafts that dead processes left in a folder, and put back what they had moved aside.

    Args:
        folder: need not exist.
        names: of the files and folders whose drafts are meant; none means all.
    """
    if fcntl is None:
        return
    meant = {name[:_LONGEST] for name in names}
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.name[0] == "."]
    except OSError:
        return
    for entry in entries:
        match = _DRAFT.fullmatch(entry.name)
        if match is None or (meant and match["name"] not in meant) or entry.is_symlink():
            continue
        held = hold(entry)
        if held is None:  # its process is alive, or there are no locks
            continue
        with contextlib.suppress(OSError):
            if match["kind"] == "old" and not (folder / match["name"]).exists():
                os.replace(entry, folder / match["name"])
            elif entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        os.close(held)


def exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    rename = _rename()
    return rename is not None and not rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE)


@functools.cache
def _rename() -> Callable[..., int] | None:
    """Linux's renameat2, of which Python has none."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    rename.restype = ctypes.c_int
    return rename
