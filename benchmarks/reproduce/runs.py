"""One run: its data are made ready, it is trained or resumed, scored, timed, and becomes a row."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import platform
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.reproduce import latency
from benchmarks.reproduce.datasets import prepared
from benchmarks.reproduce.networks import architecture_of, hyp_of, start_of
from benchmarks.reproduce.place import Place
from benchmarks.reproduce.suite import Run
from data.paths import PROJECT
from utils.errors import UserError

LOG = logging.getLogger(__name__)
PEERS_BATCH = 16  # Ultralytics' default
PROBED = 2  # epochs that are timed to turn minutes into epochs


def execute(run: Run, place: Place) -> dict[str, Any]:
    """Make a run and return its row; what an earlier call has finished is not made again.

    Raises:
        UserError: data or weights are missing, or training did not end.
    """
    _set_threads(place.threads)
    folder = place.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    _note_definition(run, folder)
    data = prepared(run.data, place.root, place.work, run.entry.tile)
    if run.entry.runtime:
        from benchmarks.reproduce.fidelity import scored_in_runtime

        return _row(run, place, scored_in_runtime(run, place, data, folder))
    options = complete(run, data)
    options["epochs"] = epochs_of(run, place, data, options)
    values = _peer(run, place, data, options) if run.entry.peer else _ours(run, place, data, options)
    return _row(run, place, {**values, "epochs": options["epochs"], "imgsz": options["imgsz"]})


def _set_threads(threads: int) -> None:
    import os

    import cv2
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    cv2.setNumThreads(0 if threads == 1 else threads)


def _note_definition(run: Run, folder: Path) -> None:
    """Note what the suite says of the run.

    Raises:
        UserError: the folder holds a run of another definition.
    """
    file = folder / "run.json"
    if file.exists() and file.read_text(encoding="utf-8") != run.definition():
        raise UserError(
            f"{folder} holds a run that the suite described otherwise; remove the folder, or "
            "choose another --work"
        )
    file.write_text(run.definition(), encoding="utf-8")


def complete(run: Run, data: Path) -> dict[str, Any]:
    """Return the options of train.py, with the data's recipe where the suite leaves them out.

    Not the recipe's epochs and network, which are the suite's to say.
    """
    from data.dataset_yaml import find_dataset_yaml, read_keys

    recipe = read_keys(find_dataset_yaml(data)).get("recipe") or {}
    known = {"imgsz": 640, "batch_size": 16, "hyp": None, **recipe, **run.options}
    return {key: value for key, value in known.items() if key not in ("epochs", "cfg")}


def epochs_of(run: Run, place: Place, data: Path, options: dict[str, Any]) -> int:
    """Return the epochs of a run: as its budget says, or as many as fit into its minutes.

    Minutes become epochs as the suite says of the network, or once for all seeds by timing two epochs on this
    machine; the second counts.
    """
    if run.budget.minutes is None:
        assert run.budget.epochs is not None
        return run.budget.epochs
    if run.epochs is not None:
        return run.epochs
    if run.entry.epochs_per_minute is not None:
        return max(1, round(run.budget.minutes * run.entry.epochs_per_minute))
    from filelock import FileLock

    folder = place.folder(run).parent
    file = folder / "epochs.json"
    with FileLock(folder / ".epochs.lock"):
        if not file.exists():
            probe = replace(run, seed=0)
            tried = {**options, "epochs": PROBED}
            where = folder / "probe"
            where.mkdir(exist_ok=True)
            train = _train_peer if run.entry.peer else _train_ours
            train(probe, place, data, tried, where)
            each = _seconds_of(run, where, data)[-1]
            epochs = max(1, round(60 * run.budget.minutes / each))
            file.write_text(json.dumps({"seconds_per_epoch": each, "epochs": epochs}), encoding="utf-8")
    return int(json.loads(file.read_text(encoding="utf-8"))["epochs"])


def _seconds_of(run: Run, folder: Path, data: Path) -> list[float]:
    """Seconds of each epoch, without evaluation."""
    if run.entry.peer:
        from benchmarks.reproduce.peers import epoch_seconds

        return epoch_seconds(folder)
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        speeds = [float(row["images_per_s"]) for row in csv.DictReader(file)]
    images = _training_images(data)
    known = [images / speed for speed in speeds if speed > 0]
    # an epoch has no speed where it was interrupted after its last batch: it counts like the others
    return known + [statistics.fmean(known)] * (len(speeds) - len(known)) if known else []


def _training_images(data: Path) -> int:
    """Return how many images, or tiles, an epoch has."""
    from data.classification.dataset_yaml import is_classification, read_classification_yaml
    from data.classification.reading import read_labeled_images
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.split import read_split

    if not is_classification(data):
        return len(read_split(read_dataset_yaml(data), "train"))
    description = read_classification_yaml(data)
    side = int(description.recipe.get("imgsz", 64))
    return len(read_labeled_images(description, "train", description.transform(side)).labels)


def _train_ours(run: Run, place: Place, data: Path, options: dict[str, Any], folder: Path) -> None:
    """Train, or resume from last.pt, or do nothing where training has ended."""
    from data.classification.dataset_yaml import is_classification
    from engine.training import train
    from models.checkpoint import read_checkpoint

    last = folder / "weights" / "last.pt"
    if last.exists():
        if "training" not in read_checkpoint(last):
            return
        result = train(resume=str(last), device=place.device, workers=0)
    else:
        given = {
            "cfg": architecture_of(run.entry, folder, options["imgsz"]),
            "weights": start_of(run.entry, place.root, folder),
            **options,
            "hyp": hyp_of(options["hyp"], run.hyp, folder, is_classification(data)),
            "noval": run.data_entry.checkpoint == "last",
            "patience": options["epochs"] + 1,
        }
        result = train(
            data=data,
            seed=run.seed,
            device=place.device,
            workers=0,
            plots=False,
            project=folder.parent,
            name=folder.name,
            exist_ok=True,
            **given,
        )
    # a run that was asked to stop returns like a finished one, but has what it needs to go on in last.pt
    if not result.finished or "training" in read_checkpoint(last):
        raise UserError(
            f"{run.name} did not end its training, see {folder}/log.txt; --resume goes on with it"
        )


def _ours(run: Run, place: Place, data: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Train, score and measure one of our networks."""
    from models import ClassificationModel, load_model
    from models.summary import count_gflops, count_parameters

    folder = place.folder(run)
    _train_ours(run, place, data, options, folder)
    weights = folder / "weights" / f"{run.data_entry.checkpoint}.pt"
    model = load_model(weights)
    if isinstance(model, ClassificationModel):
        from benchmarks.reproduce.scoring import score_classifier

        scores = score_classifier(folder)
    else:
        from engine.runtimes import load_predictor

        scores = _scored(run, data, options, folder, load_predictor(weights))
    return {
        **scores,
        "architecture": run.entry.cfg or run.entry.weights,
        "parameters": count_parameters(model),
        "gflops": count_gflops(model, options["imgsz"]),
        "train_seconds": sum(_seconds_of(run, folder, data)) or None,
        **timed(run, place, options["imgsz"]),
    }


