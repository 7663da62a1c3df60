"""Options of train.py: what each changes, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.training import command as train
from engine.training.auto_batch import largest_batch
from engine.training.config import TrainConfig
from engine.training.freeze import freeze_layers, set_train_mode
from engine.training.hyperparameters import Hyperparameters
from engine.training.resolve import with_flags
from models import build_model
from models.checkpoint import read_checkpoint
from tests.training_cases import SMALL_NETWORK, before_step, config, results_of, resumed, sigterm
from utils.errors import UserError
from utils.memory import process_memory, reset_peak


def test_save_period_keeps_epochs_and_nosave_writes_at_the_end_only(squares: Path, tmp_path: Path) -> None:
    train.main(config(squares, tmp_path, name="often", epochs=3, save_period=2))
    assert {path.name for path in (tmp_path / "often/weights").iterdir()} == {
        "best.pt",
        "last.pt",
        "epoch1.pt",
    }
    assert read_checkpoint(tmp_path / "often/weights/epoch1.pt")["epoch"] == 1
    train.main(config(squares, tmp_path, name="never", epochs=2, nosave=True))
    assert {path.name for path in (tmp_path / "never/weights").iterdir()} == {"best.pt", "last.pt"}


def test_frozen_layers_keep_their_weights_and_the_others_learn(squares: Path, tmp_path: Path) -> None:
    options = config(squares, tmp_path, epochs=1, freeze=(2,), autoanchor=False)
    torch.manual_seed(0)  # as the run seeds itself
    before = build_model(options.cfg).state_dict()
    train.main(options)
    after = read_checkpoint(tmp_path / "exp/weights/last.pt")["weights"]
    kept = [key for key in before if key.endswith("weight") and torch.equal(before[key], after[key])]
    assert {".".join(key.split(".")[:2]) for key in kept} == {"model.0", "model.1"}


def test_frozen_layers_keep_their_statistics_also_when_resumed(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = config(squares, tmp_path, epochs=3, freeze=(3,), autoanchor=False)
    torch.manual_seed(0)
    before = build_model(options.cfg).state_dict()
    with monkeypatch.context() as patch:
        before_step(3, sigterm, patch)
        train.main(options)
    assert train.main(resumed(tmp_path / "exp")) == 0
    after = read_checkpoint(tmp_path / "exp/weights/last.pt")["weights"]
    moved = {int(key.split(".")[1]) for key in before if not torch.equal(before[key], after[key])}
    assert moved == {3, 4}, "layers 0 to 2 are frozen, BatchNorm's running statistics included"
    assert any(key.startswith("model.0.bn.running_mean") for key in before)


def test_a_frozen_head_still_trains_the_layers_before_it(squares: Path, tmp_path: Path) -> None:
    assert train.main(config(squares, tmp_path, epochs=1, freeze=(4, 3), autoanchor=False)) == 0
    with pytest.raises(UserError, match="--freeze leaves no layer to train; they are 0 to 4"):
        train.main(config(squares, tmp_path, epochs=1, freeze=(5,), autoanchor=False))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-u"])
def test_a_frozen_head_gives_what_its_loss_takes(name: str) -> None:
    model = build_model(name, num_classes=1)
    freeze_layers(model, range(1, len(model.model)))
    set_train_mode(model)
    assert isinstance(model(torch.rand(1, 3, 64, 64)), list)  # raw maps, not the decoded output beside them


def test_several_numbers_freeze_the_layers_of_these_numbers_and_a_missing_one_is_refused(
    tmp_path: Path,
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(SMALL_NETWORK)
    model = build_model(small)
    assert {name.split(".")[1] for name in freeze_layers(model, (0, 3))} == {"0", "3"}
    assert not any(p.requires_grad for p in model.model[3].parameters())
    assert all(p.requires_grad for p in model.model[1].parameters())
    with pytest.raises(UserError, match="no layer 7; they are 0 to 4"):
        freeze_layers(model, (7, 8))


def test_flags_replace_hyperparameters_and_nothing_else() -> None:
    hyp = Hyperparameters(lr0=0.5, nominal_batch=16)
    assert with_flags(TrainConfig.of(), hyp) == hyp
    changed = with_flags(TrainConfig.of(nbs=128, box_loss="nwd", label_smoothing=0.1), hyp)
    assert (changed.nominal_batch, changed.box_loss, changed.label_smoothing) == (128, "nwd", 0.1)
    assert changed.lr0 == 0.5


def test_the_largest_batch_follows_from_memory_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.training.auto_batch

    used = {2: 300e6, 4: 500e6, 8: 900e6}  # 100 MB per image, and 100 besides
    monkeypatch.setattr(engine.training.auto_batch, "_peak_bytes", lambda train, batch, device: used[batch])
    monkeypatch.setattr(engine.training.auto_batch, "_free_bytes", lambda device: 10e9)
    device = torch.device("cpu")
    assert largest_batch(lambda batch: None, device, 1000) == 72  # (0.8 * 10,000 - 100) / 100, in eights
    assert largest_batch(lambda batch: None, device, 20) == 16
    assert largest_batch(lambda batch: None, device, 5) == 5
    used |= {4: 300e6, 8: 300e6}
    assert largest_batch(lambda batch: None, device, 100_000) == 64  # the probes tell nothing
    used |= {8: 300e6 + 60_000}
    assert largest_batch(lambda batch: None, torch.device("cuda"), 100_000) == 100_000  # counted exactly


def test_an_earlier_peak_of_memory_changes_no_largest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.training.auto_batch as module

    held, peak = 300 * 10**6, [2 * 10**9]  # once, the process had more than any probe needs

    def step(batch: int) -> None:
        peak[0] = max(peak[0], held + 16 * 10**6 * batch)

    monkeypatch.setattr(module, "free_memory", lambda: 2 * 10**9)
    monkeypatch.setattr(module, "process_memory", lambda: (held, peak[0]))
    monkeypatch.setattr(module, "reset_peak", lambda: peak.__setitem__(0, held))
    expected = (0.8 * (2e9 + held) - held) / 16e6 // 8 * 8
    assert largest_batch(step, torch.device("cpu"), 10**6) == expected == 96


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_the_peak_of_the_process_is_forgotten() -> None:
    reset_peak()
    before = process_memory()[1]
    np.ones(100_000_000)  # 800 MB, for a moment
    assert process_memory()[1] > before + 500 * 10**6
    reset_peak()
    assert process_memory()[1] < before + 300 * 10**6


def test_memory_that_cannot_be_measured_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.training.auto_batch

    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(engine.training.auto_batch, "reset_peak", refuse)
    monkeypatch.setattr(engine.training.auto_batch, "_free_bytes", lambda device: 1e9)
    with pytest.raises(UserError, match=r"cannot measure memory here \(.*Permission denied.*\); choose one"):
        largest_batch(lambda batch: None, torch.device("cpu"), 10)


def test_batch_size_minus_one_trains_with_the_largest_batch_that_fits(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(config(squares, tmp_path, epochs=1, batch_size=-1))
    assert "--batch-size 4 is what fits" in capsys.readouterr().err  # all four images
    assert read_checkpoint(tmp_path / "exp/weights/best.pt")["config"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be at least 1, or -1"),
        ({"nosave": True, "save_period": 3}, "leave --save-period out"),
        ({"logger": ("wanb",)}, "Did you mean 'wandb'"),
        ({"box_loss": "giou"}, "--box-loss has no choice"),
        ({"freeze": (-1,)}, "--freeze must be at least 0"),
        ({"rect": True, "multi_scale": True}, "which --multi-scale cannot have"),
        ({"rect": True, "image_weights": True}, "which --image-weights cannot have"),
        ({"image_weights": True, "noval": True}, "leave --noval out"),
    ],
)
def test_impossible_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig.of(**options)


def test_single_cls_trains_one_class(squares: Path, tmp_path: Path) -> None:
    train.main(config(squares, tmp_path, epochs=1, single_cls=True))
    best = read_checkpoint(tmp_path / "exp/weights/best.pt")
    assert best["names"] == ["object"] and best["model"]["nc"] == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("multi_scale", True),
        ("rect", True),
        ("image_weights", True),
        ("close_mosaic", 1),
        ("augment_on", "device"),
    ],
)
def test_each_option_that_changes_batches_resumes_exactly(
    option: str, value: object, squares: Path, tmp_path: Path
) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text((squares / "hyp.yaml").read_text().replace("mosaic: 0.0", "mosaic: 1.0"))
    plain = {"hyp": hyp, "epochs": 2, "batch_size": 2}
    options = plain | {option: value}
    train.main(config(squares, tmp_path, name="whole", **options))
    with pytest.MonkeyPatch.context() as patch:
        before_step(3, sigterm, patch)
        assert train.main(config(squares, tmp_path, name="stopped", **options)) == 0
    assert train.main(resumed(tmp_path / "stopped")) == 0
    assert results_of(tmp_path / "stopped") == results_of(tmp_path / "whole")
    train.main(config(squares, tmp_path, name="plain", **plain))
    assert results_of(tmp_path / "plain") != results_of(tmp_path / "whole")
