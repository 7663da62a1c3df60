"""Run folders: runs/train/exp, exp2, exp3, ..., and the weights that commands take unless told otherwise."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from utils.drafts import clear_drafts
from utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
SHIPPED = Path(__file__).resolve().parents[1] / "weights" / "treecrowns.pt"  # see weights/README.md


def make_run_folder(project: Path, name: str, exist_ok: bool = False) -> Path:
    """Create and return `project/name`, or the first free `project/name2`, `name3`, ... unless `exist_ok`.

    Raises:
        UserError: the folder cannot be created or written.
    """
    folder, number = project / name, 1
    try:
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=exist_ok)
                break
            except FileExistsError:
                if exist_ok:
                    raise
                number += 1
                folder = project / f"{name}{number}"
        _probe(folder)
    except OSError as error:
        message = f"cannot write the run folder {folder}: {error.strerror}; choose another --project"
        raise UserError(message) from error
    if exist_ok:
        for place, _, _ in os.walk(folder):
            clear_drafts(Path(place))
    return folder


def _probe(folder: Path) -> None:
    """Create a file in a folder and remove it; a process killed in between leaves it to the next."""
    probe = folder / ".write-test"
    probe.touch()
    probe.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that a folder can be written, or can be created where it is not there yet; nothing is left.

    Raises:
        UserError: it cannot.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    probe = there / ".write-test"
    try:
        probe.mkdir(exist_ok=True)  # one that a killed process left is as good
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            probe.rmdir()
    except OSError as error:
        message = f"cannot write the run folder {folder}: {error.strerror}; choose another --project"
        raise UserError(message) from error


@contextlib.contextmanager
def locked(folder: Path, doing: str = "training") -> Iterator[None]:
    """Keep other processes that ask for it out of a run folder; the system frees it when this process ends.

    Args:
        folder: of the run.
        doing: what they do there, for the message.

    Raises:
        UserError: another process has it.
    """
    if fcntl is None:
        yield
        return
    file = folder / ".lock"
    with file.open("w") as held:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                hint = "wait for its end, or choose another --name"
                raise UserError(f"another process is {doing} into {folder}; {hint}") from error
            # a file system without locks: as before there were any
        yield
        file.unlink(missing_ok=True)


def default_weights(project: Path = Path("runs/train")) -> Path:
    """Return the best.pt of the newest training run; before the first, the detector that ships.

    Raises:
        UserError: there is neither.
    """
    files = sorted(project.glob("*/weights/best.pt"), key=lambda file: file.stat().st_mtime)
    if files:
        return files[-1]
    if not SHIPPED.exists():
        raise UserError(f"no trained weights in {project}, and no {SHIPPED}; train first, or give --weights")
    LOG.info("no training run in %s yet: this is the tree-crown detector that ships, %s", project, SHIPPED)
    return SHIPPED
