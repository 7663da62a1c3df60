"""Writing a detector as YOLOv5 writes its own: a pickle of YOLOv5's classes, which are not needed for it.

Every module becomes an inert object that carries the name of YOLOv5's class and the attributes that its code
reads (v6.0 to v7.0, and the released YOLOv5-SPD). The reverse, reading, is `models.pickled_checkpoint`.
"""

from __future__ import annotations

import datetime
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import save_with_checksums
from models.detection_model import DetectionModel
from models.downsample.spd import Focus, SpaceToDepth
from models.layers import blocks, cross_stage, ghost, transformer
from models.layers.head import Detect
from models.yolov5_architecture import yolov5_architecture
from utils.errors import UserError
from utils.files import write_atomically

NETWORK = (
    "models.yolo.Model"  # which v6.0 and SPD's release call it; in later versions it means DetectionModel
)
_CLASSES: dict[type[nn.Module], str] = {
    Detect: "models.yolo.Detect",
    Focus: "models.common.Focus",
    SpaceToDepth: "models.common.space_to_depth",
    **{
        kind: f"models.common.{kind.__name__}"
        for kind in (
            *(blocks.Conv, blocks.Bottleneck, blocks.C3, blocks.SPP, blocks.SPPF, blocks.Concat),
            *(cross_stage.BottleneckCSP, cross_stage.CrossConv, cross_stage.C3x, cross_stage.C3SPP),
            *(cross_stage.Contract, cross_stage.Expand),
            *(ghost.GhostConv, ghost.GhostBottleneck, ghost.C3Ghost),
            *(transformer.TransformerLayer, transformer.TransformerBlock, transformer.C3TR),
        )
    },
}
_OURS = {"merged", "pad"}  # attributes that YOLOv5's classes do not have
# What nn.Module held when YOLOv5 v6.0 came out; later versions of PyTorch add the rest as they load.
_HOOKS = (
    "_backward_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)
_LATER = set(vars(nn.Module())) - {*_HOOKS, "_is_full_backward_hook", "_non_persistent_buffers_set"}


class _Named:
    """An object of a class of YOLOv5 or PyTorch that is known by name only; it is there to be pickled."""

    def __init__(self, state: Mapping[str, Any]):
        vars(self).update(state)


class _NamingPickler(pickle._Pickler):
    """Writes the names of such classes without looking for them; `torch.save` does the rest."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write a class or function as its module and name."""
        pickler: Any = self
        if isinstance(obj, type) and issubclass(obj, _Named):
            pickler.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__qualname__}\n".encode())
            pickler.memoize(obj)
        else:
            parent: Any = super()
            parent.save_global(obj, name)


def save_yolov5_checkpoint(
    path: str | Path,
    model: DetectionModel,
    hyp: Mapping[str, Any] | None = None,
    opt: Mapping[str, Any] | None = None,
) -> None:
    """Write a detector to `path` as a checkpoint that YOLOv5's own code loads, its weights in 16 bits.

    Args:
        path: an older file there survives a failure.
        model: as trained, not fused for inference.
        hyp: hyperparameters of the training by YOLOv5's names, which its loss reads when training goes on.
        opt: options of the training, plain data; for information.

    Raises:
        UserError: YOLOv5's code cannot build this network, 16 bits cannot hold it, or the file cannot be
            written.
    """
    content = {
        "epoch": -1,  # a finished training
        "best_fitness": None,
        "model": _network(model, hyp or {}),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "wandb_id": None,
        "opt": dict(opt or {}),
        "git": None,
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }
    naming = SimpleNamespace(__name__="pickle", Pickler=_NamingPickler)
    try:
        with write_atomically(Path(path), "wb", sync=True) as file:
            save_with_checksums(content, file, pickle_module=naming)
    except RuntimeError as error:  # how torch reports a failed write
        raise UserError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _network(model: DetectionModel, hyp: Mapping[str, Any]) -> _Named:
    if model.fused:
        raise ValueError("a fused network cannot be written; write it before it is fused")
    architecture = yolov5_architecture(model.yaml)
    rows = architecture["backbone"] + architecture["head"]
    layers = [
        _layer(layer, index, row[0]) for index, (layer, row) in enumerate(zip(model.model, rows, strict=True))
    ]
    chain = _state(model.model, "model")
    chain["_modules"] = OrderedDict((str(index), layer) for index, layer in enumerate(layers))
    state = _state(model, "") | {
        "yaml": architecture,
        "save": _kept_outputs(rows),
        "names": list(model.names),
        "inplace": True,
        "stride": model.stride.detach().float().cpu().clone(),
        "nc": model.head.nc,
        "hyp": dict(hyp),
        "_modules": OrderedDict(model=_named("torch.nn.modules.container.Sequential", chain)),
    }
    return _named(NETWORK, state)


