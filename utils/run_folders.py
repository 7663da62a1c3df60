"""Run folders: runs/train/exp, exp2, exp3, ..., and the weights of the newest one."""

from __future__ import annotations

from pathlib import Path

from utils.errors import UserError


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
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"cannot write the run folder {folder}: {error.strerror}; choose another --project"
        raise UserError(message) from error
    return folder


def newest_weights(project: Path = Path("runs/train")) -> Path:
    """Return the best.pt of the newest training run.

    Raises:
        UserError: there is none.
    """
    files = sorted(project.glob("*/weights/best.pt"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise UserError(f"no trained weights in {project}; train first, or give --weights")
    return files[-1]
