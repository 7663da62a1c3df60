"""The study of ways to downsample, benchmarks/downsampling.py."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks import downsampling
from benchmarks.downsampling import StudyConfig, Training, architecture_of, main, train_one
from benchmarks.study_table import holm, paired_t, sign_flip
from models.build import build_model
from tests.classification_cases import stripes
from utils.errors import UserError


def test_every_operator_sees_the_same_sizes() -> None:
    import torch

    images = torch.zeros(1, 3, 15, 15)
    for operator in ("strided", "max", "spd", "spectral", "diffstride", "hybrid"):
        model = build_model(architecture_of("resnet18-quarter", operator)).eval()
        maps = model.model.features(images)
        assert [tuple(x.shape[2:]) for x in maps] == [(15, 15), (15, 15), (8, 8), (4, 4), (2, 2)]
    names = architecture_of("resnet18", "hybrid")["downsample"]
    assert names == ["none", "none", "diffstride", "diffstride", "spectral"]


def test_a_study_trains_once_and_writes_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stripes(tmp_path)
    folder = tmp_path / "study"
    cfg = StudyConfig(data=data, cfg=str(tmp_path / "small.yaml"), downsample=("strided,avg",), seeds=2,
                      epochs=2, device="cpu", folder=folder)  # fmt: skip

    def train_here(cfg: StudyConfig, missing: list[Training], total: int) -> None:
        for training in missing:
            train_one(cfg, training)

    monkeypatch.setattr(downsampling, "train_all", train_here)
    assert main(cfg) == 0
    table = (folder / "table.md").read_text()
    assert "| strided |" in table and "| avg |" in table
    assert (folder / "plot.png").exists()
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["operator"] for row in rows] == ["strided", "avg"]
    assert float(rows[1]["mean"]) == pytest.approx(np.mean(json.loads(rows[1]["top1"])))
    with pytest.raises(UserError, match="holds a study with epochs 2, not 3"):
        main(StudyConfig(data=data, cfg=cfg.cfg, downsample=("strided",), epochs=3, folder=folder))

    monkeypatch.undo()
    capsys.readouterr()
    assert main(cfg) == 0  # nothing is left to train
    assert "4 trainings, 4 done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downsample": ("strided,spdd",)}, "Did you mean 'spd'"),
        ({"cfg": "yolov5n"}, "yolov5n is a detector"),
        ({"device": "7"}, "--device takes cpu or cuda"),
    ],
)
def test_bad_input_is_named_before_any_work(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(StudyConfig(folder=tmp_path / "study", **options))
    assert not (tmp_path / "study").exists()


def test_the_sign_flip_test_counts_all_signs() -> None:
    differences = np.array([2, -1, 0, 1, 3, 1])
    sums = [np.dot(signs, np.abs(differences)) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean(np.abs(sums) >= abs(differences.sum()))
    assert sign_flip(differences) == pytest.approx(expected)
    assert sign_flip(np.zeros(4, int)) == 1


def test_with_one_seed_it_is_the_exact_test_of_mcnemar() -> None:
    differences = np.array([1] * 9 + [-1] * 2 + [0] * 30)
    assert sign_flip(differences) == pytest.approx(binomtest(9, 11).pvalue)


def test_p_values_are_adjusted_as_holm_says() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert paired_t(np.array([0.9]), np.array([0.8])) is None
    assert paired_t(np.array([0.9, 0.8]), np.array([0.9, 0.8])) == 1
