"""train.py: from options to a trained network and its report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.training.config import TrainConfig
from utils.errors import UserError
from utils.log import RESULT, counted, setup_logging

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.training.loggers import Logger
    from engine.training.resume import Interrupted
    from engine.training.run_folder import TrainRun
    from engine.training.settings import TrainSettings
    from engine.training.state import TrainState
    from engine.training.tasks import Loaders, Task
    from utils.distributed import World

LOG = logging.getLogger(__name__)


def main(cfg: TrainConfig) -> int:
    """Train, alone or among torchrun's processes; the first of them prints and writes."""
    from utils.distributed import joined_world

    if cfg.tuning.tune is not None:
        from engine.training.tune.command import tune

        return tune(cfg, run_trial)
    with joined_world() as world:
        if not world.is_main:
            setup_logging(cfg.log, world.rank)
        return train(cfg, world)[0]


def run_trial(cfg: TrainConfig, reporter: Logger) -> int:
    """Train as a trial of --tune; return the exit code."""
    from utils.distributed import World

    return train(cfg, World(), (reporter,))[0]


def train(cfg: TrainConfig, world: World, loggers: Sequence[Logger] = ()) -> tuple[int, TrainRun | None]:
    """Train, keep the best checkpoint, evaluate it and say where everything is.

    Args:
        cfg: the options.
        world: the processes that train together.
        loggers: are told of each epoch, besides those of the options.

    Returns:
        The exit code, and the run's folder in the first process.

    Raises:
        UserError: options, data or weights cannot be used, files cannot be written, or memory runs out.
    """
    from engine.training.resolve import resolve
    from engine.training.resume import interrupted_run
    from engine.training.tasks import choose_task, default_data
    from models.checkpoint import read_checkpoint
    from utils.device import seed_everything, select_device
    from utils.run_folders import check_writable

    resumed = interrupted_run(cfg) if cfg.resume else None
    cfg = resumed.config if resumed else cfg
    if world.is_main:
        check_writable(resumed.folder if resumed else cfg.run.project)
    checkpoint = resumed.checkpoint if resumed else None
    pretrained = checkpoint or (read_checkpoint(cfg.weights) if cfg.weights else None)
    architecture = checkpoint["model"] if checkpoint else cfg.cfg or (pretrained and pretrained["model"])
    data = cfg.data or default_data(architecture)
    with resumed.finding_data() if resumed else contextlib.nullcontext():
        task = choose_task(data, architecture)
    if resumed:
        resumed.check_names(task.known_names(cfg), data)
    settings = resolve(cfg, task, data, select_device(world.device(cfg.device)), world, checkpoint)
    seed_everything(cfg.seed)
    with explained_lack_of_memory(settings):
        return _train(settings, task, architecture or task.default_model, pretrained, resumed, loggers)


def _train(
    settings: TrainSettings,
    task: Task,
    architecture: str | dict[str, Any],
    pretrained: dict[str, Any] | None,
    resumed: Interrupted | None,
    loggers: Sequence[Logger],
) -> tuple[int, TrainRun | None]:
    """Read the data, make network and run folder, and train; worker processes end with this function."""
    from engine.training.run_folder import TrainRun
    from utils.run_folders import locked, make_run_folder

    checkpoint, options = resumed.checkpoint if resumed else None, settings.options
    if settings.batch_size == -1:
        settings = settings.replace(batch_size=fitting_batch(settings, task, pretrained))
        LOG.info("--batch-size %d is what fits", settings.batch_size)
    with contextlib.ExitStack() as ending:
        with resumed.finding_data() if resumed else contextlib.nullcontext():
            loaders = task.loaders(settings, architecture)
        ending.callback(loaders.close)
        if resumed:
            resumed.check_names(loaders.names, settings.data)
        model = make_model(settings, task, loaders, pretrained, checkpoint).to(settings.device)
        state = make_state(settings, model, len(loaders.train), checkpoint)
        run = None
        if settings.world.is_main:
            place = options.run.project, options.run.name, options.run.exist_ok
            folder = resumed.folder if resumed else make_run_folder(*place)
            ending.enter_context(locked(folder))
            run = TrainRun(folder, settings, state, task)
            ending.callback(run.close)
            run.loggers += loggers
            if options.saving.plots and not (folder / "train_batch0.png").exists():
                task.plot_data(folder, loaders)
        LOG.info("%s", _title(settings, task.default_model, len(loaders.train.dataset), run))
        return run_to_the_end(settings, task, state, run, loaders), run


@contextlib.contextmanager
def explained_lack_of_memory(settings: TrainSettings) -> Iterator[None]:
    """Make one line of running out of memory, which says what to lower.

    Raises:
        UserError: memory ran out.
    """
    from utils.memory import is_out_of_memory

    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        cached = settings.options.image.cache == "ram"
        where, batch, side = settings.device, settings.batch_size, settings.imgsz
        message = f"out of memory on {where}: lower --batch-size, now {batch}, or --imgsz, now {side}"
        raise UserError(message + (", or leave --cache out" if cached else "")) from error