def _scored(
    run: Run, data: Path, options: dict[str, Any], folder: Path, predictor: Any, iou_thres: float = 0.6
) -> dict[str, Any]:
    from benchmarks.reproduce.scoring import ScoredData, detect, save, score

    scored = ScoredData(data, run.data_entry.split, options["imgsz"])
    kept = folder / "scored"
    kept.mkdir(exist_ok=True)
    save(detect(predictor, scored, iou_thres), kept)
    return score(kept, scored)


def _train_peer(run: Run, place: Place, data: Path, options: dict[str, Any], folder: Path) -> None:
    from benchmarks.reproduce.peers import as_files, finished, train_peer

    if finished(folder, options["epochs"]):
        return
    ours: Any = None
    if run.entry.recipe == "ours":
        from engine.training.hyperparameters import read_hyp

        ours = read_hyp(Path(options["hyp"] or "low")).changed(**run.hyp)
    files = as_files(data, place.work / "data" / f"{Path(run.data).stem}-as-files")
    given = {**options, "seed": run.seed, "device": place.device or "cpu"}
    if ours is None:  # their own batch size as well, unless the suite gives the network another
        given["batch_size"] = run.entry.options.get("batch_size", PEERS_BATCH)
    validate = run.data_entry.checkpoint == "best"
    train_peer(str(run.entry.peer), files, folder, given, ours, validate, place.threads)


def _peer(run: Run, place: Place, data: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Train, score and measure a peer."""
    from benchmarks.reproduce.peers import Peer, epoch_seconds, gflops

    folder = place.folder(run)
    _train_peer(run, place, data, options, folder)
    weights = folder / "weights" / f"{run.data_entry.checkpoint}.pt"
    peer = Peer(weights, place.threads)
    scores = _scored(run, data, options, folder, peer, 1.0 if peer.end_to_end else 0.6)
    return {
        **scores,
        "architecture": run.entry.peer,
        "parameters": peer.parameters,
        "gflops": gflops(peer, options["imgsz"]),
        "train_seconds": sum(epoch_seconds(folder)),
        **timed(run, place, options["imgsz"]),
    }


def to_time(run: Run, place: Place, imgsz: int) -> latency.Timed:
    """Return a trained run's network as `latency` takes it."""
    folder = place.folder(run)
    weights = folder / "weights" / f"{run.data_entry.checkpoint}.pt"
    onnx = folder.parents[1] / f"network-{imgsz}.onnx" if run.onnx else None
    return latency.Timed(weights, onnx, imgsz, run.entry.peer is not None, place.threads)


def timed(run: Run, place: Place, imgsz: int) -> dict[str, Any]:
    """Return latency, and the load of the minute before."""
    runners = to_time(run, place, imgsz).runners()
    before = latency.load()
    return {**latency.measure(runners), "load": before}


def _row(run: Run, place: Place, values: dict[str, Any]) -> dict[str, Any]:
    import torch

    known = dict(zip(("data", "network", "budget", "seed"), run.key, strict=True))
    return {
        **known,
        "definition": run.definition(),
        **values,
        "threads": place.threads,
        "commit": commit(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
    }


def commit() -> str:
    """Return the short commit of the checkout, with a + where files differ from it; "" outside git."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--exclude=*", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def cpu_name() -> str:
    """Return the CPU's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
