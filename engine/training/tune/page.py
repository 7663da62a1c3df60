"""tune.html: the trials of a study in one file that needs no network; importance.csv."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.files import write_atomically

if TYPE_CHECKING:
    import optuna

    from engine.training.tune.study import Study

COLUMNS = 4  # of small plots
GOOD = 0.25  # share of the trials that count as good; of few trials, Optuna's tenth is one or two
COLORS = {"COMPLETE": "#1f6fb2", "PRUNED": "#c9a227", "FAIL": "#b23b3b"}


def importances(study: optuna.Study) -> list[tuple[str, float]]:
    """Return each key's share of what makes good trials differ from all, the largest first.

    PED-ANOVA (Watanabe et al., IJCAI 2023, arXiv:2304.10255); nothing before four trials are complete.
    """
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return []
    shares = get_param_importances(study, evaluator=_evaluator())
    return sorted(shares.items(), key=lambda item: -item[1])


def _evaluator() -> Any:
    from optuna.importance import PedAnovaImportanceEvaluator

    return PedAnovaImportanceEvaluator(target_quantile=GOOD)


def write_importances(shares: Sequence[tuple[str, float]], path: Path) -> None:
    """Write importance.csv, a line for each key.

    Raises:
        UserError: it cannot be written.
    """
    with write_atomically(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["hyperparameter", "importance"])
        writer.writerows([name, f"{share:.6f}"] for name, share in shares)


def write_page(study: Study, opened: optuna.Study, shares: Sequence[tuple[str, float]], path: Path) -> None:
    """Write the page.

    Raises:
        UserError: it cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    trials = [trial for trial in opened.get_trials(deepcopy=False) if trial.state.name in COLORS]
    values = {trial.number: _reached(trial) for trial in trials}
    ranked = sorted(trials, key=lambda trial: -values[trial.number])
    figures = [
        ("The best so far, trial by trial", _uri(_history(study, trials, values))),
        ("Every trial over its epochs", _uri(_epochs(study, trials))),
        ("Value of each hyperparameter against what was reached", _uri(_slices(study, trials, values))),
    ]
    if shares:
        figures.insert(2, ("Importance of each hyperparameter", _uri(_bars(shares))))
    best = opened.best_trial
    html = environment.get_template("page.html.jinja").render(
        title=f"{study.folder.name}: {len(trials)} trials",
        metric=study.metric,
        best=f"{best.value:.4f}",
        number=best.number,
        counts=[(state, sum(trial.state.name == state for trial in trials)) for state in COLORS],
        figures=figures,
        names=list(study.space),
        rows=[
            (trial.number, trial.state.name.lower(), _shown(values[trial.number]), *_cells(study, trial))
            for trial in ranked
        ],
    )
    with write_atomically(path) as file:
        file.write(html)


def _reached(trial: Any) -> float:
    """The best value of a trial, of a pruned one too; -inf for none."""
    measured = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
    return max(measured, default=-math.inf)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isinf(value) else f"{value:.4g}"
    return str(value)


def _cells(study: Study, trial: Any) -> list[str]:
    return [_shown(trial.params.get(name, "-")) for name in study.space]


def _figure(rows: int = 1, columns: int = 1, height: float = 3.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _history(study: Study, trials: Sequence[Any], values: dict[int, float]) -> Any:
    figure, axes = _figure()
    axis = axes[0, 0]
    for state, color in COLORS.items():
        some = [trial.number for trial in trials if trial.state.name == state]
        some = [number for number in some if math.isfinite(values[number])]
        axis.scatter(some, [values[number] for number in some], s=22, color=color, label=state.lower())
    best, line = -math.inf, []
    for trial in trials:
        complete = trial.state.name == "COMPLETE"
        best = max(best, values[trial.number]) if complete else best
        line.append(best if math.isfinite(best) else math.nan)
    axis.step([trial.number for trial in trials], line, where="post", color="#333333", label="best so far")
    axis.set_xlabel("trial")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel(study.metric)
    axis.legend(frameon=False)
    return figure


def _epochs(study: Study, trials: Sequence[Any]) -> Any:
    figure, axes = _figure()
    axis = axes[0, 0]
    for trial in trials:
        epochs = sorted(trial.intermediate_values)
        reached = [trial.intermediate_values[epoch] for epoch in epochs]
        color = COLORS[trial.state.name]
        axis.plot([epoch + 1 for epoch in epochs], reached, "o-", ms=3, lw=1, color=color, alpha=0.7)
    for state in ("COMPLETE", "PRUNED"):
        axis.plot([], [], "o-", ms=3, lw=1, color=COLORS[state], label=state.lower())
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel(study.metric)
    axis.legend(frameon=False)
    return figure


def _bars(shares: Sequence[tuple[str, float]]) -> Any:
    figure, axes = _figure(height=0.8 + 0.28 * len(shares))
    axis = axes[0, 0]
    names, sizes = zip(*reversed(shares), strict=True)
    axis.barh(names, sizes, color="#1f6fb2")
    for place, size in enumerate(sizes):
        axis.text(size, place, f" {size:.0%}", va="center", fontsize=9)
    axis.set_xlabel("share")
    axis.margins(x=0.1)
    return figure


def _slices(study: Study, trials: Sequence[Any], values: dict[int, float]) -> Any:
    rows = -(-len(study.space) // COLUMNS)
    figure, axes = _figure(rows, COLUMNS, height=2.4)
    for axis in axes.flat[len(study.space) :]:
        axis.set_axis_off()
    for axis, (name, one) in zip(axes.flat, study.space.items(), strict=False):
        for state, color in COLORS.items():
            some = [trial for trial in trials if trial.state.name == state and name in trial.params]
            some = [trial for trial in some if math.isfinite(values[trial.number])]
            places = [trial.params[name] for trial in some]
            if one.choices:
                places = [str(place) for place in places]
            axis.scatter(places, [values[trial.number] for trial in some], s=12, color=color)
        if one.log:  # matplotlib's own labels of less than a decade run into each other
            axis.set_xscale("log")
            ends = (one.low, math.sqrt(one.low * one.high), one.high)
            axis.set_xticks(ends, [f"{end:.2g}" for end in ends])
            axis.minorticks_off()
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
    return figure


def _uri(figure: Any) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
