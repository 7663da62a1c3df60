"""BatchNorm (Ioffe & Szegedy, arXiv:1502.03167) with the statistics of the batches of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all processes, on any device; torch.nn.SyncBatchNorm needs CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        wide = x.float()
        count = wide.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat((count, wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))))  # (1 + 2C,)
        sums = all_reduce(sums)
        total, (mean, square) = sums[0], (sums[1:] / sums[0]).chunk(2)  # each (C,)
        variance = square - mean.square()
        self._update(mean.detach(), variance.detach() * total.detach() / (total.detach() - 1))
        gain = torch.rsqrt(variance + self.eps) * self.weight
        return (wide * gain[:, None, None] + (self.bias - mean * gain)[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with those of a batch."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronize_norms(model: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d by one over the batches of all processes; same keys, same values."""
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                norm = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm.train(child.training).to(next(child.parameters()).device))
    return model
