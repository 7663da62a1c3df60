"""The run folder of detect.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from data.media.sources import Source
    from engine.inference.config import DetectConfig


def make_output_folder(cfg: DetectConfig, source: Source) -> Path:
    """Create the run folder.

    Raises:
        UserError: it is the folder of the source.
    """
    from utils.run_folders import make_run_folder

    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    if any(path.parent.resolve() == folder.resolve() for path in source.files):
        raise UserError(f"results in {folder} would overwrite the source; choose another --project or --name")
    return folder
