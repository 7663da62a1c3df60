"""train.py --tune: trials of a study, training runs that may be pruned, shared by any number of processes.

The study is a SQLite file in its folder. Whoever is told the same folder joins it, now or later; a trial
whose process was killed is noticed by its missing heartbeat and tried again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.training.config import TrainConfig
from engine.training.tune.study import LOCK, STUDY, Reporter, Study, enqueue
from utils.errors import UserError, suggest
from utils.log import RESULT, counted

if TYPE_CHECKING:
    import optuna


LOG = logging.getLogger(__name__)
BEFORE = {LOCK, "trials"}  # what another process that starts now may have made before its study
STOPPED = (130, 143)  # exit codes after Ctrl-C and SIGTERM
Train = Callable[[TrainConfig, Reporter], int]


def tune(cfg: TrainConfig, train: Train) -> int:
    """Search hyperparameters; write the best ones, their importance and a page of plots.

    Args:
        cfg: the options.
        train: runs a trial, with a logger that is told of each epoch; returns the exit code.

    Raises:
        UserError: an option, the data, the search space or the study's file cannot be used.
    """
    check_optuna()
    study = prepare(cfg)
    (study.folder / "trials").mkdir(parents=True, exist_ok=True)
    with study.told():
        study.open()
        what = ", ".join(study.space)
        LOG.info("%d trials for the best %s in %s: %s", study.trials, study.metric, study.folder, what)

        code = work(study, train) if cfg.fleet.ray is None else _work_on_ray(study, cfg, train)
        if code:
            LOG.warning("stopped; the same command continues the study")
            return code
        return report(study)


def check_optuna() -> None:
    """Check that Optuna is installed, without importing it.

    Raises:
        UserError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UserError("--tune needs optuna, which is not installed: pip install -r requirements-ray.txt")


def prepare(cfg: TrainConfig) -> Study:
    """Return the study that options mean.

    Raises:
        UserError: the data, the hyperparameters, the metric or the search space cannot be used.
    """
    import torch

    from engine.training.resolve import resolve
    from engine.training.tasks import choose_task, default_data
    from engine.training.tune.space import read_space, usual_space
    from models.checkpoint import read_checkpoint
    from utils.distributed import World

    options = cfg.tuning
    assert options.tune is not None
    architecture = cfg.cfg or (read_checkpoint(cfg.weights)["model"] if cfg.weights else None)
    data = cfg.data or default_data(architecture)
    task = choose_task(data, architecture)
    settings = resolve(cfg, task, data, torch.device("cpu"), World())
    columns = {**task.columns.metrics, **task.columns.extra, "fitness": "fitness"}
    by_metric = {metric: column for column, metric in columns.items()}
    metric = by_metric.get(options.tune_metric, options.tune_metric)
    if metric not in columns or metric.startswith("val/"):
        choices = [name for name in by_metric if not name.startswith("val/")]
        raise UserError(f"--tune-metric {options.tune_metric}: {suggest(options.tune_metric, choices)}")
    folder = cfg.run.project / ("tune" if cfg.run.name == "exp" else cfg.run.name)
    inside = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if STUDY not in inside and inside - BEFORE:
        raise UserError(f"{folder} holds something else than a study; choose another --name")
    trial = cfg.replace(
        tune=None, ray=None, actors=None, project=folder / "trials", exist_ok=True, plots=False, data=data
    )
    space = read_space(options.tune_space or usual_space(architecture or task.default_model), settings.hyp)
    return Study(trial, folder, options.tune, metric, settings.hyp, space)


