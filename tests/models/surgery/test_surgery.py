"""Surgery keeps the outputs of any network, replaces every layer or none, and survives a checkpoint."""

import copy

import pytest
import torch
from torch import nn

from models import build_model, fuse_detector, load_model, replace_downsampling
from models.checkpoint import save_checkpoint
from models.downsample.spd_conv2d import SPDConv2d, from_conv
from models.load import to_checkpoint
from models.surgery.compare import outputs_of, relative_difference
from tests.models.torchvision_stand_in import torchvision_importable
from utils.errors import UserError
from utils.ultralytics_adapter import load

SHAPES = [  # kernel, padding, stride, cells
    (1, 0, 2, 1),
    (2, 0, 2, 1),
    (2, 1, 2, 2),
    (3, 0, 2, 2),
    (3, 1, 2, 2),
    (3, 2, 2, 2),
    (4, 1, 2, 3),
    (5, 2, 2, 3),
    (6, 2, 2, 3),
    (7, 3, 2, 4),
    ((3, 5), (1, 2), 2, (2, 3)),
    (4, 0, 4, 1),
    (7, 3, 4, 2),
    (3, 1, 3, 2),
]


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize(("kernel", "padding", "stride", "cells"), SHAPES)
def test_any_strided_convolution_is_an_spd_layer(kernel, padding, stride, cells, groups):
    conv = nn.Conv2d(6, 12, kernel, stride, padding, groups=groups).double()
    layer = from_conv(conv)
    assert layer.kernel_size == (cells if isinstance(cells, tuple) else (cells, cells))
    for height, width in [(12, 16), (13, 11), (7, 14), (8, 9)]:
        x = torch.randn(2, 6, height, width, dtype=torch.float64)
        torch.testing.assert_close(layer(x), conv(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("groups", [1, 3])
def test_its_strided_weight_is_the_weight_it_embeds(groups):
    conv = nn.Conv2d(6, 12, 6, 2, 2, groups=groups)
    torch.testing.assert_close(from_conv(conv).strided_weight(), conv.weight)


def test_average_pooling_becomes_an_equal_convolution_and_max_pooling_one_of_its_size():
    x = torch.rand(1, 4, 12, 13)
    for pool in (nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, divisor_override=5)):
        model = nn.Sequential(nn.Identity(), copy.deepcopy(pool))
        replace_downsampling(model, example=x)
        torch.testing.assert_close(model(x), pool(x), rtol=1e-5, atol=1e-6)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    shape = model(x).shape
    replace_downsampling(model, preserve=False, example=x)
    assert isinstance(model[1], SPDConv2d)
    assert model(x).shape == shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_poolings_are_replaced_in_the_precision_of_the_network(dtype):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AvgPool2d(2), nn.Conv2d(8, 4, 1)).to(dtype)
    x = torch.rand(1, 3, 16, 16, dtype=dtype)
    before = model(x)
    replace_downsampling(model)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    torch.testing.assert_close(model(x), before)


def test_poolings_are_replaced_on_the_device_of_the_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(2)).to("meta")
    replace_downsampling(model)
    assert isinstance(model[1], SPDConv2d) and model[1].weight.device.type == "meta"


