"""Reading YAML, and writing files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, overload

from utils.drafts import clear_drafts, draft_folder, draft_path, exchange, hold, open_draft
from utils.errors import UserError, one_line
from utils.limits import YAML_BYTES, YAML_VALUES
from utils.reading import reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file: plain data, and nothing in it is run.

    Raises:
        UserError: it is not there, too large, not readable or not YAML; the message names it.
    """
    import yaml

    with reading(path, "a YAML file"):
        YAML_BYTES.check(path.stat().st_size, path)
        try:
            content = yaml.load(path.read_text(encoding="utf-8-sig"), _loader())
            YAML_VALUES.check(written_size(content), path)
            return content
        except UserError:
            raise
        except OSError:
            raise
        except Exception as error:  # PyYAML raises what it likes: ValueError for a date such as 2024-13-01
            deep = isinstance(error, RecursionError) or "maximum nesting depth" in str(error)
            why = "nested too deeply" if deep else _place_and_problem(error)
            raise UserError(f"{path} is not valid YAML: {one_line(why, 200)}") from error


def _place_and_problem(error: Exception) -> str:
    """'line 2, column 1: did not find expected ',' or ']''."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    return " ".join(str(error).split()) or type(error).__name__


@functools.cache
def _loader() -> Any:
    """The safe loader, of libyaml where PyYAML has it: ten times as fast."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Refuses mappings that merge keys (<<) without end."""

        def flatten_mapping(self, node: Any) -> None:
            """Count what is merged, before it is copied."""
            for key, value in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    mappings = [item for item in merged if isinstance(item, yaml.MappingNode)]
                    for item in dict.fromkeys(mappings):
                        self.flatten_mapping(item)
                    YAML_VALUES.check(sum(len(item.value) for item in mappings), "keys merged by <<")
            super().flatten_mapping(node)

    return Loader


def written_size(content: Any) -> float:
    """Count values and characters as if written without aliases; infinite where one holds itself."""
    sizes: dict[int, float] = {}
    stack = [(content, False)]
    while stack:
        value, counted = stack.pop()
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        if not isinstance(value, dict | list | tuple | set):
            sizes[id(value)] = 1 + (len(value) if isinstance(value, str | bytes) else 0)
        elif counted:
            sizes[id(value)] = 1 + sum(sizes[id(item)] for item in inner)
        elif id(value) not in sizes:
            sizes[id(value)] = math.inf  # until it is counted: what meets itself on the way stays so
            stack.append((value, True))
            stack += [(item, False) for item in inner if id(item) not in sizes]
    return sizes[id(content)]


@overload
def write_atomically(
    path: Path, mode: Literal["w"] = "w", *, newline: str | None = None, sync: bool = False
) -> contextlib.AbstractContextManager[IO[str]]: ...


@overload
def write_atomically(
    path: Path, mode: Literal["wb"], *, sync: bool = False
) -> contextlib.AbstractContextManager[IO[bytes]]: ...


@contextlib.contextmanager
def write_atomically(
    path: Path, mode: Literal["w", "wb"] = "w", *, newline: str | None = None, sync: bool = False
) -> Iterator[IO[Any]]:
    """Open a file for writing that takes the place of `path` when the block ends without an error.

    Until then the content lies in a draft beside it, see `utils.drafts`, so that nobody sees half a file and
    an older one survives a failure. Several processes may write the same file at once; the last one wins.

    Args:
        path: the file.
        mode: text in UTF-8, or bytes.
        newline: as in `open`.
        sync: wait until the content is on the disk, for what must survive a power cut.

    Raises:
        UserError: it cannot be written; the message names `path` and the system's reason.
    """
    draft: Path | None = None
    held: int | None = None
    try:
        draft, descriptor, held = open_draft(path)
        encoding = "utf-8" if mode == "w" else None
        with os.fdopen(descriptor, mode, encoding=encoding, newline=newline) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
        draft = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `path` when the block ends without an error; else it is removed.

    Drafts of it that killed processes left are removed first.

    Args:
        path: a folder that does not exist, or is empty.

    Raises:
        UserError: it cannot be written.
    """
    clear_drafts(path.parent, path.name)
    try:
        with draft_folder(path) as draft:
            yield draft
            if path.exists():
                path.rmdir()
            os.replace(draft, path)
    except OSError as error:
        where = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        raise UserError(f"cannot write {path}: {error.strerror or error}{where}") from error


def move_into_place(finished: Path, target: Path) -> None:
    """Move a finished file or folder to `target`; an older one is there until then, and after a failure.

    Linux lets two folders change places in one step. Elsewhere the older one steps aside, to
    `.<name>.<random>.old`, for the moment between two renames; after a kill in that moment `clear_drafts`
    brings it back.

    Args:
        finished: on the same file system; at the end nothing is there.
        target: nothing, or a file for a file, or a folder for a folder.

    Raises:
        UserError: it cannot be written, or is of the other kind.
    """
    try:
        if not target.is_dir() or not finished.is_dir():
            os.replace(finished, target)
            return
        if exchange(finished, target):
            shutil.rmtree(finished, ignore_errors=True)
            return
        held, aside = hold(target), draft_path(target, "old")
        try:
            os.replace(target, aside)
            try:
                os.replace(finished, target)
            except BaseException:
                os.replace(aside, target)
                raise
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            if held is not None:
                os.close(held)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error


class GrowingFile:
    """A text file that is written bit by bit: `<name>.part` until `close` gives it its name.

    Args:
        path: of the finished file.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(f"{path.name}.part")
        self._failed = False
        with writing(path):
            self._file = self.part.open("w", encoding="utf-8", newline="")

    def write(self, text: str) -> int:
        """Append text.

        Raises:
            UserError: it cannot be written; the part keeps its name.
        """
        try:
            return self._file.write(text)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Give the file its name, unless something could not be written.

        Raises:
            UserError: the rest cannot be written.
        """
        try:
            self._file.close()
            if not self._failed:
                os.replace(self.part, self.path)
        except OSError as error:
            if not self._failed:
                raise self._failure(error) from error

    def _failure(self, error: OSError) -> UserError:
        self._failed = True
        return UserError(
            f"cannot write {self.path}: {error.strerror or error}; what was written is in {self.part}"
        )


def save_figure(figure: Figure, png: Path, **options: Any) -> None:
    """Write one of matplotlib's figures as a PNG file, whole or not at all.

    Args:
        figure: is drawn.
        png: the file.
        options: of `Figure.savefig`.

    Raises:
        UserError: it cannot be written.
    """
    with write_atomically(png, "wb") as file:
        figure.savefig(file, format="png", **options)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file where the system cannot write it: of a full disk it does not say which file was meant.

    Raises:
        UserError: it cannot be written; the message names `path` and the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
