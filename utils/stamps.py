"""Whether a file is still the one that was read, without reading it again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """What changes with a file's content.

    An editor or a copy can keep size and modification time, and two files can change places; then the number
    of the file (inode) is another one, or the time of its last change, which no program can set. On Windows
    that is the time of its creation, and only the rest tells. Times are compared for being equal, so that
    nothing depends on a clock that goes forward.
    """

    modified_ns: int
    changed_ns: int
    inode: int
    size: int


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        OSError: it is not there.
        ValueError: no name of a file.
    """
    status = os.stat(path)
    return Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