def work(study: Study, train: Train) -> int:
    """Run trials until the study has enough of them; return the exit code of a run that was stopped, or 0."""
    import optuna

    opened = study.open()
    stopped = 0

    def objective(trial: optuna.Trial) -> float:
        nonlocal stopped
        reporter = Reporter(trial, study.metric)
        try:
            code = _run_trial(study, trial, reporter, train)
            if code in STOPPED:
                stopped = code
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            enqueue(opened, trial.params)  # for whoever continues the study
            raise
        if reporter.best is None:
            raise optuna.TrialPruned("nothing was measured")  # it diverged in its first epoch
        return reporter.best

    while not stopped:
        states = [trial.state.name for trial in opened.get_trials(deepcopy=False)]
        done = sum(state in ("COMPLETE", "PRUNED") for state in states)
        if done >= study.trials:
            return 0
        if done + states.count("RUNNING") >= study.trials:  # others are at it, or have died
            time.sleep(1)
            optuna.storages.fail_stale_trials(opened)
            continue
        try:
            opened.optimize(objective, n_trials=1)
        except KeyboardInterrupt:
            return stopped or 130
        _log_last(opened, study)
    return stopped


def _run_trial(study: Study, trial: optuna.Trial, reporter: Reporter, train: Train) -> int:
    """Train with the hyperparameters of a trial; return the exit code."""
    values = {name: one.suggest(trial, name) for name, one in study.space.items()}
    name = f"{trial.number:04d}"
    folder = study.folder / "trials" / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "searched.yaml"
    study.hyp.changed(**values).save(file)
    trial.set_user_attr("folder", str(folder))
    trial.set_user_attr("process", os.getpid())
    return train(study.cfg.replace(hyp=file, name=name), reporter)


def _log_last(opened: optuna.Study, study: Study) -> None:
    trials = [trial for trial in opened.get_trials(deepcopy=False) if trial.state.is_finished()]
    mine = [trial for trial in trials if trial.user_attrs.get("process") == os.getpid()]
    if mine:
        last = max(mine, key=lambda trial: trial.number)
        value = "-" if last.value is None else f"{last.value:.4f}"
        state = last.state.name.lower()
        LOG.info("trial %d: %s, %s %s; %d done", last.number, state, study.metric, value, len(trials))


def _work_on_ray(study: Study, cfg: TrainConfig, train: Train) -> int:
    """Let actors of Ray join the study; its folder must be one that all machines share."""
    import ray

    from engine.inference.fleet.cluster import joined

    study = dataclasses.replace(study, folder=study.folder.resolve())
    with joined(cfg.fleet, cfg.device) as fleet:
        LOG.info("%s", fleet)
        remote = ray.remote(num_cpus=1, num_gpus=fleet.gpus, max_retries=-1)(_work_in_actor)
        results = ray.get([remote.remote(study, fleet.device, train) for _ in range(fleet.actors)])
    return max(results)


def _work_in_actor(study: Study, device: str, train: Train) -> int:
    where = study.cfg.run.project if study.cfg.run.project.is_absolute() else study.folder / "trials"
    one = dataclasses.replace(study, cfg=study.cfg.replace(device=device, project=where))
    return work(one, train)


def report(study: Study) -> int:
    """Write best.yaml, importance.csv and tune.html, and name the best trial; 1 where there is none."""
    from engine.training.tune.page import importances, write_importances, write_page

    opened = study.open()
    complete = [trial for trial in opened.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if not complete:
        LOG.error("no trial was completed; see %s", study.folder / "trials")
        return 1
    best = opened.best_trial
    study.hyp.changed(**best.params).save(study.folder / "best.yaml")
    shares = importances(opened)
    write_importances(shares, study.folder / "importance.csv")
    write_page(study, opened, shares, study.folder / "tune.html")
    amount = counted(len(complete), "complete trial")
    LOG.log(RESULT, "best %s of %s: %.4f, trial %d", study.metric, amount, best.value, best.number)
    most = ", ".join(f"{name} {share:.0%}" for name, share in shares[:5])
    LOG.log(RESULT, "most important: %s", most or "not known from so few trials")
    where = study.folder
    LOG.log(RESULT, "everything is in %s; try: python train.py --hyp %s", where, where / "best.yaml")
    return 0
