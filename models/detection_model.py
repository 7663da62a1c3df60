"""A detector: layers that take the outputs of earlier ones, with the detection head at their end."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.layers.head import Detect, DetectionHead
from utils.errors import UserError

Inputs = int | list[int]  # the layers whose outputs a layer takes, by index; -1 is the image


def _as_list(source: Inputs) -> list[int]:
    return source if isinstance(source, list) else [source]


class DetectionModel(nn.Module):
    """Layers that run in order; the last one, `Detect`, returns the boxes.

    Attributes:
        model: the layers; their state-dict keys are YOLOv5's.
        yaml: the architecture it was built from, plain data that builds it again.
        names: of the classes.
        sources: the inputs of each layer: a layer's index, -1 for the image, or a list of them.
        channels: of each layer's output.
        skips: the layers whose output is an input of others than the next one.
        task: "detect".
        fused: whether `models.fuse` has rewritten it for inference.
    """

    task = "detect"

    def __init__(
        self,
        layers: list[nn.Module],
        sources: list[Inputs],
        channels: list[int],
        architecture: dict[str, Any],
        names: list[str],
    ):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.sources = sources
        self.channels = channels
        self.yaml = architecture
        self.names = names
        self.fused = False
        self.max_stride = int(self.head.stride.max())
        self.skips = {i for n, source in enumerate(sources) for i in _as_list(source) if i != n - 1}

    @property
    def head(self) -> DetectionHead:
        """The detection head, the last layer."""
        head = self.model[-1]
        assert isinstance(head, DetectionHead)
        return head

    @property
    def anchor_head(self) -> Detect | None:
        """The head, if it has anchors."""
        return self.head if isinstance(self.head, Detect) else None

    @property
    def stride(self) -> Tensor:
        """(nl,) pixels per cell of each level."""
        return self.head.stride

    def set_anchors(self, anchors: Tensor) -> None:
        """Replace the anchors by these, (nl, na, 2) widths and heights in pixels.

        Raises:
            ValueError: another number of levels, or of anchors per level; or a head without anchors.
        """
        head = self.anchor_head
        if head is None:
            raise ValueError("this head has no anchors")
        if anchors.shape != head.anchors.shape:
            raise ValueError(f"anchors must be {tuple(head.anchors.shape)}, got {tuple(anchors.shape)}")
        head.anchors = (anchors.to(head.stride) / head.stride.view(-1, 1, 1)).contiguous()
        self.yaml["anchors"] = anchors.flatten(1).tolist()

    def forward(self, images: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) in 0..1 -> raw maps in training mode, (decoded, raw maps) in eval mode; see `Detect`.

        Raises:
            ValueError: H or W is not a multiple of the largest stride.
        """
        height, width = images.shape[-2:]
        if height % self.max_stride or width % self.max_stride:
            raise ValueError(
                f"image height {height} and width {width} must be multiples of the stride, {self.max_stride}"
            )
        x: Any = images
        kept = {-1: images}
        for index, (layer, source) in enumerate(zip(self.model, self.sources, strict=True)):
            inputs = [x if i == index - 1 else kept[i] for i in _as_list(source)]
            x = layer(inputs if isinstance(source, list) else inputs[0])
            if index in self.skips:
                kept[index] = x
        return x


def require_detector(model: nn.Module, what: object) -> DetectionModel:
    """Return `model`, for a command that takes detectors only.

    Args:
        model: any network.
        what: the user's name for it.

    Raises:
        UserError: it is no detector.
    """
    if not isinstance(model, DetectionModel):
        raise UserError(f"{what} is no detector; this command takes one, such as yolov5n-spd")
    return model
