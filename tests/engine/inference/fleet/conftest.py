"""One local cluster for all tests of a process that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Two actors and a reader fit; what is tested uses it as it is."""
    pytest.importorskip("ray")
    from engine.inference.fleet.cluster import joined
    from engine.options import FleetOptions

    with joined(FleetOptions(ray="local", actors=2), "cpu"):
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights whose scores spread over 0 to 1."""
    torch.manual_seed(0)
    model = build_model("yolov5n", num_classes=3)
    with torch.no_grad():
        for conv in model.model[-1].m:
            conv.bias.normal_(0, 1)
            conv.weight.mul_(20)
    path = tmp_path_factory.mktemp("network") / "random.pt"
    save_checkpoint(path, to_checkpoint(model))
    return path
