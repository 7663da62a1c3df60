"""A damaged checkpoint is refused by name, or its weights are what they were."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.runtimes.torchscript import load as load_torchscript
from models import build_model
from models.checkpoint import read_checkpoint, save_checkpoint
from models.load import to_checkpoint
from models.yolov5_checkpoint import save_yolov5_checkpoint
from tests.training_cases import SMALL_NETWORK
from utils.errors import UserError

DAMAGES = 25  # of each kind and file
LOST = 20_000  # bytes


def flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def overwrite(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] = rng.randrange(256)


def zero(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) - LOST)
    content[start : start + LOST] = bytes(LOST)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def flip_in_headers(content: bytearray, rng: random.Random) -> None:
    """Near the end is the archive's directory: names, places and checksums."""
    content[len(content) - 1 - rng.randrange(6000)] ^= 1 << rng.randrange(8)


@pytest.fixture(scope="module", params=["ours", "yolov5"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "small.yaml").write_text(SMALL_NETWORK)
    torch.manual_seed(0)
    file = folder / f"{request.param}.pt"
    if request.param == "ours":
        save_checkpoint(file, to_checkpoint(build_model(folder / "small.yaml")))
    else:
        save_yolov5_checkpoint(file, build_model("yolov5n", 2))  # type: ignore[arg-type]
    return file


@pytest.mark.parametrize("damage", [flip, overwrite, zero, cut, flip_in_headers])
def test_no_damage_changes_weights_unnoticed(
    checkpoint: Path, tmp_path: Path, damage: Callable[[bytearray, random.Random], None]
) -> None:
    whole, expected = checkpoint.read_bytes(), read_checkpoint(checkpoint)["weights"]
    rng, refused = random.Random(0), 0
    for _ in range(DAMAGES):
        content = bytearray(whole)
        damage(content, rng)
        file = tmp_path / "damaged.pt"
        file.write_bytes(content)
        try:
            weights = read_checkpoint(file)["weights"]
        except UserError as error:
            refused += 1
            assert "damaged.pt" in str(error) and "\n" not in str(error)
            continue
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert refused > DAMAGES // 4  # padding and dates are not read


def test_every_part_of_our_files_has_a_checksum_whatever_torch_was_told(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path / "a.pt", {"weights": torch.ones(9)})
        torch.save({"a": torch.ones(9)}, tmp_path / "plain.pt")
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert zipfile.ZipFile(tmp_path / "a.pt").testzip() is None
    assert zipfile.ZipFile(tmp_path / "plain.pt").testzip() is not None


def test_a_file_without_checksums_is_read_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {"format": 1, "model": {}, "names": [], "weights": {"a": torch.ones(9)}}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(tmp_path / "a.pt")["weights"]["a"], torch.ones(9))
    assert "a.pt has no checksums" in capsys.readouterr().err


def test_a_damaged_torchscript_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.torchscript"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(500, 20), torch.ones(1, 500)), str(file))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.torchscript is damaged: its part .* is not what was written"):
        load_torchscript(file, torch.device("cpu"), False, False)
