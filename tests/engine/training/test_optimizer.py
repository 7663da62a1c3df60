"""Parameter groups, the schedule and the moving average against their formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from engine.training.optimizer import EMA, Schedule, build_optimizer


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_groups_are_biases_decaying_weights_and_norm_weights() -> None:
    model = small_model()
    groups = build_optimizer(model, "SGD", 0.01, 0.9, 5e-4).param_groups
    ids = [{id(p) for p in group["params"]} for group in groups]
    assert ids[0] == {id(model[1].bias), id(model[2].bias)}
    assert ids[1] == {id(model[0].weight), id(model[2].weight)}
    assert ids[2] == {id(model[1].weight)}
    assert [group["weight_decay"] for group in groups] == [0, 5e-4, 0]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_every_optimizer_lowers_a_quadratic(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, name, 0.05, 0.9, 0.0)
    x = torch.randn(64, 3)

    def loss() -> torch.Tensor:
        return (model(x) - x.sum(1, keepdim=True)).pow(2).mean()

    first = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.05 * first


def test_warmup_and_decay_follow_the_formulas() -> None:
    schedule = Schedule(epochs=10, batches=100, batch_size=16, lr0=0.02, lrf=0.1)
    optimizer = build_optimizer(small_model(), "SGD", 0.02, 0.937, 5e-4)
    assert schedule.warmup == 300
    assert schedule.apply(optimizer, 0) == 1
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.0, 0.0]
    assert optimizer.param_groups[0]["momentum"] == 0.8
    assert schedule.apply(optimizer, 150) == round(1 + 0.5 * 3)
    lr = 0.02 * (1 - 0.1 * 0.9)  # epoch 1 of 10
    expected = [0.1 + 0.5 * (lr - 0.1), 0.5 * lr, 0.5 * lr]
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(expected)
    assert schedule.apply(optimizer, 999) == 4
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.02 * (1 - 0.9 * 0.9))
    assert optimizer.param_groups[1]["momentum"] == pytest.approx(0.937)


def test_cosine_and_linear_schedules_share_their_ends() -> None:
    linear = Schedule(epochs=8, batches=1, batch_size=1, lrf=0.05)
    cosine = Schedule(epochs=8, batches=1, batch_size=1, lrf=0.05, cosine=True)
    assert linear.lr(0) == cosine.lr(0) == 0.01
    assert linear.lr(8) == pytest.approx(cosine.lr(8)) == pytest.approx(0.0005)
    assert linear.lr(4) == pytest.approx(cosine.lr(4))
    assert cosine.lr(2) > linear.lr(2)


def test_adam_gets_momentum_as_its_first_beta() -> None:
    optimizer = build_optimizer(small_model(), "AdamW", 0.01, 0.9, 5e-4)
    Schedule(epochs=1, batches=10, batch_size=64, warmup_epochs=0, momentum=0.85).apply(optimizer, 0)
    assert optimizer.param_groups[0]["betas"] == (0.85, 0.999)


def test_ema_follows_its_formula_in_float64() -> None:
    torch.manual_seed(0)
    model = small_model()
    ema = EMA(model, decay=0.99, tau=10)
    expected = {k: v.double() for k, v in copy.deepcopy(model.state_dict()).items()}
    for n in range(1, 40):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.randn(value.shape).to(value.dtype) if value.is_floating_point() else 1)
        ema.update(model)
        keep = 0.99 * (1 - math.exp(-n / 10))
        for key, value in model.state_dict().items():
            new = keep * expected[key] + (1 - keep) * value.double()
            expected[key] = new if value.is_floating_point() else value.double()
    for key, value in ema.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in ema.model.parameters())
