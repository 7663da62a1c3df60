"""Steps of training against the reference's, a state that is restored, and losses that are not finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.training.hyperparameters import Hyperparameters
from engine.training.losses.detection import DetectionLoss
from engine.training.optimizer import Schedule
from engine.training.state import TrainingDivergedError, TrainState
from models import load_model


def make_state(golden: Path, hyp: Hyperparameters = Hyperparameters()) -> TrainState:  # noqa: B008
    model = load_model(golden / "yolov5n.pt").train().requires_grad_(True)
    schedule = Schedule(epochs=3, batches=100, batch_size=2)
    return TrainState(model, hyp, schedule)


def make_loss(state: TrainState, gains: list[float]) -> DetectionLoss:
    box, obj, cls = gains
    return DetectionLoss(state.model.head.anchors, 5, box=box, obj=obj, cls=cls)


# How far the reference's float32 losses are from the same steps in float64, measured and tripled. They grow
# tenfold every two steps: after eleven the comparison would only measure rounding, and stops.
REFERENCE_ROUNDING = [2e-6] * 5 + [2e-5] * 2 + [5e-5] * 2 + [1e-4] * 2


def test_the_recipes_steps_match_the_reference(golden: Path) -> None:
    """In float64: one tolerance holds on every processor. Rates, momenta and steps over 24 iterations."""
    with np.load(golden / "yolov5n.npz") as values:
        images, targets = torch.from_numpy(values["images_uint8"]), torch.from_numpy(values["targets"])
    with np.load(golden / "training_steps.npz") as values:
        expected = {key: values[key] for key in values.files}
    state = make_state(golden)
    state.model.double()
    state.ema.model.double()
    network = state.network
    state.network = lambda images: network(images.double())
    loss_fn = make_loss(state, expected["gains"].tolist())
    assert state.optimizer.param_groups[1]["weight_decay"] == pytest.approx(float(expected["weight_decay"]))

    items, rates, momenta, stepped = [], [], [], []
    for iteration in range(24):
        items.append(state.step(images, (targets.double(),), loss_fn, iteration).numpy())
        rates.append([group["lr"] for group in state.optimizer.param_groups])
        momenta.append(state.optimizer.param_groups[0]["momentum"])
        stepped.append(state.last_step == iteration)
    for iteration, rounding in enumerate(REFERENCE_ROUNDING):
        np.testing.assert_allclose(items[iteration], expected["items"][iteration], rtol=rounding)
    np.testing.assert_allclose(rates, expected["lr"], rtol=1e-9)
    np.testing.assert_allclose(momenta, expected["momentum"], rtol=1e-9)
    np.testing.assert_array_equal(stepped, expected["stepped"])

    # The weights after 24 steps carry 13 steps of the reference's rounding: small ones up to 3e-2 (measured),
    # the median 2e-5. A wrong decay or momentum moves the large ones by more than that.
    def rounding_of(tensors: list[torch.Tensor], name: str) -> np.ndarray:
        norms = np.array([tensor.norm().item() for tensor in tensors])
        return np.abs(norms / expected[name] - 1)

    means = [value for key, value in state.model.state_dict().items() if key.endswith("running_mean")]
    for tensors, name in (
        ([*state.model.parameters()], "param_l2"),
        ([*state.ema.model.parameters()], "ema_l2"),
        (means, "bn_mean_l2"),
    ):
        rounding = rounding_of(tensors, name)
        assert np.median(rounding) < 1e-3 and rounding.max() < 5e-2, name


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_restored_state_goes_on_exactly(golden: Path, optimizer: str) -> None:
    hyp = Hyperparameters(optimizer=optimizer)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.3, 0.2], [1, 4, 0.2, 0.7, 0.1, 0.2]])

    def steps(state: TrainState, numbers: range) -> list[torch.Tensor]:
        loss_fn = make_loss(state, [0.05, 1.0, 0.5])
        return [state.step(images, (targets,), loss_fn, number) for number in numbers]

    whole = make_state(golden, hyp)
    uninterrupted = steps(whole, range(6))
    first = make_state(golden, hyp)
    steps(first, range(3))
    saved = {key: value for key, value in first.state_dict().items()}
    second = make_state(golden, hyp)
    second.load_state_dict(saved, first.ema.model.state_dict())
    torch.testing.assert_close(steps(second, range(3, 6)), uninterrupted[3:], rtol=0, atol=0)
    for key, value in whole.ema.model.state_dict().items():
        assert torch.equal(value, second.ema.model.state_dict()[key]), key


def test_a_step_whose_loss_is_not_finite_is_left_out_and_three_in_a_row_stop_the_run(golden: Path) -> None:
    state = make_state(golden)
    before = {
        key: value.clone() for key, value in state.model.state_dict().items() if "num_batches" not in key
    }
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)

    def broken(raw: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        norm = state.model.model[0].bn
        norm.running_mean.data.fill_(float("nan"))  # as a broken forward pass leaves it
        return raw[0].sum() * float("nan"), torch.zeros(3)

    def fine(raw: list[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return raw[0].square().mean(), torch.ones(3)

    targets = [torch.zeros(0, 6)]
    assert state.step(images, targets, broken, 7) is None
    after = state.model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if "running" not in key)
    assert torch.equal(after["model.0.bn.running_mean"], before["model.0.bn.running_mean"])
    assert state.last_step == -1 and state.ema.updates == 0
    assert state.step(images, targets, broken, 8) is None
    assert state.step(images, targets, fine, 9) is not None  # and the count starts again
    assert state.step(images, targets, broken, 10) is None
    assert state.step(images, targets, broken, 11) is None
    with pytest.raises(TrainingDivergedError, match="3 times in a row, last at 12"):
        state.step(images, targets, broken, 12)
    assert all(torch.isfinite(value).all() for value in state.ema.model.state_dict().values())
