"""The state of a training run: everything that changes while it goes on, and one step of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.training.hyperparameters import OptimizerSettings
from engine.training.optimizer import EMA, Schedule, build_optimizer
from utils.distributed import World
from utils.errors import UserError, quoted
from utils.reading import guarded

CLIP_NORM = 10.0  # of the gradient, as in YOLOv5
FORGIVEN = 2  # losses in a row that are not finite; the next one stops the run
PROGRESS = ("epoch", "batch", "totals", "seen", "last_step", "best_fitness", "best_epoch", "metrics")
LossFunction = Callable[..., tuple[Tensor, Tensor]]  # (output, *targets) -> loss, its terms


class TrainingDivergedError(RuntimeError):
    """The loss was not a finite number several times in a row, or the weights are not."""


class StopRequested(BaseException):
    """The run was asked to stop and can be saved now; like KeyboardInterrupt, no error."""


def _check_like(name: str, value: Any, example: Any) -> None:
    """Refuse progress of another type than the run has, or a count below its start."""
    number = isinstance(example, float) and type(value) in (int, float)
    if type(value) is not type(example) and not number:
        raise UserError(f"the run to resume: its '{name}' is {quoted(value)}")
    if type(value) is int and value < -1:
        raise UserError(f"the run to resume: its '{name}' is {quoted(value)}")


class TrainState:
    """Model, moving average, optimizer, scaler, schedule and progress of a run.

    Args:
        model: already on its device.
        hyp: the recipe: optimizer, rates, decay and moving average.
        schedule: rates per iteration; its batches are those of all processes together.
        amp: mixed precision; only CUDA has it.
        world: the processes that train this model together.
        compile: run the network through torch.compile.
        resize: gives a batch of images another size, by iteration; None: none.
    """

    def __init__(
        self,
        model: nn.Module,
        hyp: OptimizerSettings,
        schedule: Schedule,
        amp: bool = True,
        world: World = World(),  # noqa: B008  (frozen)
        compile: bool = False,
        resize: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        # channels_last: the same numbers, faster convolutions, a space-to-depth that copies whole pixels
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule, self.world, self.resize = schedule, world, resize
        self.device = next(model.parameters()).device
        images = schedule.batch_size * schedule.full_accumulation  # in one optimizer step
        decay = hyp.weight_decay * images / schedule.nominal_batch
        self.optimizer = build_optimizer(model, hyp.optimizer, hyp.lr0, hyp.momentum, decay)
        self.ema = EMA(model, hyp.ema_decay, hyp.ema_tau)
        self.network = world.wrap(self.model)  # what is called; its parameters are the model's
        if compile:
            self.network.compile()
        self.amp = amp and self.device.type == "cuda"
        self.amp_dtype = torch.bfloat16 if self.amp and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp and self.amp_dtype == torch.float16
        )
        self.epoch = 0  # finished epochs
        self.batch = 0  # finished batches of the present epoch
        self.totals: list[float] = []  # sums of the loss's terms over these batches
        self.seen = 0  # images of these batches
        self.last_step = -1  # iteration of the last optimizer step
        self.failures = 0  # losses that were not finite, in a row
        self.best_fitness, self.best_epoch = -1.0, -1
        self.metrics: dict[str, Any] = {}  # of the last evaluation
        self.stop_asked = self.stopping = False  # of this process; of all of them
        self.interrupted = False  # asked by Ctrl-C

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on exactly, the average's weights aside."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": self.ema.updates,
            "batches": self.schedule.batches,
            **{name: getattr(self, name) for name in PROGRESS},
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any], ema_weights: dict[str, Tensor]) -> None:
        """Go back to where `state_dict` was called.

        Raises:
            UserError: an epoch had another number of batches.
        """
        with guarded("the run to resume", "the state of a training"):
            self._load(state, ema_weights)

    def _load(self, state: dict[str, Any], ema_weights: dict[str, Tensor]) -> None:
        if state["batches"] != self.schedule.batches:
            now = self.schedule.batches
            raise UserError(f"the data set has changed: {now} batches an epoch, were {state['batches']}")
        self.model.load_state_dict(state["weights"])
        self.ema.model.load_state_dict(ema_weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.ema.updates = state["ema_updates"]
        for name in PROGRESS:
            _check_like(name, state[name], getattr(self, name))
            setattr(self, name, state[name])
        torch.set_rng_state(state["torch_rng"].cpu())

    def step(
        self, images: Tensor, targets: Sequence[Tensor], loss_fn: LossFunction, iteration: int
    ) -> Tensor | None:
        """Forward, backward and, where enough batches have come together, an optimizer step.

        Args:
            images: (B, 3, H, W) uint8.
            targets: what `loss_fn` takes after the model's output.
            loss_fn: returns the loss to minimize and its terms.
            iteration: counted over all epochs.

        Returns:
            The loss's terms, detached; None where the loss of some process was not finite, or on the CPU the
            gradient. Then the gradients accumulated so far are dropped, and weights and their average stay as
            they were. BatchNorm's running statistics have moved with the batch; only what is not finite in
            them is replaced by the average's.

        Raises:
            TrainingDivergedError: it was not finite for the third time in a row.
        """
        accumulate = self.schedule.apply(self.optimizer, iteration)
        # at the end of an epoch as well: the next one, and a run that is resumed, begin without gradients
        ends_epoch = (iteration + 1) % self.schedule.batches == 0
        is_last = ends_epoch or iteration - self.last_step >= accumulate
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last).float() / 255
        if self.resize is not None:
            images = self.resize(images, iteration)
        targets = [target.to(self.device, non_blocking=True) for target in targets]
        with self.world.sync_gradients(self.network, is_last):
            with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp):
                output = self.network(images)
            loss, terms = loss_fn(output, *targets)
            agreed = self._agree(loss)
            self.scaler.scale(loss).backward()
        finite, go_on = agreed()
        self.stopping = not go_on
        if not finite:
            self._drop(iteration)
            return None
        if is_last:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            if self.device.type == "cpu" and not norm.isfinite():  # a GPU would have to be waited for
                self._drop(iteration)
                return None
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.update(self.model)
            self.last_step = iteration
        self.failures = 0
        return terms

    @torch.no_grad()
    def check_finite(self) -> None:
        """Make sure that weights and statistics, and their average, are worth keeping.

        Raises:
            TrainingDivergedError: some of them are not finite.
        """
        values = [*self.model.state_dict().values(), *self.ema.model.state_dict().values()]
        largest = [value.abs().max() for value in values if value.is_floating_point() and value.numel()]
        if not torch.stack([value.float() for value in largest]).isfinite().all():
            raise TrainingDivergedError(f"the weights are no longer finite in epoch {self.epoch + 1}")

    def _agree(self, loss: Tensor) -> Callable[[], list[bool]]:
        """Start finding out whether every process has a finite loss, and none was asked to stop.

        Asked for after backward is queued, the answer costs a GPU nothing: it only needs the forward pass,
        and the device has the whole backward pass to do meanwhile.
        """
        go_on = torch.full((), float(not self.stop_asked), device=self.device)
        flags = self.world.all_reduce_min(torch.stack((torch.isfinite(loss.detach()).float(), go_on)))
        if self.device.type != "cuda":
            return lambda: flags.bool().tolist()
        answer = torch.empty(2, pin_memory=True)
        answer.copy_(flags, non_blocking=True)
        there = torch.cuda.Event()
        there.record()

        def wait() -> list[bool]:
            there.synchronize()
            return answer.bool().tolist()

        return wait

    @torch.no_grad()
    def _drop(self, iteration: int) -> None:
        """Forget the gradients and what a broken forward pass did to the statistics of BatchNorm."""
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, good in zip(self.model.buffers(), self.ema.model.buffers(), strict=True):
            if buffer.is_floating_point() and not torch.isfinite(buffer).all():
                buffer.copy_(good)
        self.failures += 1
        if self.failures > FORGIVEN:
            raise TrainingDivergedError(f"no finite loss {self.failures} times in a row, last at {iteration}")

    def end_epoch(self, metrics: dict[str, Any], fitness: float | None) -> bool:
        """Count the epoch; return whether none was better, as is so for each that was not evaluated."""
        self.metrics = metrics
        is_best = fitness is None or fitness > self.best_fitness
        if is_best:
            self.best_fitness = self.best_fitness if fitness is None else fitness
            self.best_epoch = self.epoch
        self.epoch, self.batch, self.totals, self.seen = self.epoch + 1, 0, [], 0
        return is_best