def _kept_outputs(rows: list[list[Any]]) -> list[int]:
    """Return the layers whose output is kept, as a row names them otherwise than by -1."""
    kept = []
    for index, (sources, *_) in enumerate(rows):
        for source in sources if isinstance(sources, list) else [sources]:
            if source != -1:
                kept.append(source % index)
    return sorted(kept)


def _layer(layer: nn.Module, index: int, source: int | list[int]) -> _Named:
    """Return a layer with what YOLOv5 writes on it: index, sources, class and number of parameters."""
    written = _written(layer, f"model.{index}")
    kind = type(written)
    if isinstance(layer, nn.Sequential):  # a block that repeats as a whole
        kind = type(_written(layer[0], f"model.{index}.0"))
    vars(written).update(
        i=index,
        f=source,
        type=f"{kind.__module__}.{kind.__qualname__}",
        np=sum(parameter.numel() for parameter in layer.parameters()),
    )
    return written


def _written(module: nn.Module, path: str) -> _Named:
    """Return what is written for a module and all in it.

    Raises:
        UserError: YOLOv5 has no such class.
    """
    kind = type(module)
    name = _CLASSES.get(kind)
    if name is None and kind.__module__.startswith("torch.nn.modules."):
        name = f"{kind.__module__}.{kind.__qualname__}"
    if name is None or getattr(module, "pad", None) is True:
        raise UserError(f"YOLOv5's code has no {kind.__name__} such as {path}")
    state = _state(module, path)
    state["_modules"] = OrderedDict(
        (key, child if child is None else _written(child, f"{path}.{key}"))
        for key, child in module._modules.items()
    )
    return _named(name, state | _further_attributes(module))


def _named(name: str, state: Mapping[str, Any]) -> _Named:
    module, _, qualname = name.rpartition(".")
    return _class(module, qualname)(state)


@cache
def _class(module: str, qualname: str) -> type[_Named]:
    """Return the one class of that name, so that a pickle names it once."""
    return type(qualname, (_Named,), {"__module__": module, "__qualname__": qualname})


def _state(module: nn.Module, path: str) -> dict[str, Any]:
    """Return the `__dict__` that this module has in YOLOv5, but for what is in it and YOLOv5's own marks."""
    state: dict[str, Any] = {
        "training": False,
        "_parameters": OrderedDict(
            (key, None if value is None else nn.Parameter(_half(value, path, key), requires_grad=False))
            for key, value in module._parameters.items()
        ),
        "_buffers": OrderedDict(
            (key, None if value is None else _half(value, path, key))
            for key, value in module._buffers.items()
            if key not in module._non_persistent_buffers_set
        ),
        "_non_persistent_buffers_set": set(),
        "_is_full_backward_hook": None,
        **{hooks: OrderedDict() for hooks in _HOOKS},
    }
    if not isinstance(module, DetectionModel):
        ignored = {*state, *_LATER, *_OURS}
        state.update((key, value) for key, value in vars(module).items() if key not in ignored)
    return state


def _further_attributes(module: nn.Module) -> dict[str, Any]:
    """Return what YOLOv5's class keeps and ours does not."""
    if isinstance(module, Detect):
        return {
            "grid": [torch.zeros(1) for _ in range(module.nl)],  # made anew for the first images
            "anchor_grid": [torch.zeros(1) for _ in range(module.nl)],
            "inplace": True,
            "stride": module.stride.detach().float().cpu().clone(),
        }
    if isinstance(module, SpaceToDepth):
        return {"d": 1}
    if isinstance(module, transformer.TransformerBlock):
        return {"conv": None, "c2": module.linear.out_features}
    return {}


def _half(tensor: Tensor, path: str, key: str) -> Tensor:
    """Return a copy in 16 bits, as YOLOv5 stores its networks; counters stay whole numbers.

    Raises:
        UserError: a value is too large for 16 bits.
    """
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    if not copy.is_floating_point():
        return copy
    half = copy.half()
    if not torch.equal(half.isfinite(), copy.isfinite()):
        raise UserError(
            f"{path}.{key} has values above 65,504, which the 16 bits of YOLOv5's files cannot hold"
        )
    return half
