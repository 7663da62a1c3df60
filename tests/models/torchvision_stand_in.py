"""Just enough of torchvision for timm and Ultralytics to run where its binary cannot be imported."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec

import torch
from torch import Tensor


class _Named(type):
    """The class of classes that have every attribute: its own name, for enumerations."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _Anything(types.ModuleType):
    """A module whose attributes are empty classes; of it, only `nms` is called."""

    __path__ = ()
    __version__ = "0.0"

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Named(name, (), {})


@contextlib.contextmanager
def torchvision_importable() -> Iterator[None]:
    """Put the stand-in into sys.modules where torchvision itself cannot be imported; take it out again."""
    try:
        importlib.import_module("torchvision")
        yield
        return
    except (ImportError, RuntimeError, OSError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


class _Finder:
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "torchvision":
            importlib.import_module("torchvision.ops")
        elif module.__name__ == "torchvision.ops":
            module.nms = nms


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return which of (n, 4) x1, y1, x2, y2 to keep, best first: the one function that is called."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, kept = scores.argsort(descending=True), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        starts = torch.maximum(boxes[left, :2], boxes[best, :2])
        ends = torch.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = (ends - starts).clamp(min=0).prod(1)
        left = left[shared <= iou_threshold * (areas[left] + areas[best] - shared)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)
