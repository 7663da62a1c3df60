import os
import resource
import stat

import pytest
import torch

from models.checkpoint import FORMAT, read_checkpoint, save_checkpoint
from tests.golden_values import GOLDEN
from utils.errors import UserError


def small():
    return {
        "model": {"nc": 1},
        "names": ["tree"],
        "weights": {"a": torch.arange(6.0).half().view(2, 3)},
        "epoch": 4,
        "training": {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "seen": (1, None, "x", True)},
    }


def test_a_saved_checkpoint_reads_back_the_same(tmp_path):
    save_checkpoint(tmp_path / "last.pt", small())
    content = read_checkpoint(tmp_path / "last.pt")
    assert content["format"] == FORMAT
    assert torch.equal(content["weights"]["a"], small()["weights"]["a"])
    assert content["training"] == small()["training"]
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX")
def test_a_checkpoint_has_the_permissions_of_any_new_file(tmp_path):
    save_checkpoint(tmp_path / "last.pt", small())
    (tmp_path / "plain").touch()
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "last.pt").stat().st_mode) == mode


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, interruption):
    path = tmp_path / "last.pt"
    save_checkpoint(path, small())
    before = path.read_bytes()

    def stop(_):
        raise interruption

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt if interruption is KeyboardInterrupt else UserError):
        save_checkpoint(path, {**small(), "epoch": 5})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, small())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*last.pt: ") as caught:
            save_checkpoint(path, {**small(), "weights": {"a": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert read_checkpoint(path)["epoch"] == 4
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*last.pt: No such file or directory"):
        save_checkpoint(tmp_path / "none" / "last.pt", small())


def test_only_what_can_be_read_again_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint\['training'\]\[1\] is a PosixPath"):
        save_checkpoint(tmp_path / "last.pt", {"training": [1, tmp_path]})
    with pytest.raises(TypeError, match=r"checkpoint\['best'\] is a float64"):
        import numpy as np

        save_checkpoint(tmp_path / "last.pt", {"best": np.float64(0.5)})
    assert not os.listdir(tmp_path)


def _write(path, data):
    path.write_bytes(data)


BAD_FILES = {
    "text": (lambda path: _write(path, b"epoch 3 of 10\n"), "is not a PyTorch checkpoint"),
    "empty": (lambda path: _write(path, b""), "is empty"),
    "folder": (lambda path: path.mkdir(), "is a folder, not a checkpoint"),
    "missing": (
        lambda path: None,
        "no weights file .*; YOLOv5's are published at https://github.com/ultralytics",
    ),
    "truncated": (
        lambda path: _write(path, (GOLDEN / "yolov5n.pt").read_bytes()[:1_000_000]),
        "is damaged and cannot be read, perhaps cut short",
    ),
    "legacy": (
        lambda path: torch.save(small(), path, _use_new_zipfile_serialization=False),
        "is in PyTorch's format from before version 1.6",
    ),
    "torchscript": (
        lambda path: torch.jit.script(torch.nn.Identity()).save(path),
        "is a TorchScript export",
    ),
    "state dict": (
        lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
        "holds a plain state dict, without the architecture",
    ),
    "tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor, not a checkpoint"),
    "foreign": (
        lambda path: torch.save({"model": {}, "step": 3}, path),
        "holds a dict with model, step, without",
    ),
    "newer": (
        lambda path: torch.save({**small(), "format": 99}, path),
        "has format 99; this version reads format 1",
    ),
    "incomplete": (lambda path: torch.save({"format": 1, "model": {}}, path), "has no 'names'"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_is_no_checkpoint_gets_one_line(tmp_path, kind):
    make, message = BAD_FILES[kind]
    make(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=message) as caught:
        read_checkpoint(tmp_path / "weights.pt")
    assert "weights.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_damaged_tensors_gets_one_line(tmp_path):
    data = bytearray((GOLDEN / "yolov5n.pt").read_bytes())
    start = len(data) // 2
    data[start : start + 20_000] = bytes(20_000)
    (tmp_path / "weights.pt").write_bytes(data)
    try:
        read_checkpoint(tmp_path / "weights.pt")
    except UserError as error:
        assert "damaged" in str(error)
