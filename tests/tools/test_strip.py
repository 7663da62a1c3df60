"""python -m tools.strip writes a smaller checkpoint of the same network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import build_model, load_model
from models.checkpoint import read_checkpoint, save_checkpoint
from models.load import to_checkpoint
from models.surgery.compare import outputs_of, relative_difference
from tests.training_cases import SMALL_NETWORK
from tools.strip import StripConfig, main, rounded
from utils.errors import UserError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    content = to_checkpoint(build_model(tmp_path / "small.yaml"))
    content |= {"training": {"optimizer": torch.zeros(10**6)}, "metrics": {"AP": 0.5}}
    save_checkpoint(tmp_path / "best.pt", content)
    return tmp_path / "best.pt"


def test_weights_take_half_the_space_and_compute_nearly_the_same(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(StripConfig.of(weights=weights)) == 0
    out = weights.with_name("best-half.pt")
    assert f"saved {out}" in capsys.readouterr().out
    assert out.stat().st_size < weights.stat().st_size / 2
    content = read_checkpoint(out)
    assert "training" not in content and content["metrics"] == {"AP": 0.5}
    images = torch.rand(1, 3, 64, 64)
    before, after = (outputs_of(load_model(file), images) for file in (weights, out))
    assert 0 < relative_difference(before, after) < 1e-2


def test_values_that_16_bits_do_not_hold_stay_as_they_are() -> None:
    counts, large = torch.tensor([3]), torch.tensor([1e6])
    assert rounded(counts) is counts and rounded(large) is large
    assert rounded(torch.ones(2)).dtype == torch.float16


def test_the_weights_themselves_are_not_overwritten(weights: Path) -> None:
    with pytest.raises(UserError, match="would overwrite the weights"):
        main(StripConfig.of(weights=weights, out=weights))
