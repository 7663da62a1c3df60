"""The nearest to YOLOv5's own code that there is here: modules of its names that run what a pickle holds.

They have no `__init__`: all that a module knows comes from the pickle. `forward` follows YOLOv5's contract of
each module, and that of `Model` the contract of its networks: layers in order, with `f`, `i` and `save`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def forward(self, x):
        y = self.cv2(self.cv1(x))
        return y + x if self.add else y


class C3(nn.Module):
    def forward(self, x):
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPP(nn.Module):
    def forward(self, x):
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [pool(x) for pool in self.m], 1))


class SPPF(nn.Module):
    def forward(self, x):
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(self.m(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class Concat(nn.Module):
    def forward(self, maps):
        return torch.cat(maps, self.d)


def _four(x):
    return torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)


class Focus(nn.Module):
    def forward(self, x):
        return self.conv(_four(x))


class SpaceToDepth(nn.Module):
    def forward(self, x):
        assert self.d == 1
        return _four(x)


class GhostConv(nn.Module):
    def forward(self, x):
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    def forward(self, x):
        return self.conv(x) + self.shortcut(x)


class BottleneckCSP(nn.Module):
    def forward(self, x):
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(joined)))


class Contract(nn.Module):
    def forward(self, x):
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(b, c * g * g, h // g, w // g)


class Expand(nn.Module):
    def forward(self, x):
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(b, c // g**2, h * g, w * g)


class TransformerLayer(nn.Module):
    def forward(self, x):
        x = self.ma(self.q(x), self.k(x), self.v(x))[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    def forward(self, x):
        if self.conv is not None:
            x = self.conv(x)
        b, _, h, w = x.shape
        pixels = x.flatten(2).permute(2, 0, 1)
        return self.tr(pixels + self.linear(pixels)).permute(1, 2, 0).reshape(b, self.c2, h, w)


class Detect(nn.Module):
    def forward(self, maps):
        decoded, raw = [], []
        for i in range(self.nl):
            x = self.m[i](maps[i])
            b, _, h, w = x.shape
            x = x.view(b, self.na, self.no, h, w).permute(0, 1, 3, 4, 2).contiguous()
            raw.append(x)
            if self.grid[i].shape[2:4] != x.shape[2:4]:  # whatever was stored is for other images
                y_x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
                self.grid[i] = torch.stack(y_x[::-1], 2).expand(1, self.na, h, w, 2).float()
                self.anchor_grid[i] = (self.anchors[i] * self.stride[i]).view(1, self.na, 1, 1, 2)
            y = x.sigmoid()
            xy = (y[..., :2] * 2 - 0.5 + self.grid[i]) * self.stride[i]
            wh = (y[..., 2:4] * 2) ** 2 * self.anchor_grid[i]
            decoded.append(torch.cat((xy, wh, y[..., 4:]), -1).view(b, -1, self.no))
        return torch.cat(decoded, 1), raw


class Model(nn.Module):
    def forward(self, images: Tensor) -> Any:
        x: Any = images
        outputs: list[Any] = []
        for layer in self.model:
            if layer.f != -1:
                if isinstance(layer.f, int):
                    x = outputs[layer.f]
                else:
                    x = [x if source == -1 else outputs[source] for source in layer.f]
            x = layer(x)
            outputs.append(x if layer.i in self.save else None)
        return x


CLASSES = {
    f"models.common.{kind.__name__}": kind
    for kind in (
        *(Conv, Bottleneck, C3, SPP, SPPF, Concat, Focus, GhostConv, GhostBottleneck, BottleneckCSP),
        *(Contract, Expand, TransformerLayer, TransformerBlock),
    )
} | {
    "models.common.C3Ghost": C3,
    "models.common.C3x": C3,
    "models.common.C3SPP": C3,
    "models.common.C3TR": C3,
    "models.common.CrossConv": Bottleneck,
    "models.common.space_to_depth": SpaceToDepth,
    "models.yolo.Detect": Detect,
    "models.yolo.Model": Model,
    "models.yolo.DetectionModel": Model,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return CLASSES.get(f"{module}.{name}") or super().find_class(module, name)


def load_as_yolov5(path: Path) -> dict[str, Any]:
    """Unpickle a checkpoint with these modules, and prepare its network as YOLOv5 does."""
    naming = SimpleNamespace(__name__="pickle", Unpickler=_Unpickler)
    content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=naming)
    content["model"] = (content.get("ema") or content["model"]).float().eval()
    return content


class _Pickler(pickle._Pickler):
    def save_global(self, obj: Any, name: str | None = None) -> None:
        pickler: Any = self
        names = [key for key, kind in CLASSES.items() if kind is obj]
        if names:
            pickler.write(pickle.GLOBAL + "{}\n{}\n".format(*names[0].rsplit(".", 1)).encode())
            pickler.memoize(obj)
        else:
            super().save_global(obj, name)


def save_as_yolov5(path: Path, model: nn.Module) -> None:
    """Pickle a network of these modules by YOLOv5's names, as `torch.save` does there."""
    naming = SimpleNamespace(__name__="pickle", Pickler=_Pickler)
    torch.save({"model": model, "ema": None}, path, pickle_module=naming)


class Attributes:
    """What a pickle says of an object, of whatever class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class _AttributesUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("models.", "torch.nn.modules.")):
            return type(name, (Attributes,), {"__module__": module})
        return super().find_class(module, name)


def read_attributes(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return class and attributes of every module of a pickled network, by its path."""
    naming = SimpleNamespace(__name__="pickle", Unpickler=_AttributesUnpickler)
    content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=naming)
    modules: dict[str, tuple[str, dict[str, Any]]] = {}

    def collect(module: Any, where: str) -> None:
        modules[where] = (f"{type(module).__module__}.{type(module).__name__}", vars(module))
        for name, child in vars(module)["_modules"].items():
            if child is not None:
                collect(child, f"{where}.{name}".strip("."))

    collect(content.get("ema") or content["model"], "")
    return modules
