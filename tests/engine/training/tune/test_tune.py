"""train.py --tune: the search space, the study and what it leaves; training is made up but for one test."""

from __future__ import annotations

import csv
import multiprocessing
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from engine.training import command as training
from engine.training.classifier_hyperparameters import ClassifierHyperparameters
from engine.training.config import TrainConfig
from engine.training.hyperparameters import Hyperparameters, read_hyp
from tests.training_cases import config
from utils.errors import UserError

optuna = pytest.importorskip("optuna")

from engine.training.tune import study as study_module  # noqa: E402
from engine.training.tune.command import prepare, report, tune, work  # noqa: E402
from engine.training.tune.page import importances  # noqa: E402
from engine.training.tune.space import Range, read_space, usual_space  # noqa: E402
from engine.training.tune.study import Study  # noqa: E402

SPACE = {
    "lr0": Range(0.001, 0.1, log=True),
    "mosaic": Range(0.0, 1.0),
    "optimizer": Range(choices=("SGD", "AdamW")),
}


def make_study(folder: Path, trials: int) -> Study:
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    cfg = TrainConfig.of(project=folder / "trials", plots=False)
    return Study(cfg, folder, trials, "AP", Hyperparameters(), SPACE)


def made_up(cfg: TrainConfig, reporter) -> int:
    """Good is a mosaic of .75; the learning rate hardly matters."""
    hyp = read_hyp(cfg.hyp)
    for epoch in range(4):
        reached = (epoch + 1) / 4 * (1 - abs(hyp.mosaic - 0.75)) + 0.01 * hyp.lr0
        reporter.log(epoch, {"AP": reached, "fitness": reached})
    return 0


def states(study: Study) -> Counter[str]:
    return Counter(trial.state.name for trial in study.open().trials)


def test_a_study_is_continued_and_ends_with_what_was_asked_for(tmp_path):
    assert work(make_study(tmp_path, 3), made_up) == 0
    study = make_study(tmp_path, 18)
    assert work(study, made_up) == 0
    counted = states(study)
    assert counted["COMPLETE"] + counted["PRUNED"] == counted.total() == 18
    assert counted["PRUNED"] > 0  # some were worse than the median in the middle of it
    first = study.open().trials[0]
    assert first.params == {
        "lr0": 0.01,
        "mosaic": 1.0,
        "optimizer": "SGD",
    }  # the hyperparameters as they were

    assert report(study) == 0
    best = max(trial.value for trial in study.open().trials if trial.value is not None)
    best_hyp = read_hyp(tmp_path / "best.yaml")
    assert abs((1 - abs(best_hyp.mosaic - 0.75)) + 0.01 * best_hyp.lr0 - best) < 1e-9
    assert best_hyp.box == Hyperparameters().box
    with (tmp_path / "importance.csv").open() as file:
        shares = {row["hyperparameter"]: float(row["importance"]) for row in csv.DictReader(file)}
    assert set(shares) == set(SPACE) and sum(shares.values()) == pytest.approx(1, abs=1e-4)
    page = (tmp_path / "tune.html").read_text()
    assert page.count("<img ") == 4 and page.count("<tr>") == 19
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is loaded from elsewhere


def test_the_key_that_decides_is_the_most_important():
    rng, study = random.Random(0), optuna.create_study(direction="maximize")
    ranges = {
        "lr0": optuna.distributions.FloatDistribution(0.001, 0.1, log=True),
        "mosaic": optuna.distributions.FloatDistribution(0, 1),
    }
    for _ in range(60):
        values = {"lr0": 10 ** rng.uniform(-3, -1), "mosaic": rng.random()}
        reached = 1 - abs(values["mosaic"] - 0.75) + 0.01 * values["lr0"]
        study.add_trial(optuna.create_trial(params=values, distributions=ranges, value=reached))
    (first, share), (_, rest) = importances(study)
    assert first == "mosaic" and share > 0.9 and share + rest == pytest.approx(1)


