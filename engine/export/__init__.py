"""Export: a trained network as a file for other runtimes, compared with PyTorch before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["export"]


def export(weights: str | Path | None = None, **options: Any) -> list[Path]:
    """Export a checkpoint for other runtimes, as export.py does, and return the files that equal PyTorch.

    Args:
        weights: the checkpoint (.pt); None is the newest run's best, or what ships.
        options: those of export.py, by the same names: `export("best.pt", include=["onnx"], dynamic=True)`.

    Raises:
        UserError: an unknown option, a bad value, or a format that cannot be made here.
    """
    from engine.export.command import export_formats
    from engine.export.config import ExportConfig

    given = {} if weights is None else {"weights": weights}
    return [path for path in export_formats(ExportConfig.of(**given, **options)) if path is not None]
