"""detect.py --ray: listing, checks, run folder, work, outputs, summary."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from engine.inference.config import DetectConfig
from utils.errors import UserError
from utils.log import RESULT, counted

if TYPE_CHECKING:
    from engine.inference.fleet.cluster import Fleet
    from engine.inference.fleet.network import LoadNetwork
    from engine.inference.fleet.run import Counts, RunState
    from engine.inference.settings import DetectSettings
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A run whose options are known to fit.

    Attributes:
        cfg: the options that it uses.
        load: makes a predictor on the CPU.
        settings: how to detect.
        stride: of the network, None where its input has one size only.
        state: of the run, except for the number of files of a new one.
        category_ids: of each class, for predictions.json.
    """

    cfg: DetectConfig
    load: LoadNetwork
    settings: DetectSettings
    stride: int | None
    state: RunState
    category_ids: tuple[int, ...] | None


def detect_fleet(cfg: DetectConfig) -> int:
    """Detect with actors of Ray; 1 where files had to be left out.

    Raises:
        UserError: an option, a source or the cluster cannot be used; nothing is left behind then.
    """
    from engine.inference.fleet.cluster import check_address, check_ray, joined
    from engine.inference.fleet.listing import paths_of, write_listing
    from engine.inference.fleet.run import LISTING
    from utils.run_folders import check_writable, default_weights, locked, make_run_folder

    check_ray()
    check_address(str(cfg.fleet.ray))
    if cfg.resume is not None:
        folder = _resumed_folder(cfg)
        checked = _check(_resumed_options(cfg, folder), folder)
        with joined(cfg.fleet, checked.cfg.hardware.device) as fleet, locked(folder, "detecting"):
            return _work(folder, checked, fleet)
    cfg = cfg.replace(weights=cfg.weights or (default_weights(),))
    paths = paths_of(cfg.source)
    checked = _check(cfg)
    check_writable(cfg.run.project)
    with joined(cfg.fleet, cfg.hardware.device) as fleet:
        folder = make_run_folder(cfg.run.project, cfg.run.name)  # never into another run's shards
        with locked(folder, "detecting"):
            cfg.save(folder / "config.yaml")
            count = write_listing(paths, folder / LISTING)
            state = type(checked.state).of(count, checked.state.origin)
            state.save(folder)
            return _work(folder, dataclasses.replace(checked, state=state), fleet)


def _resumed_folder(cfg: DetectConfig) -> Path:
    """Return the folder of the run that --resume means.

    Raises:
        UserError: there is none.
    """
    if cfg.resume != "newest":
        return Path(str(cfg.resume))
    runs = sorted(cfg.run.project.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"no run of --ray in {cfg.run.project}; give its folder to --resume")
    return runs[-1].parent


def _resumed_options(cfg: DetectConfig, folder: Path) -> DetectConfig:
    """Return the options of an interrupted run, on the cluster and the device of this command.

    Raises:
        UserError: the run cannot be resumed.
    """
    from utils.files import read_yaml

    former = read_yaml(folder / "config.yaml")
    if not isinstance(former, dict):
        raise UserError(f"{folder / 'config.yaml'} holds no options of a run")
    for name in ("ray", "actors", "resume"):
        former.pop(name, None)
    options = DetectConfig.of(**{key: value for key, value in former.items() if value is not None})
    return options.replace(
        fleet=cfg.fleet, log=cfg.log, device=cfg.hardware.device or options.hardware.device
    )


