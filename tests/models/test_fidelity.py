"""Both networks against the reference implementation, from its own checkpoints."""

import pytest
import torch

from models import load_model
from tests.golden_values import GOLDEN, NETWORKS, assert_close, read_golden

pytestmark = pytest.mark.parametrize("network", NETWORKS)


def test_state_dict_has_the_names_and_shapes_of_the_reference(network):
    model, (_, facts) = load_model(GOLDEN / f"{network}.pt"), read_golden(network)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == facts["state_dict"]
    assert [name for name, _ in model.named_parameters()] == facts["grad_names"]
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert model.names == [f"class{i}" for i in range(5)]


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
def test_eval_forward_matches_the_reference(network, fuse):
    values, _ = read_golden(network)
    model = load_model(GOLDEN / f"{network}.pt", fuse=fuse)
    with torch.no_grad():
        decoded, raw = model(values["images"])
    torch.testing.assert_close(decoded, values["decoded"], atol=1e-4, rtol=1e-6)
    for level, ours in enumerate(raw):
        assert_close(ours, values[f"raw{level}"], 1e-5)


def test_training_forward_matches_the_reference(network):
    values, _ = read_golden(network)
    model = load_model(GOLDEN / f"{network}.pt").train()
    raw = model(values["images"])
    assert len(raw) == 3
    for level, ours in enumerate(raw):
        assert_close(ours, values[f"train_raw{level}"], 1e-5)


def test_channels_last_gives_the_same_outputs(network):
    values, _ = read_golden(network)
    model = load_model(GOLDEN / f"{network}.pt").to(memory_format=torch.channels_last)
    with torch.no_grad():
        _, raw = model(values["images"].to(memory_format=torch.channels_last))
    for level, ours in enumerate(raw):
        assert_close(ours, values[f"raw{level}"], 1e-5)
