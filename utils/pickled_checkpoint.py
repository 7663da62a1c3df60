"""Official YOLOv5 and released SPD-Conv files: pickles of their own classes, read without those classes.

torch's weights-only unpickler does the reading: it builds tensors and containers and nothing else. Every
class such a file names that looks like a network's part is given to it as an inert stand-in, a class that
only keeps what is stored in it; any other name is refused before anything is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError

# Modules of networks, and what YOLOv5's training options and metrics leave in an unfinished checkpoint.
_HARMLESS = re.compile(
    r"(torch\.nn\.modules\.\w+\.[A-Z]\w*"
    r"|(models|ultralytics\.nn)\.\w+(\.\w+)?\.\w+"
    r"|utils\.(activations|general|autoanchor|loss)\.[A-Z]\w*"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+)|numpy\._?core\.multiarray\.(scalar|_reconstruct))"
)


class _Inert:
    """Keeps the state of a pickled object in `__dict__` and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_pickled_model(path: Path, named: list[str], map_location: str | torch.device) -> dict[str, Any]:
    """Return model (architecture), names and weights of a pickled network; `named` are the globals in it.

    The averaged weights (`ema`) are taken where the file has them.

    Raises:
        UserError: a name that is no part of a network, a damaged file, or no network in it.
    """
    refused = sorted(name for name in named if not _HARMLESS.fullmatch(name))
    if refused:
        raise UserError(f"{path} is refused: it names {', '.join(refused)}, and loading would run that code")
    try:
        with torch.serialization.safe_globals([_stand_in(name) for name in named]):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever a damaged file makes of the reader
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is damaged and cannot be read: {reason}") from error
    network = content
    if isinstance(content, dict):
        network = content.get("ema") or content.get("model")
    architecture = getattr(network, "yaml", None)
    if not isinstance(network, _Inert) or not isinstance(architecture, dict):
        raise UserError(f"{path} holds no YOLOv5 network")
    names = getattr(network, "names", None) or []
    return {
        "model": {**architecture, "nc": getattr(network, "nc", architecture.get("nc"))},
        "names": [str(name) for name in (names.values() if isinstance(names, dict) else names)],
        "weights": _state_dict(network, ""),
    }


def _stand_in(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (_Inert,), {"__module__": module, "__qualname__": attribute})


def _state_dict(module: Any, prefix: str) -> dict[str, Tensor]:
    """Collect parameters and persistent buffers of an inert nn.Module, as `state_dict()` would."""
    state = vars(module)
    skipped = state.get("_non_persistent_buffers_set", ())
    found = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor) and name not in skipped:
                found[prefix + name] = value.detach()
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, _Inert):
            found.update(_state_dict(child, f"{prefix}{name}."))
    return found