def randomized(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def difference_after_surgery(model, size=64, **options):
    """Operate; return the relative difference of the outputs, and the report."""
    x = torch.rand(1, 3, size, size, dtype=next(model.parameters()).dtype)
    before = outputs_of(randomized(model), x)
    assert all(tensor.isfinite().all() for tensor in before)
    report = replace_downsampling(model, example=x, **options)
    return relative_difference(before, outputs_of(model, x)), report


OURS = {"yolov5n-p2": 8, "resnet18": 6, "resnet18-pre": 6}


@pytest.mark.parametrize("name", OURS)
def test_our_networks_compute_the_same(name):
    difference, report = difference_after_surgery(build_model(name, num_classes=3))
    assert difference < 1e-4
    assert len(report.replaced) == OURS[name]
    assert report.parameters[1] > report.parameters[0]
    assert report.flops[1] > report.flops[0]


TIMM = {"resnet50": 7, "convnext_atto": 4, "efficientnet_b0": 5, "regnety_002": 9}


@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm_compute_the_same(name):
    pytest.importorskip("PIL")
    with torchvision_importable():
        timm = pytest.importorskip("timm")
    difference, report = difference_after_surgery(timm.create_model(name), skip=True)
    assert difference < 1e-4
    assert len(report.replaced) == TIMM[name]
    left = [layer.kind for layer in report.layers if layer.reason]
    assert left == (["MaxPool2d k3 s2"] if name == "resnet50" else [])


ULTRALYTICS = {"yolov8n": 7, "yolo11n": 7, "yolo26n": 7, "rtdetr-l": 7}


@pytest.mark.parametrize("name", ULTRALYTICS)
def test_networks_of_ultralytics_compute_the_same_and_train(name):
    with torchvision_importable():
        tasks = load("ultralytics.nn.tasks")
        kind = tasks.RTDETRDetectionModel if name.startswith("rtdetr") else tasks.DetectionModel
        model = kind(f"{name}.yaml", verbose=False)
        if name.startswith("rtdetr"):
            model.double()  # it sorts its queries by score: in float32 rounding can swap two
        difference, report = difference_after_surgery(model)
    assert difference < 1e-4
    assert len(report.replaced) == ULTRALYTICS[name]
    if name == "yolo11n":
        x = torch.rand(1, 3, 64, 64)
        rewritten = copy.deepcopy(model).fuse(verbose=False)
        fused = relative_difference(outputs_of(model, x), outputs_of(rewritten, x))
        assert fused < 1e-4
        sum(m.square().mean() for m in model.train()(x)["boxes"].unsqueeze(0)).backward()
        weight = model.get_submodule(report.replaced[0]).weight
        assert (weight.grad != 0).float().mean() > 0.9  # also where it starts at zero


def test_surgery_survives_a_checkpoint_and_new_weights_learn(tmp_path):
    model = build_model("resnet18", num_classes=2)
    replace_downsampling(model, where="model.stages.1.*")
    replace_downsampling(model, where=["model.stages.3.0.conv1"])
    model.train()(torch.rand(2, 3, 16, 16)).square().sum().backward()
    weight = model.model.stages[1][0].conv1.weight
    assert (weight.grad != 0).all()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(0.01 * parameter.grad)
    save_checkpoint(tmp_path / "tuned.pt", to_checkpoint(model))
    loaded = load_model(tmp_path / "tuned.pt")
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(outputs_of(loaded, x)[0], outputs_of(model, x)[0])
    assert len(loaded.yaml["surgery"]) == 2


def test_names_hooks_modes_and_layout_survive():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, 2, 1, bias=False))
    model.to(memory_format=torch.channels_last).half()
    model[0].weight.requires_grad_(False)
    model[2].eval()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    keys = list(model.state_dict())
    replace_downsampling(model.float())
    calls.clear()
    model(torch.rand(1, 3, 8, 8))
    assert calls == ["forward"]
    assert list(model.state_dict()) == keys
    assert [module.training for module in model] == [True, True, False]
    assert not model[0].weight.requires_grad
    assert model[2].weight.requires_grad
    assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(UserError, match="no strided convolution or pooling to replace"):
        replace_downsampling(model)


def test_a_layer_under_two_names_stays_one_layer():
    conv = nn.Conv2d(3, 3, 3, 2, 1)
    model = nn.ModuleDict({"a": conv, "b": conv, "both": nn.Sequential(conv, nn.ReLU(), conv)})
    model.forward = model["both"].forward
    x = torch.rand(1, 3, 16, 16)
    expected = model.forward(x)
    replace_downsampling(model, example=x)
    assert model["a"] is model["b"] is model["both"][0]
    torch.testing.assert_close(model.forward(x), expected, rtol=1e-5, atol=1e-6)


