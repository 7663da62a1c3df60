"""What a network computes beside its weights: class and plain attributes of every module.

Two networks of one architecture and equal tensors may still differ in activations, paddings, groups or eps;
a pickled network is compared module by module with the one that is built from its architecture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from models.layers.activations import activation_text
from utils.errors import UserError, quoted

Settings = tuple[str, dict[str, Any]]  # class name, plain attributes

# Without effect on what is computed, or YOLOv5's own bookkeeping.
_IGNORED = {"training", "inplace", "name", "i", "f", "type", "np", "c", "gr", "fused", "merged"}
_SAME = {  # YOLOv5's class: ours
    "DWConv": "Conv",
    "space_to_depth": "SpaceToDepth",
    "Model": "DetectionModel",
    "Swish": "SiLU",
    "NonDynamicallyQuantizableLinear": "Linear",
}


def built_settings(model: nn.Module) -> dict[str, Settings]:
    """Return the settings of every module, by its path."""
    return {path: plain_settings(type(module), vars(module)) for path, module in model.named_modules()}


def plain_settings(kind: type, state: Mapping[str, Any]) -> Settings:
    """Return class name and plain attributes of a module of class `kind` with this `__dict__`."""
    name = _SAME.get(kind.__name__, kind.__name__)
    return name, {key: value for key, value in state.items() if key[0] != "_" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, int | float | str)


def described_by(modules: Mapping[str, Settings]) -> dict[str, Any]:
    """Return the keys of a model YAML that say which activation and BatchNorm these modules have.

    Where modules differ, the most frequent setting is returned; `difference` names the others.

    Raises:
        UserError: an activation that is none of ours, or convolutions whose BatchNorm is folded away.
    """
    norms = Counter(
        (attributes["eps"], attributes["momentum"])
        for name, attributes in modules.values()
        if name == "BatchNorm2d" and {"eps", "momentum"} <= set(attributes)
    )
    if any(name == "Conv" and f"{path}.bn" not in modules for path, (name, _) in modules.items()):
        raise UserError("the network is fused (its BatchNorm is folded away); give the file from before that")
    settings: dict[str, Any] = {}
    activation = _activation(modules)
    if activation != "nn.SiLU()":
        settings["activation"] = activation
    for (eps, momentum), _ in norms.most_common(1):
        if (eps, momentum) != (1e-3, 0.03):
            settings["batchnorm"] = {"eps": eps, "momentum": momentum}
    return settings


def _activation(modules: Mapping[str, Settings]) -> str:
    """Return the activation of most convolutions; an identity only where there is no other."""
    texts: Counter[str] = Counter()
    for path, (name, _) in modules.items():
        if name == "Conv" and f"{path}.act" in modules:
            kind, settings = modules[f"{path}.act"]
            try:
                texts[activation_text(kind, settings)] += 1
            except UserError as error:
                raise UserError(f"{path}.act: {error}") from error
    identities = texts.pop("nn.Identity()", 0)
    return texts.most_common(1)[0][0] if texts else "nn.Identity()" if identities else "nn.SiLU()"


def difference(given: Mapping[str, Settings], built: Mapping[str, Settings]) -> str:
    """Return the first difference between a file's modules and those that were built, or nothing."""
    for path in given:
        if path not in built:
            return f"there is no place for {path}, {given[path][0]}"
    for path, (kind, settings) in built.items():
        if path not in given:
            return f"{path}, {kind}, is missing"
        other_kind, others = given[path]
        if other_kind != kind:
            return f"{path} is {other_kind} in the file, and {kind} by its architecture"
        for key, here, there in _shared(settings, others):
            if here != there:
                return f"{path}.{key} is {quoted(there)} in the file, and {quoted(here)} by its architecture"
    return ""


def _shared(built: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted((set(built) & set(given)) - _IGNORED):
        yield key, built[key], given[key]
