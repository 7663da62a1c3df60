"""C3TR: a C3 whose branch is a stack of transformer layers over the pixels of the map.

Vaswani et al., NeurIPS 2017, arXiv:1706.03762; without LayerNorm, submodule names as in YOLOv5.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.blocks import C3


class TransformerLayer(nn.Module):
    """Self-attention, then two linear layers, each of the two added to its input."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.ma = nn.MultiheadAttention(channels, heads)
        self.fc1, self.fc2 = (nn.Linear(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(H·W, B, C) -> (H·W, B, C)."""
        x = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """Transformer layers over the pixels of a map, with a linear layer in place of position embeddings."""

    def __init__(self, channels: int, heads: int, layers: int):
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, heads) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pixels = x.flatten(2).permute(2, 0, 1)  # (H·W, B, C)
        return self.tr(pixels + self.linear(pixels)).permute(1, 2, 0).reshape(x.shape)


class C3TR(C3):
    """A C3 with a `TransformerBlock` of four heads in place of the bottlenecks."""

    def __init__(self, c_in: int, c_out: int, repeat: int = 1):
        super().__init__(c_in, c_out, 0)
        self.m = TransformerBlock(c_out // 2, 4, repeat)
