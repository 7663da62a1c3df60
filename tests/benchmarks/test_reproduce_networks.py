"""What the runs of benchmarks/reproduce are made of: networks, peers' options and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.reproduce.networks import architecture_of, classifier, hyp_of, start_of, widened
from benchmarks.reproduce.peers import _with_objectness, epoch_seconds, finished, translated
from benchmarks.reproduce.suite import NetworkEntry
from engine.training.hyperparameters import read_hyp
from models import build_model, load_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from models.summary import count_gflops
from utils.nms import non_max_suppression


def test_a_widened_network_has_the_other_ones_flops() -> None:
    strided, spd = (
        classifier(NetworkEntry(cfg="resnet18-quarter", operator=name)) for name in ("strided", "spd")
    )
    goal = count_gflops(build_model(spd), 32)
    assert count_gflops(build_model(strided), 32) < 0.9 * goal
    assert count_gflops(build_model(widened(strided, spd, 32)), 32) == pytest.approx(goal, rel=0.07)


def test_stages_of_a_classifier_are_as_the_suite_says(tmp_path: Path) -> None:
    stages = ("none", "none", "diffstride", "strided", "spectral")
    file = architecture_of(NetworkEntry(cfg="resnet18-quarter", stages=stages), tmp_path, 64)
    assert build_model(str(file)).yaml["downsample"] == list(stages)
    assert architecture_of(NetworkEntry(cfg="yolov5n"), tmp_path, 64) == "yolov5n"


def test_surgery_before_training_changes_no_output(tmp_path: Path) -> None:
    model = build_model("yolov5n", num_classes=2).eval()
    save_checkpoint(tmp_path / "net.pt", to_checkpoint(model))
    run = tmp_path / "run"
    run.mkdir()
    file = start_of(NetworkEntry(weights="net.pt", surgery=("model.0.*",)), tmp_path, run)
    assert file is not None and file.parent == run
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(load_model(file)(images)[0], model(images)[0], rtol=1e-4, atol=1e-4)
    assert start_of(NetworkEntry(weights="net.pt"), tmp_path, run) == tmp_path / "net.pt"


def test_changed_hyperparameters_are_written_beside_the_run(tmp_path: Path) -> None:
    file = hyp_of("small-data", {"copy_paste": 0.5}, tmp_path, classifies=False)
    changed, shipped = read_hyp(Path(str(file))), read_hyp(Path("small-data"))
    assert changed == shipped.changed(copy_paste=0.5) != shipped
    assert hyp_of("small-data", {}, tmp_path, classifies=False) == "small-data"


def test_our_recipe_has_the_same_strengths_under_a_peers_names() -> None:
    hyp = read_hyp(Path("small-data"))
    options = translated(hyp, 100)
    assert options["lr0"] == hyp.lr0 and options["optimizer"] == "AdamW" and options["nbs"] == 8
    assert options["flipud"] == 0.5 and options["close_mosaic"] == 0
    from utils.ultralytics_adapter import load

    load("ultralytics.cfg").get_cfg(overrides=options)  # raises for names and values that it does not know


def test_a_peers_output_becomes_rows_that_our_nms_reads() -> None:
    output = torch.tensor([[10.0, 10, 4, 4, 0.1, 0.9]]).T[None]  # (1, 4 + 2 classes, 1)
    (kept,) = non_max_suppression(_with_objectness(output), 0.25, 0.6)
    assert kept.tolist() == [pytest.approx([8, 8, 12, 12, 0.9, 1])]


def test_an_epoch_that_was_made_twice_counts_once(tmp_path: Path) -> None:
    lines = [[0, 2.0], [1, 5.0], [1, 3.0]]
    text = "\n".join(json.dumps(line) for line in lines) + "\n[2, 4."  # killed while it wrote
    (tmp_path / "epochs.jsonl").write_text(text)
    assert epoch_seconds(tmp_path) == [2.0, 3.0]
    assert not finished(tmp_path, 2)  # no weights
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/last.pt").touch()
    assert finished(tmp_path, 2) and not finished(tmp_path, 3)
