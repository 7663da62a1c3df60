"""Reading files that other people wrote: whatever a parser throws becomes one line that names the file.

with reading(path, "a label cache"):
    content = parse(path.read_bytes())  # whatever it raises: UserError, "<path>: not ... (<why>)"

Only regular files are read: a FIFO would be waited for, and a link to an endless device fills the memory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

from utils.errors import UserError, one_line
from utils.limits import Limit

PROJECT = str(Path(__file__).resolve().parents[1])
REASON = 200  # characters of a parser's own words that a message keeps
OURS = (NameError, AssertionError, ImportError)  # mistakes of a program, where it is this one
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class guarded:
    """A context in which every exception is the fault of what is being read, and becomes one line.

    A `UserError` passes as it is, and so do `KeyboardInterrupt` and the like. An exception that shows a
    mistake in this project (an unknown name, a failed import or assertion, raised by a line of ours) keeps
    its traceback. A FileNotFoundError of this project passes, too. The original is the cause of the new one,
    so that --debug shows it.

    Args:
        where: names what is read, such as the file.
        what: it should be, such as "a COCO file".
        error: the class of what is raised.

    Raises:
        UserError: as above, or the class in `error`.
    """

    __slots__ = ("error", "what", "where")

    def __init__(self, where: object, what: str, error: type[ValueError] = UserError):
        self.where, self.what, self.error = where, what, error

    def __enter__(self) -> int | None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (UserError, self.error)) or not isinstance(error, Exception):
            return
        if isinstance(error, OURS) and _raised_here(trace):
            return
        if isinstance(error, FileNotFoundError) and error.errno is None:  # ours, which says all there is
            return
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not the parser's
            raise self.error(f"cannot read {self.where}: {error.strerror}") from error
        raise self.error(f"{self.where}: not {self.what} that can be read ({reason(error)})") from error


class reading(guarded):
    """`guarded` for a file, which must be there and be a regular one.

    Args:
        path: the file.
        what: it should be, such as "a COCO file".
        error: the class of what is raised.
    """

    __slots__ = ()

    def __init__(self, path: str | Path, what: str, error: type[ValueError] = UserError):
        super().__init__(path, what, error)

    def __enter__(self) -> int:
        """Return the file's size, bytes."""
        return check_regular(self.where, self.what, self.error)  # type: ignore[arg-type]


def check_regular(path: str | Path, what: str = "a file", error: type[ValueError] = UserError) -> int:
    """Return the size, bytes, of the regular file that is at `path`, itself or by a link; it is not opened.

    Raises:
        UserError: or the class in `error`.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as missing:
        noun = what.removeprefix("a ").removeprefix("an ")
        raise error(f"no {noun} {path}") from missing
    except OSError as failed:
        raise error(f"cannot read {path}: {failed.strerror}") from failed
    except ValueError as unusable:  # a NUL in the name
        raise error(f"{path}: no name of a file ({unusable})") from unusable
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise error(f"{path} is {kind}, not {what}; only regular files are read")
    return status.st_size


def read_regular(path: Path, what: str, most: Limit) -> bytes:
    """Return the content of a regular file; faster than `reading` and `read_bytes`, as it is looked up once.

    Args:
        path: the file; a FIFO there is not waited for.
        what: it should be, such as "a label file".
        most: bytes.

    Raises:
        UserError: there is none, it is of another kind, too large, or cannot be read.
    """
    with guarded(path, what):
        try:
            descriptor = os.open(path, _READ)
        except (OSError, ValueError):
            check_regular(path, what)  # says what is there
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                check_regular(path, what)
            most.check(status.st_size, path)
            content = os.read(descriptor, status.st_size + 1)
            while more := os.read(descriptor, 2**20):  # once, as a rule: nothing comes after the end
                content += more
            return content
        finally:
            os.close(descriptor)


def is_regular(path: str | Path) -> bool:
    """Whether there is a regular file, or a link to one, at `path`."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def reason(error: BaseException) -> str:
    """Return why a parser failed, in one short line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    lines = str(error)[: 20 * REASON].strip().splitlines()
    said = next((line.strip() for line in lines if line.strip()), "")
    name = type(error).__name__
    if isinstance(error, KeyError) or not said:
        said = f"{name}: {said}" if said else name
    return one_line(said, REASON)


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether the innermost line of a traceback belongs to this project."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    file = trace.tb_frame.f_code.co_filename
    return file.startswith(PROJECT + os.sep) and "site-packages" not in file