def _title(settings: TrainSettings, default_model: str, images: int, run: TrainRun | None) -> str:
    size = settings.world.size
    where = f"{settings.device}, {size} processes" if size > 1 else settings.device
    folder = run.folder if run else ""
    name = settings.options.cfg or settings.options.weights or default_model
    amount = f"{counted(settings.epochs, 'epoch')} of {counted(images, 'image')}"
    return f"{name} on {where}: {amount}, into {folder}"


def run_to_the_end(
    settings: TrainSettings, task: Task, state: TrainState, run: TrainRun | None, loaders: Loaders
) -> int:
    """Fit and report; return the exit code. What is interrupted can be resumed."""
    from engine.training.loop import fit, stop_on_signals
    from engine.training.plots import plot_results
    from engine.training.state import StopRequested, TrainingDivergedError

    last = run.last if run else None
    try:
        with stop_on_signals(state):
            fit(settings, task, state, run, task.loss(settings, state.model), loaders)
    except StopRequested:
        if run:
            run.save()
        LOG.warning(
            "saved in epoch %d, as asked; continue with: python train.py --resume %s", state.epoch + 1, last
        )
        return 130 if state.interrupted else 0
    except KeyboardInterrupt:
        LOG.warning("stopped in epoch %d; continue with: python train.py --resume %s", state.epoch + 1, last)
        return 130
    except TrainingDivergedError as error:
        LOG.error("%s; the last good weights are in %s; try a lower lr0 or another --seed", error, last)
        return 1
    if run:
        run.end_training()
        LOG.log(RESULT, f"\nbest epoch: {state.best_epoch + 1}")
        task.report(settings, run, loaders)
        if settings.options.saving.plots:
            plot_results(run.csv, run.folder / "results.png")
        run.finish()  # only now: a report that is killed midway is written when the run is resumed
        LOG.log(RESULT, f"\neverything is in {run.folder}; try: python detect.py --weights {run.best}")
    return 0


def make_model(
    settings: TrainSettings,
    task: Task,
    loaders: Loaders,
    pretrained: dict[str, Any] | None,
    checkpoint: dict[str, Any] | None,
) -> nn.Module:
    """Return the interrupted run's network, or a new one."""
    from engine.training.freeze import freeze_layers
    from models.load import from_checkpoint

    if checkpoint:
        where = str(settings.options.resume)
        model: nn.Module = from_checkpoint(checkpoint, where).requires_grad_(True)
    else:
        model = task.new_model(settings, pretrained, loaders)
    freeze = settings.options.optimization.freeze
    if freeze:
        LOG.info("%d tensors are frozen", len(freeze_layers(model, freeze)))
    return model


def make_state(
    settings: TrainSettings, model: nn.Module, batches: int, checkpoint: dict[str, Any] | None = None
) -> TrainState:
    """Return a fresh state, or the interrupted run's."""
    from engine.training.multi_scale import rescaled, scaled_side
    from engine.training.optimizer import schedule_of
    from engine.training.state import TrainState
    from models.detection_model import DetectionModel
    from models.fast_training import fast_training
    from models.layers.sync_norm import synchronize_norms

    options, seed, imgsz = settings.options, settings.options.seed, settings.imgsz
    if options.optimization.sync_bn and settings.world.size > 1:
        model = synchronize_norms(model)
    schedule = schedule_of(
        settings.hyp, settings.epochs, batches, settings.batch_size, options.optimization.cos_lr
    )
    fast_training(model)

    stride = model.max_stride if isinstance(model, DetectionModel) else 32

    def resize(images: Tensor, iteration: int) -> Tensor:
        return rescaled(images, scaled_side(imgsz, stride, seed, iteration // batches, iteration % batches))

    scale = resize if options.image.multi_scale else None
    amp, compiled = options.optimization.amp, options.optimization.compile
    state = TrainState(model, settings.hyp, schedule, amp, settings.world, compiled, scale)
    if checkpoint:
        state.load_state_dict(checkpoint["training"], checkpoint["weights"])
    return state


def fitting_batch(settings: TrainSettings, task: Task, pretrained: dict[str, Any] | None) -> int:
    """Return the largest batch that fits, by training steps on the first images of the data set."""
    import torch

    from engine.training.auto_batch import largest_batch
    from utils.distributed import World

    options = settings.options.replace(workers=0)
    probe = settings.replace(options=options, batch_size=2 * settings.world.size)
    architecture = options.cfg or (pretrained["model"] if pretrained else task.default_model)
    loaders = task.loaders(probe, architecture)
    model = task.new_model(probe, pretrained, loaders).to(settings.device)
    loss_fn = task.loss(probe, model)
    state = make_state(probe.replace(world=World()), model, 1)
    loaders.train.set_epoch(0)
    batch = next(iter(loaders.train))

    def step(count: int) -> None:
        torch.manual_seed(options.seed)
        state.step(*task.repeated(batch, count), loss_fn, 0)

    size = settings.world.size
    return largest_batch(step, settings.device, len(loaders.train.dataset) // size) * size
