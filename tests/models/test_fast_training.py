"""Training with merged convolutions equals plain training: values, gradients, statistics, state dict."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models import build_model, fuse_detector
from models.fast_training import fast_training
from models.layers.blocks import C3


def train_steps(model, steps=2):
    """Return outputs and gradients of a few SGD steps on the same images."""
    torch.manual_seed(1)
    images = torch.rand(2, 3, 64, 96, dtype=next(model.parameters()).dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        maps = model(images)
        sum(level.square().mean() for level in maps).backward()
        optimizer.step()
    return maps, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd"])
def test_values_gradients_and_statistics_are_those_of_the_plain_network(name, layout):
    torch.manual_seed(0)
    plain = build_model(name, num_classes=2).double().to(memory_format=layout)
    fast = copy.deepcopy(plain)
    fast_training(fast)
    assert all(block.merged for block in fast.modules() if isinstance(block, C3))
    (expected, expected_grads), (maps, grads) = train_steps(plain), train_steps(fast)
    for ours, reference in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)
    assert grads.keys() == expected_grads.keys()
    for key, gradient in grads.items():
        torch.testing.assert_close(gradient, expected_grads[key], rtol=1e-7, atol=1e-12, msg=key)
    ours, reference = fast.state_dict(), plain.state_dict()
    assert list(ours) == list(reference)
    for key, value in ours.items():  # weights, running means and variances, counts
        torch.testing.assert_close(value, reference[key], rtol=1e-9, atol=1e-11, msg=key)


def test_mixed_precision_gives_float32_gradients():
    model = build_model("yolov5n-spd", num_classes=2)
    fast_training(model)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(torch.rand(2, 3, 64, 64))
    sum(level.float().square().mean() for level in maps).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_eval_mode_frozen_norms_and_switching_off_are_the_plain_network():
    plain = C3(8, 8, 1).double()
    fast, x = copy.deepcopy(plain), torch.rand(2, 8, 5, 5, dtype=torch.float64)
    fast_training(fast)
    for mode in ("eval", "frozen", "off"):
        plain.eval(), fast.eval()
        if mode != "eval":
            plain.train(), fast.train()
        if mode == "frozen":
            plain.cv2.bn.eval(), fast.cv2.bn.eval()
        if mode == "off":
            fast_training(fast, on=False)
        assert torch.equal(fast(x), plain(x))
        assert torch.equal(fast.cv2.bn.running_var, plain.cv2.bn.running_var)
    assert all(act.inplace for act in fast.modules() if isinstance(act, nn.SiLU))


def test_blocks_with_other_norms_or_hooks_are_not_merged():
    normed, hooked = C3(8, 8, 1), C3(8, 8, 1)
    normed.cv1.bn = nn.GroupNorm(2, 4)
    calls = []
    hooked.cv2.conv.register_forward_hook(lambda *_: calls.append(1))
    for block in (normed, hooked):
        fast_training(block)
        block.train()(torch.rand(2, 8, 5, 5))
    assert calls == [1]
    assert not normed.merged and not hooked.merged


def test_fusing_for_inference_ends_fast_training():
    model = build_model("yolov5n-spd", num_classes=2)
    fast_training(model)
    model.eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)[1][0]
        torch.testing.assert_close(fuse_detector(model)(images)[1][0], expected, rtol=1e-4, atol=1e-4)
    assert all(act.inplace for act in model.modules() if isinstance(act, nn.SiLU))
