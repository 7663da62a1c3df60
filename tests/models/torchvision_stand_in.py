"""Just enough of torchvision for timm and Ultralytics to be imported where its binary does not load."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from importlib.machinery import ModuleSpec


class _Named(type):
    """The class of classes that have every attribute: its own name, for enumerations."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _Anything(types.ModuleType):
    """A module whose attributes are empty classes; nothing of it is called when networks are built."""

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
        pass