def run_made_up(folder: Path) -> None:
    work(make_study(folder, 8), made_up)


def take_all(folder: Path, taken) -> None:
    opened = make_study(folder, 8).open()
    taken.put(list(iter(opened._pop_waiting_trial_id, None)))


def test_a_waiting_trial_is_taken_by_one_process(tmp_path):
    opened = make_study(tmp_path, 8).open()
    for _ in range(40):
        opened.enqueue_trial({"mosaic": 0.5})
    forked = multiprocessing.get_context("fork")
    taken = forked.SimpleQueue()
    others = [forked.Process(target=take_all, args=(tmp_path, taken)) for _ in range(4)]
    for process in others:
        process.start()
    ids = [trial for _ in others for trial in taken.get()]
    for process in others:
        process.join(60)
    assert len(ids) == len(set(ids)) == 41  # with the first, which is the hyperparameters as they are


def test_several_processes_share_a_study(tmp_path):
    spawned = multiprocessing.get_context("fork")
    others = [spawned.Process(target=run_made_up, args=(tmp_path,)) for _ in range(2)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
    study = make_study(tmp_path, 8)
    assert [process.exitcode for process in others] == [0, 0]
    counted = states(study)
    assert 8 <= counted["COMPLETE"] + counted["PRUNED"] <= 9 and counted.total() <= 9
    used = [trial.user_attrs["folder"] for trial in study.open().trials]
    assert len(set(used)) == len(used)


def test_a_trial_whose_process_was_killed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "HEARTBEAT", 1)
    monkeypatch.setattr(study_module, "GRACE", 2)
    study = make_study(tmp_path, 2)
    opened = study.open()
    dead = opened.ask()
    params = {name: one.suggest(dead, name) for name, one in SPACE.items()}
    opened._storage.record_heartbeat(dead._trial_id)
    assert work(study, made_up) == 0
    assert states(study) == {"FAIL": 1, "COMPLETE": 2}
    assert params in [t.params for t in study.open().trials if t.state.name == "COMPLETE"]


def test_a_run_that_is_stopped_stops_the_study_and_one_that_diverges_does_not(tmp_path):
    assert work(make_study(tmp_path / "a", 3), lambda cfg, reporter: 130) == 130
    study = make_study(tmp_path / "b", 3)
    assert work(study, lambda cfg, reporter: 1) == 0
    assert states(study) == {"PRUNED": 3} and report(study) == 1


def interrupted(cfg: TrainConfig, reporter) -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [lambda cfg, reporter: 130, interrupted])
def test_what_ctrl_c_stopped_is_tried_when_the_study_goes_on(tmp_path, capfd, stop):
    study = make_study(tmp_path, 2)
    for _ in range(2):
        assert work(study, stop) == 130
    assert work(study, made_up) == 0
    trials = study.open().trials
    assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    given = {"lr0": 0.01, "mosaic": 1.0, "optimizer": "SGD"}
    assert [trial.params == given for trial in trials] == [True, True, True, False]

    longer = make_study(tmp_path, 3)
    assert work(longer, stop) == 130
    assert work(longer, made_up) == 0
    stopped, retried = longer.open().trials[-2:]
    assert stopped.params == retried.params != given
    assert "Traceback" not in capfd.readouterr().err


def test_the_given_hyperparameters_are_tried_again_where_their_only_trial_failed(tmp_path):
    study = make_study(tmp_path, 2)
    opened = study.open()
    opened.tell(opened.ask(), state=optuna.trial.TrialState.FAIL)  # before it had any hyperparameters
    assert work(study, made_up) == 0
    assert study.open().trials[1].params["mosaic"] == 1.0


