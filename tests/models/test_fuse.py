import copy

import pytest
import torch
from torch import nn

from models import build_model, fuse_detector, replace_downsampling
from models.downsample.spd import SpaceToDepth, SPDConv, space_to_depth, strided_weight
from models.downsample.spd_conv2d import SPDConv2d
from models.fuse import AddConvolved, MergedC3, StridedWindow, fold_batchnorm
from models.layers.blocks import Conv


def randomize_norms(model):
    """Give every BatchNorm statistics and an affine map that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def test_folding_batchnorm_keeps_the_output():
    block = randomize_norms(Conv(3, 8, 3)).double()
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        before = block(x)
        fold_batchnorm(block)
        fold_batchnorm(block)  # a second time changes nothing
        torch.testing.assert_close(block(x), before, rtol=1e-12, atol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())


CASES = [("yolov5n", None), ("yolov5n-spd", None), ("yolov5n-spd-p2", None), ("yolov5n-spd-p234", None)] + [
    ("yolov5n", name) for name in ("spd", "avg", "spectral", "diffstride")
]


@pytest.mark.parametrize(("name", "downsample"), CASES)
def test_fusing_keeps_the_outputs(name, downsample):
    model = randomize_norms(build_model(name, num_classes=4, downsample=downsample)).double()
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)[1]
        after = fuse_detector(model)(images)[1]
    for ours, reference in zip(after, before, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_released_spd_runs_without_space_to_depth_once_fused():
    model = fuse_detector(build_model("yolov5n-spd", num_classes=2))
    kinds = [type(module) for module in model.modules()]
    assert SpaceToDepth not in kinds
    assert kinds.count(MergedC3) == 8
    assert kinds.count(AddConvolved) == 2


def test_space_to_depth_of_many_channels_stays(monkeypatch):
    monkeypatch.setattr("models.fuse.STRIDED_CHANNELS", 64)
    model = randomize_norms(build_model("yolov5n-spd", num_classes=2))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = model(images)[1][0], fuse_detector(model)(images)[1][0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    left = [i for i, layer in enumerate(model.model) if isinstance(layer, SpaceToDepth)]
    assert [model.channels[i] // 4 for i in left] == [128, 256, 128]


def test_fusing_twice_is_fusing_once_and_the_result_can_be_copied():
    model = fuse_detector(build_model("yolov5n", num_classes=2))
    keys = list(model.state_dict())
    assert fuse_detector(model) is model
    assert list(copy.deepcopy(model).state_dict()) == keys
    assert not any(p.requires_grad for p in model.parameters())


def test_a_space_to_depth_that_other_layers_read_stays():
    model = build_model(
        {
            "nc": 2,
            "anchors": 2,
            "backbone": [
                [-1, 1, "Conv", [8, 3, 1]],
                [-1, 1, "space_to_depth", [1]],
                [-1, 1, "C3", [8]],
                [[-1, 1], 1, "Concat", [1]],
            ],
            "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
        }
    )
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = randomize_norms(model)(images)[1][0]
        after = fuse_detector(model)(images)[1][0]
    assert any(isinstance(module, SpaceToDepth) for module in model.modules())
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_layers_made_by_surgery_are_strided_again_once_fused():
    model = build_model("yolov5n", num_classes=2)
    model.model[1].conv = nn.Conv2d(16, 32, 3, 2, 1, groups=4, bias=False)
    replace_downsampling(randomize_norms(model))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for parameter in model.parameters():  # as fine-tuning would, also where the new weights are zero
            parameter.add_(0.01 * torch.randn_like(parameter))
        before = model(images)[1][0]
        after = fuse_detector(model)(images)[1][0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    kinds = [type(module) for module in model.modules()]
    assert SPDConv2d not in kinds
    assert kinds.count(StridedWindow) == 7


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_space_to_depth_and_a_convolution_equal_one_strided_convolution(kernel):
    x = torch.rand(2, 3, 12, 14, dtype=torch.float64)
    weight = torch.rand(4, 12, kernel, kernel, dtype=torch.float64)
    expected = nn.functional.conv2d(space_to_depth(x), weight, padding=kernel // 2)
    ours = nn.functional.conv2d(x, strided_weight(weight), stride=2, padding=kernel // 2 * 2)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_a_fused_spd_block_still_takes_odd_sizes():
    holder = build_model("yolov5n", num_classes=2, downsample="spd")
    block = holder.model[1]
    assert isinstance(block, SPDConv)
    x = torch.rand(1, 16, 7, 9)
    with torch.no_grad():
        before = randomize_norms(holder).model[1](x)
        after = fuse_detector(holder).model[1](x)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
