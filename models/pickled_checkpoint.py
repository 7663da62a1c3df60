"""Reading official YOLOv5 and released SPD-Conv files, which are pickles, without the classes they name.

torch's weights-only unpickler reads them; it builds tensors and containers and nothing else. For every class
that the file names and that looks like a part of a network it gets an inert stand-in, a class that only
keeps its state. Any other name is refused before anything is read.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.module_settings import Settings, described_by, plain_settings
from utils.errors import UserError
from utils.limits import MODULES
from utils.reading import reason

# Parts of networks, and the paths and NumPy values that an unfinished YOLOv5 training leaves in a checkpoint.
_HARMLESS = re.compile(
    r"torch\.nn\.modules\.\w+\.[A-Z]\w*"
    r"|models\.\w+\.\w+"
    r"|utils\.activations\.[A-Z]\w*"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|numpy\.(dtype|ndarray|dtypes\.\w+)|numpy\._?core\.multiarray\.(scalar|_reconstruct)"
)
_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.(\w+Storage|Size|device|\w+\d+)"
)

_OTHER = {
    "models.yolo.SegmentationModel": "segmentation",
    "models.yolo.Segment": "segmentation",
    "models.yolo.ClassificationModel": "classification",
    "models.common.Classify": "classification",
    "torchvision.models.resnet.ResNet": "classification",
    "torchvision.models.efficientnet.EfficientNet": "classification",
}
_TRANSFORMS = re.compile(
    r"(torchvision|albumentations)(\.\w+)+|utils\.augmentations\.\w+"
)  # kept by classifiers


class _Inert:
    """Keeps the state of a pickled object in `__dict__` and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def classes_named_in(path: Path) -> list[str]:
    """Return the classes that a file's pickle names, beyond tensors and containers, without running it.

    Raises:
        UserError: one of them is not a part of a network, or the pickle is damaged.
    """
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        problem = ""
    except Exception as error:  # a damaged or crafted file can make the reader raise anything
        problem = _first_line(error)
        named = [name for name in _list_globals(path) if not _TENSORS.fullmatch(name)]
    refused = sorted(name for name in named if not _HARMLESS.fullmatch(name))
    if any(name.startswith("ultralytics.") for name in refused):
        raise UserError(
            f"{path} is a checkpoint of the ultralytics package, not of YOLOv5: its head is none of ours. "
            "Use it there: call models.ultralytics_bridge.enable(), then YOLO(), see docs/spd.md"
        )
    other = next((_OTHER[name] for name in named if name in _OTHER), None)
    if other and not [name for name in refused if not _TRANSFORMS.fullmatch(name)]:
        raise UserError(
            f"{path} is a YOLOv5 {other} checkpoint; YOLOv5's detectors are read here, no other kind"
        )
    if refused == ["builtins.getattr"] and "models.common.Conv" in named:  # a method stored as an attribute
        raise UserError(
            f"{path} is refused: it names builtins.getattr, as networks do that YOLOv5 has fused for "
            "inference; give the file from before that"
        )
    if refused:
        raise UserError(f"{path} is refused: it names {', '.join(refused)}, and loading would run that code")
    if problem:
        raise UserError(f"{path} is damaged and cannot be read: {problem}")
    return named


def _list_globals(path: Path) -> list[str]:
    """Return every global that a pickle of any protocol names, up to where it is damaged."""
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        payload = archive.read(member)
    names, texts = [], ["", ""]
    memo: dict[Any, str] = {}
    argument: Any
    try:
        for operation, argument, _ in pickletools.genops(payload):
            if operation.name in ("GLOBAL", "INST"):
                names.append(argument.replace(" ", "."))
            elif operation.name == "STACK_GLOBAL":
                names.append(f"{texts[-2]}.{texts[-1]}")
            elif operation.name == "MEMOIZE":
                memo[len(memo)] = texts[-1]
            elif operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = texts[-1]
            elif operation.name in ("GET", "BINGET", "LONG_BINGET"):
                texts.append(memo.get(argument, "?"))
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:  # the pickle is cut short
        pass
    return names


def load_plain(path: Path, map_location: str | torch.device) -> Any:
    """Return the content of a file, read by `torch.load(weights_only=True)`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise anything
        raise UserError(f"{path} is damaged and cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return reason(error)


def read_pickled_model(path: Path, named: list[str], map_location: str | torch.device) -> dict[str, Any]:
    """Return model (architecture), names, weights and modules of a pickled network; its average, if stored.

    "modules" are the settings of every module by its path, with which the network that is built is compared;
    "strides" those of the levels, in pixels; "hyp" the hyperparameters of its training, as far as known.

    Args:
        path: the file.
        named: the classes it names, from `classes_named_in`.
        map_location: where to put the tensors.

    Raises:
        UserError: the file is damaged, or holds no network, or one of modules that are not known here.
    """
    with torch.serialization.safe_globals([_stand_in(name) for name in named]):
        content = load_plain(path, map_location)
    network = content
    if isinstance(content, dict):
        network = content.get("ema") or content.get("model")
    architecture = getattr(network, "yaml", None)
    if not isinstance(network, _Inert) or not isinstance(architecture, dict):
        raise UserError(f"{path} holds no YOLOv5 network")
    names = getattr(network, "names", None) or []
    modules = _modules(network, "")
    try:
        described = described_by(modules)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    kept = {key: value for key, value in architecture.items() if key not in ("activation", "batchnorm")}
    return {
        "model": {**kept, "nc": getattr(network, "nc", architecture.get("nc")), **described},
        "names": [str(name) for name in (names.values() if isinstance(names, dict) else names)],
        "weights": _state_dict(network, ""),
        "modules": modules,
        "strides": _strides(network),
        "hyp": _hyperparameters(network),
    }


def _stand_in(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (_Inert,), {"__module__": module, "__qualname__": attribute})


def _modules(module: Any, path: str) -> dict[str, Settings]:
    """Return the settings of an inert nn.Module and of all in it, by their paths."""
    settings = {path: plain_settings(type(module), vars(module))}
    for name, child in (vars(module).get("_modules") or {}).items():
        if isinstance(child, _Inert):
            settings.update(_modules(child, f"{path}.{name}" if path else name))
            MODULES.check(len(settings), "a pickled network")
    return settings


def _strides(network: Any) -> list[float] | None:
    stride = getattr(network, "stride", None)
    return [float(value) for value in stride] if isinstance(stride, Tensor) else None


def _hyperparameters(network: Any) -> dict[str, float]:
    hyp = getattr(network, "hyp", None)
    if not isinstance(hyp, dict):
        return {}
    return {str(key): value for key, value in hyp.items() if isinstance(value, int | float)}


def _state_dict(module: Any, prefix: str) -> dict[str, Tensor]:
    """Collect parameters and persistent buffers of an inert nn.Module, as `state_dict()` would."""
    state = vars(module)
    skipped = state.get("_non_persistent_buffers_set", ())
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor) and name not in skipped:
                tensors[prefix + name] = value.detach()
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, _Inert):
            tensors.update(_state_dict(child, f"{prefix}{name}."))
    return tensors