def _check(cfg: DetectConfig, resumed: Path | None = None) -> Checked:
    """Load the network once, here, so that whatever does not fit is said before anything starts.

    Raises:
        UserError: an option or the weights do not fit, or are not those of the resumed run.
    """
    from data.dataset_yaml import read_class_names
    from engine.inference.fleet.network import LoadNetwork
    from engine.inference.fleet.run import RunState, hash_of, hash_of_files
    from engine.inference.fleet.shards import Origin
    from engine.inference.settings import BATCH, make_settings

    names, category_ids = read_class_names(cfg.data) if cfg.data else (None, None)
    load = LoadNetwork(cfg.weights, "cpu", False, names, cfg.augment)
    predictor: Predictor = load()
    settings = make_settings(predictor, cfg)
    if cfg.batch_size is None:  # each batch costs Ray something, too
        settings = dataclasses.replace(settings, batch_size=BATCH)
    decisive = dataclasses.asdict(dataclasses.replace(settings, batch_size=0))
    decisive |= {"augment": cfg.augment, "half": cfg.hardware.half, "vid_stride": cfg.vid_stride}
    origin = Origin(predictor.names, hash_of_files(cfg.weights), hash_of(decisive))
    state = RunState.read(resumed) if resumed else RunState.of(0, origin)
    for what, before, now in (
        ("weights", state.model_hash, origin.model_hash),
        ("options", state.options_hash, origin.options_hash),
    ):
        if before != now:
            raise UserError(f"{resumed}: its {what} have changed since it began; start a new run")
    stride = None if predictor.imgsz else predictor.stride
    return Checked(cfg, load, settings, stride, state, category_ids)


def _work(folder: Path, checked: Checked, fleet: Fleet) -> int:
    """Do what is missing, write what was asked for and say how many of each there are."""
    from tqdm import tqdm

    from engine.inference.fleet.outputs import wants_outputs, write_outputs
    from engine.inference.fleet.run import Counts, done_units, finish
    from engine.inference.fleet.stream import Work
    from engine.inference.fleet.tiles import Reader
    from utils.stopping import StopSignals

    cfg, state = checked.cfg, checked.state
    read = Reader(checked.settings, checked.stride, cfg.vid_stride, os.getcwd())
    load = dataclasses.replace(checked.load, device=fleet.device, half=cfg.hardware.half)
    counts = Counts(earlier=min(len(done_units(folder)) * state.unit, state.files))
    tiles = f", tiles of {checked.settings.tiling.size} px" if checked.settings.tiling else ""
    weights = " + ".join(map(str, cfg.weights))
    LOG.info("%s, %s: %s%s, into %s", weights, fleet, counted(state.files, "file"), tiles, folder)
    start = time.perf_counter()
    results = finish(folder, state, Work(read, load, checked.settings, fleet))
    bar = tqdm(total=state.files, initial=counts.earlier, unit="file", dynamic_ncols=True, disable=None)
    with StopSignals() as stops, closing(results), closing(bar):
        for files in stops.until_stopped(results):
            for file in files:
                counts.add(file)
            bar.update(len(files))
    if stops.received:
        LOG.warning("stopped; continue with: python detect.py --ray --resume %s", folder)
        return stops.exit_code
    seconds = time.perf_counter() - start
    if wants_outputs(cfg):
        write_outputs(cfg, folder, state, checked.category_ids)
    return _summarize(folder, state, counts, seconds)


def _summarize(folder: Path, state: RunState, counts: Counts, seconds: float) -> int:
    from engine.inference.fleet.shards import read_shards

    images = objects = broken = 0
    reasons: list[str] = []
    for table in read_shards(folder, "images"):
        images += len(table)
        objects += sum(table["objects"].to_pylist())
    for table in read_shards(folder, "errors"):
        broken += len(table)
        reasons += itertools.islice(table["reason"].to_pylist(), max(5 - len(reasons), 0))
    what = f"{counted(objects, 'object')} in {counted(images, 'image')} of {counted(state.files, 'file')}"
    now = f", {counts.earlier} done earlier" if counts.earlier else ""
    speed = f", {counts.files / seconds:.1f} files per second" if counts.files and seconds else ""
    LOG.log(RESULT, "%s, %d broken%s%s", what, broken, now, speed)
    LOG.log(RESULT, "saved in %s", folder)
    if broken:
        more = f"\n  ... all are in {folder / 'errors'}" if broken > len(reasons) else ""
        what = f"{counted(broken, 'file')} could not be read, wholly or in part"
        LOG.warning("%s:\n  %s%s", what, "\n  ".join(reasons), more)
    return int(broken > 0)
