"""A classifier: a ResNet, the architecture it is built from and the names of its classes."""

from __future__ import annotations

from torch import Tensor, nn

from models.classification.reductions import make_reduction
from models.classification.resnet import BLOCKS, ResNet
from models.yaml_checks import Architecture


class ClassificationModel(nn.Module):
    """Images to logits.

    Attributes:
        model: the network.
        yaml: the architecture it was built from, plain data that builds it again.
        names: of the classes.
        task: "classify".
        fused: always False: no rewrite for inference applies to a classifier.
    """

    task = "classify"
    fused = False

    def __init__(self, model: ResNet, architecture: Architecture, names: list[str]):
        super().__init__()
        self.model, self.yaml, self.names = model, architecture, names

    def forward(self, images: Tensor) -> Tensor:
        """(B, ch, H, W) in 0..1 -> logits (B, classes)."""
        return self.model(images)


def build_classifier(architecture: Architecture) -> ClassificationModel:
    """Return a freshly initialized classifier of a checked architecture."""
    reductions = [
        make_reduction(name, stride, architecture["fixed_grid"])
        for name, stride in zip(architecture["downsample"], architecture["strides"], strict=True)
    ]
    network = ResNet(
        architecture["nc"],
        BLOCKS[architecture["block"]],
        architecture["depths"],
        architecture["widths"],
        reductions,
        architecture["stem"],
        architecture["maxpool"],
        architecture["preactivation"],
        architecture["ch"],
    )
    return ClassificationModel(network, architecture, [str(i) for i in range(architecture["nc"])])
