"""Detection networks; names are imported when they are first used, so that `import models` costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.build import build_model
    from models.detector import Detector
    from models.load import load_model, transfer_weights

_HOMES = {
    "build_model": "models.build",
    "Detector": "models.detector",
    "load_model": "models.load",
    "transfer_weights": "models.load",
}

__all__ = ["Detector", "build_model", "load_model", "transfer_weights"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