def test_a_study_that_is_no_database_or_is_deleted_meanwhile_is_one_line(squares, tmp_path):
    cfg = config(squares, tmp_path, tune=2)
    folder = tmp_path / "tune"
    folder.mkdir()
    (folder / "study.db").write_text("not a database at all, whatever its name says")
    with pytest.raises(UserError, match=r"study\.db cannot be used: file is not a database"):
        tune(cfg, made_up)

    (folder / "study.db").unlink()

    def delete(cfg: TrainConfig, reporter) -> int:
        (folder / "study.db").unlink()
        return made_up(cfg, reporter)

    with pytest.raises(UserError, match=r"study\.db is gone"):
        tune(cfg, delete)


def test_a_small_network_is_tuned_from_the_command_line(squares, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("lr0: {low: 0.001, high: 0.01, log: true}\nclose_mosaic: {low: 0, high: 3}\n")
    cfg = config(squares, tmp_path / "runs", tune=2, epochs=2, tune_metric="AP", tune_space=space)
    assert training.main(cfg) == 0
    folder = tmp_path / "runs" / "tune"
    assert {path.name for path in folder.iterdir()} == {
        "study.db", "study.lock", "trials", "best.yaml", "importance.csv", "tune.html",
    }  # fmt: skip
    trials = sorted((folder / "trials").iterdir())
    assert [len((trial / "results.csv").read_text().splitlines()) for trial in trials] == [3, 3]
    used = [yaml.safe_load((trial / "hyp.yaml").read_text())["lr0"] for trial in trials]
    assert used[0] == 0.003 and used[0] != used[1]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["lr0"] in used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr9: {low: 1, high: 2}", "unknown hyperparameter 'lr9'. Did you mean 'lr"),
        ("lr0: 3", "is no range; write {low: 0.1"),
        ("lr0: {low: 2, high: 1}", "low must be below high"),
        ("lr0: {low: 0, high: 1, log: true}", "above 0 with log"),
        ("mosaic: {low: 0, high: 2}", "mosaic: "),
        ("optimizer: {choices: [SGD, Sophia]}", "optimizer: "),
        ("optimizer: {choices: []}", "is no list of choices"),
        ("- a", "must hold lines such as"),
    ],
)
def test_a_search_space_that_cannot_be_used_is_one_line(tmp_path, text, message):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_space(path, Hyperparameters())


@pytest.mark.parametrize(
    ("model", "space", "recipes"),
    [
        ("yolov5n-spd", "tune.yaml", ("low", "high", "small-data")),
        ("yolov5n-p234-u", "tune-anchor-free.yaml", ("low", "small-objects", "finetune-small")),
        (
            "resnet18-spd",
            "tune-classifier.yaml",
            ("mnist5k", "resnet-spd-cifar10", "resnet-spd-tiny-imagenet"),
        ),
    ],
)
def test_the_search_spaces_that_ship_hold_the_recipes_that_ship(model, space, recipes):
    file = usual_space(model)
    assert file.name == space
    kind = ClassifierHyperparameters if "classifier" in space else Hyperparameters
    searched = read_space(file, kind())
    for name in recipes:
        hyp = read_hyp(Path(f"{name}.yaml"), kind).plain()
        assert all(one.holds(hyp[key]) for key, one in searched.items()), name


def test_metrics_and_folders_that_do_not_fit_are_one_line(squares, tmp_path):
    cfg = config(squares, tmp_path, tune=2)
    assert prepare(cfg.replace(tune_metric="AP")).metric == "metrics/mAP_0.5:0.95"
    assert prepare(cfg.replace(tune_metric="AP_S")).metric == "AP_S"
    with pytest.raises(UserError, match=r"--tune-metric mAP: .*Choose from: AP, AP50"):
        prepare(cfg.replace(tune_metric="mAP"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds something else than a study"):
        prepare(replace(cfg, run=replace(cfg.run, name="mine")))
    with pytest.raises(UserError, match="shares out the trials of --tune"):
        TrainConfig.of(ray="local")
    with pytest.raises(UserError, match="leave --resume out"):
        TrainConfig.of(tune=2, resume="a")
