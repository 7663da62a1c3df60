"""ResNets equal the released ones in blocks, parameter counts and sizes, and take any downsampler."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from models import build_model, load_model
from models.checkpoint import save_checkpoint
from models.classification.model import ClassificationModel
from models.classification.reductions import make_reduction, reduction_names
from models.classification.resnet import Block, Bottleneck, ResNet
from models.detection_model import require_detector
from models.downsample.diffstride import DiffStride2d
from models.downsample.spd import Focus, space_to_depth
from models.downsample.spectral import SpectralPool2d
from models.load import to_checkpoint
from models.summary import count_parameters
from tests.golden_values import GOLDEN, assert_close
from utils.errors import UserError

PARAMETERS = {  # at 10 classes; those of the SPD networks are golden values, below
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet18-pre": 11_172_170,
    "resnet18-spectral": 11_172_170,
    "resnet18-diffstride": 11_172_178,  # two strides for each of four layers
    "resnet18-hybrid": 11_172_176,
}
# The reference's positions in its two branches -> ours.
BASIC = {"0": "conv1", "2": "bn1", "4": "conv2", "5": "bn2"}
BOTTLENECK = {"0": "conv1", "1": "bn1", "3": "conv2", "5": "bn2", "7": "conv3", "8": "bn3"}


@pytest.fixture(scope="module")
def released():
    with np.load(GOLDEN / "resnet_spd.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def weights_of(released, block, names):
    renamed = {}
    for key, value in released.items():
        if key.startswith(f"{block}__"):
            branch, position, leaf = key.removeprefix(f"{block}__").split(".")
            target = f"downsample.{position}" if branch == "shortcut" else names[position]
            renamed[f"{target}.{leaf}"] = value
    return renamed


@pytest.mark.parametrize(
    ("name", "kind", "channels", "names"),
    [("basic", Block, 12, BASIC), ("bottleneck", Bottleneck, 6, BOTTLENECK)],
)
def test_spd_blocks_are_the_released_ones(released, name, kind, channels, names):
    x = released[f"{name}_x"]
    block = kind(x.shape[1], channels, make_reduction("spd"), preactivation=False)
    block.load_state_dict(weights_of(released, name, names))
    with torch.no_grad():
        assert_close(block.eval()(x), released[f"{name}_y"], 1e-5)


def test_the_stem_is_the_released_focus(released):
    network = ResNet(2, Block, [1], [8, 8], [make_reduction("none", 1)] * 2, stem="focus")
    focus = network.stem[0]
    assert isinstance(focus, Focus)
    prefix = "focus__conv."
    weights = {k.removeprefix(prefix): v for k, v in released.items() if k.startswith(prefix)}
    focus.conv.load_state_dict(weights)
    with torch.no_grad():
        assert_close(focus.eval()(released["focus_x"]), released["focus_y"], 1e-5)
    assert torch.equal(space_to_depth(released["s2d_x"]), released["s2d_y"])


def test_spd_networks_have_the_released_parameters_and_sizes():
    facts = json.loads((GOLDEN / "resnet_spd.json").read_text(encoding="utf-8"))
    for key, expected in facts.items():
        network, _, classes = key.rpartition("_nc")
        model = build_model(network.split("_")[0] + "-spd", num_classes=int(classes))
        assert count_parameters(model) == expected["params"], key
        if classes == "10":
            with torch.no_grad():
                maps = model.eval().model.features(torch.rand(1, 3, 64, 64))
            assert [list(x.shape[1:]) for x in maps] == expected["feature_shapes_at_64px"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    model = build_model(name, num_classes=10)
    assert isinstance(model, ClassificationModel)
    assert count_parameters(model) == PARAMETERS[name]


def test_with_the_stem_for_imagenet_it_is_the_published_resnet18():
    yaml = {**build_model("resnet18").yaml, "nc": 1000, "stem": 7, "maxpool": True}
    yaml.update(downsample=["strided", "none", *["strided"] * 3], strides=[2, 1, 2, 2, 2])
    model = build_model(yaml)
    assert count_parameters(model) == 11_689_512
    assert model.model.features(torch.rand(2, 3, 64, 64))[-1].shape == (2, 512, 2, 2)


TINY = {
    "task": "classify",
    "nc": 3,
    "block": "basic",
    "depths": [1, 1],
    "widths": [8, 8, 16],
    "downsample": ["none", "none", "strided"],
}


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("name", reduction_names())
def test_every_downsampler_trains_in_every_block(name, block, preactivation):
    model = build_model(
        {**TINY, "block": block, "preactivation": preactivation, "downsample": ["none", "none", name]}
    )
    x = torch.rand(2, 3, 9, 14)
    side = {"none": [9, 14]}.get(name, [5, 7])
    assert list(model.model.features(x)[-1].shape[2:]) == side
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_pooling_before_the_shortcuts_convolution_equals_pooling_after_it():
    """DiffStride is published with the pooling after it; the two commute, and before is cheaper."""
    conv = nn.Conv2d(4, 6, 1, bias=False)
    x = torch.randn(2, 4, 12, 10)
    for name in ("avg", "blur", "spectral", "diffstride"):
        pool = make_reduction(name, fixed_grid=False).make()
        torch.testing.assert_close(conv(pool(x)), pool(conv(x)), rtol=1e-4, atol=1e-4)


def test_spectral_pooling_directly_before_global_average_pooling_only_rescales():
    x = torch.randn(4, 8, 8, 8)
    means = x.mean((2, 3))
    torch.testing.assert_close(SpectralPool2d()(x).mean((2, 3)), 4 * means, rtol=1e-4, atol=1e-5)
    for layer in (SpectralPool2d(fixed_grid=True), DiffStride2d(fixed_grid=True)):
        torch.testing.assert_close(layer(x).mean((2, 3)), means, rtol=1e-4, atol=1e-5)


def test_in_the_hybrid_diffstride_comes_first_and_spectral_pooling_last():
    network = build_model("resnet18-hybrid").model
    kinds = [type(m) for m in network.modules() if isinstance(m, DiffStride2d | SpectralPool2d)]
    assert kinds == [DiffStride2d] * 3 + [SpectralPool2d]
    assert isinstance(network.stem[1], DiffStride2d)
    assert isinstance(network.stages[-1][0].resample, SpectralPool2d)


def test_the_yaml_sets_the_strides():
    yaml = {**build_model("resnet18-diffstride").yaml, "strides": [1, 1, 3, 2, 3]}
    layers = [m for m in build_model(yaml).modules() if isinstance(m, DiffStride2d)]
    assert [layer.stride[0] for layer in layers] == [1, 3, 2, 3]


def test_downsample_swaps_every_shrinking_stage():
    model = build_model("resnet18", downsample="spectral")
    assert model.yaml["downsample"] == ["none", "none", "spectral", "spectral", "spectral"]
    assert count_parameters(model) == PARAMETERS["resnet18"]


@pytest.mark.parametrize("name", ["resnet18-spd", "resnet18-diffstride"])
def test_a_saved_classifier_loads_with_the_same_outputs(name, tmp_path):
    model = build_model(name, num_classes=2)
    model.names = ["cat", "dog"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    save_checkpoint(tmp_path / "last.pt", to_checkpoint(model))
    loaded = load_model(tmp_path / "last.pt")
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), model.eval()(x))
    assert (loaded.task, loaded.names, loaded.yaml) == ("classify", ["cat", "dog"], model.yaml)
    with pytest.raises(UserError, match=r"last.pt is no detector"):
        require_detector(loaded, "last.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": [1]}, "unknown key 'depth' of a classifier. Did you mean 'depths'?"),
        ({"nc": 0}, "nc, the number of classes, must be a whole number above 0, got 0"),
        ({"block": "basci"}, "unknown block 'basci'. Did you mean 'basic'?"),
        ({"stem": 4}, "stem must be an odd kernel or focus, got 4"),
        ({"maxpool": 1}, "maxpool must be true or false, got 1"),
        ({"depths": [1, 0]}, "depths and widths must be a whole number above 0, got 0"),
        ({"widths": [8, 8]}, "widths, channels of the stem, then of each stage, must be a list of 3 values"),
        ({"downsample": ["none", "spd"]}, "downsample, how the stem and then each stage shrink"),
        (
            {"downsample": ["none", "none", "sdp"]},
            "downsample of stage 2: unknown downsampler 'sdp'. Did you",
        ),
        ({"strides": [1, 1, 0.5]}, "downsample of stage 2: a stride must be at least 1, got 0.5"),
        ({"strides": [1, 2, 2]}, "downsample of stage 1: 'none' has stride 1, not 2"),
        ({"strides": [1, 1, 1.5]}, "'strided' takes whole strides, not 1.5"),
        ({"downsample": ["none", "none", "spd"], "strides": [1, 1, 3]}, "'spd' has stride 2, not 3"),
        ({"stem": "focus", "downsample": ["spd", "none", "spd"]}, "of the stem: a focus stem halves already"),
        ({"anchors": 3}, "unknown key 'anchors' of a classifier"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(change, message):
    with pytest.raises(UserError) as caught:
        build_model({**TINY, **change})
    assert message in str(caught.value)
    assert str(caught.value).startswith("model YAML: ")