def tied():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 1, 1))
    model[1].weight = model[0].weight
    return model


class OwnConv(nn.Conv2d):
    pass


OBSTACLES = [
    (nn.Sequential(nn.Conv2d(3, 3, 3, 2, 2, dilation=2)), "0 (Conv2d k3 s2): dilation (2, 2)"),
    (nn.Sequential(nn.Conv2d(3, 3, 3, (2, 1), 1)), "the strides (2, 1) differ"),
    (nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1, padding_mode="reflect")), "padding mode 'reflect'"),
    (nn.Sequential(OwnConv(3, 3, 3, 2, 1)), "OwnConv computes in a way of its own"),
    (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, 2))),
        "computes in a way of its own",
    ),
    (nn.Sequential(nn.Conv2d(3, 3, 3, 1), nn.MaxPool2d(2)), "max pooling is no convolution"),
    (nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "windows at the border average fewer"),
    (nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)), "with ceil_mode the last window"),
    (nn.Conv2d(3, 3, 3, 2), "it is the whole network"),
    (tied(), "its weight is shared by "),
]


@pytest.mark.parametrize(("model", "message"), OBSTACLES, ids=[message for _, message in OBSTACLES])
def test_a_layer_that_cannot_be_replaced_is_named_and_nothing_changes(model, message):
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), model) if isinstance(model, nn.Sequential) else model
    modules = list(model.modules())
    with pytest.raises(UserError) as caught:
        replace_downsampling(model)
    assert message in str(caught.value)
    assert list(model.modules()) == modules
    if isinstance(model, nn.Sequential):
        report = replace_downsampling(model, skip=True)
        assert report.replaced[0] == "0"
        assert "left: " in str(report)


@pytest.mark.parametrize(
    "conv", [torch.ao.nn.quantized.Conv2d(3, 3, 3, 2), torch.ao.nn.intrinsic.quantized.ConvReLU2d(3, 3, 3, 2)]
)
def test_quantized_convolutions_are_refused_by_name(conv):
    name = type(conv).__name__
    with pytest.raises(
        UserError, match=rf"0 \({name} k3 s2\): torch.ao.nn.*quantized.*computes in a way of its own"
    ):
        model = nn.Sequential(conv)
        model.forward = lambda x: x
        replace_downsampling(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "blur"}, "surgery makes 'spd', not 'blur'"),
        ({"where": "up"}, "up is a ConvTranspose2d, which does not downsample"),
        ({"where": "dwon"}, "no downsampling layer is called 'dwon'. Did you mean 'down'?"),
        ({"where": lambda name, module: False}, "no strided convolution or pooling to replace"),
        ({"example": torch.rand(1, 4, 8, 8)}, "does not run on the example (1, 4, 8, 8): "),
    ],
)
def test_a_wrong_request_is_named(options, message):
    model = nn.Sequential()
    model.add_module("down", nn.Conv2d(3, 3, 3, 2, 1))
    model.add_module("up", nn.ConvTranspose2d(3, 3, 2, 2))
    with pytest.raises(UserError) as caught:
        replace_downsampling(model, **options)
    assert message in str(caught.value)


def test_a_fused_network_and_a_wrong_record_are_refused():
    with pytest.raises(UserError, match="replace its downsampling before it is fused"):
        replace_downsampling(fuse_detector(build_model("yolov5n", num_classes=2)))
    yaml = build_model("resnet18").yaml
    with pytest.raises(UserError, match="surgery must be a list of steps"):
        build_model({**yaml, "surgery": "spd"})
    with pytest.raises(UserError, match="no downsampling layer is called 'nowhere'"):
        build_model({**yaml, "surgery": [{"to": "spd", "layers": ["nowhere"]}]})
