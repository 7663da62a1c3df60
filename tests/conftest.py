"""Shared set-up: one torch thread a test process, and where golden values lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"
