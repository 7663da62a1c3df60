"""Shared set-up: one torch thread a test process, and where golden values lie."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from rectangles import RectangleFinder

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"


@pytest.fixture
def finder(monkeypatch) -> RectangleFinder:
    """The network that every command loads instead of its weights."""
    network = RectangleFinder()
    monkeypatch.setattr("models.runtime.load_predictor", lambda *args, **options: network)
    return network


@pytest.fixture
def offline(monkeypatch):
    """The network cannot be used."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
