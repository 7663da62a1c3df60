"""What a surgery replaced and what it left, as a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """One downsampling layer.

    Attributes:
        name: in the network.
        kind: what it is, such as "Conv2d k3 s2".
        reason: why it was left; empty where it was replaced.
        parameters: before and after.
    """

    name: str
    kind: str
    reason: str
    parameters: tuple[int, int]


@dataclass(frozen=True)
class SurgeryReport:
    """What a surgery did.

    Attributes:
        layers: every downsampling layer that was selected.
        parameters: of the network, before and after.
        flops: of the network for the example, two per multiply-add, before and after.
    """

    layers: list[LayerReport]
    parameters: tuple[int, int]
    flops: tuple[int, int]

    @property
    def replaced(self) -> list[str]:
        """Names of the layers that were replaced."""
        return [layer.name for layer in self.layers if not layer.reason]

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=5)
        kinds = max((len(layer.kind) for layer in self.layers), default=4)
        lines = [f"{'layer':<{width}}  {'was':<{kinds}}  {'params':>10}  {'now':>10}"]
        for layer in self.layers:
            before, after = layer.parameters
            lines.append(
                f"{layer.name:<{width}}  {layer.kind:<{kinds}}  {before:>10,}  "
                + (f"left: {layer.reason}" if layer.reason else f"{after:>10,}")
            )
        (params, params_now), (flops, flops_now) = self.parameters, self.flops
        lines.append(f"{len(self.replaced)} of {len(self.layers)} downsampling layers replaced")
        lines.append(f"parameters {params:,} -> {params_now:,} ({params_now / max(params, 1):.3f}x)")
        lines.append(f"GFLOPs {flops / 1e9:.3f} -> {flops_now / 1e9:.3f} ({flops_now / max(flops, 1):.3f}x)")
        return "\n".join(lines)
