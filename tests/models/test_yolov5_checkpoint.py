"""Checkpoints for YOLOv5's own code: what its files hold, and nothing that it does not know."""

from __future__ import annotations

import copy
import os
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from models import build_model, load_model, replace_downsampling
from models.architecture import read_architecture
from models.checkpoint import read_checkpoint
from models.detection_model import DetectionModel
from models.fuse import fuse_detector
from models.registry import BLOCKS
from models.yolov5_architecture import yolov5_architecture
from models.yolov5_checkpoint import save_yolov5_checkpoint
from tests.golden_values import GOLDEN
from tests.models.yolov5_stand_ins import load_as_yolov5, read_attributes
from utils.errors import UserError

# All that a written pickle may name: YOLOv5's classes, PyTorch's modules, and what tensors are made of.
ALLOWED = {
    *(f"models.yolo {name}" for name in ("Model", "Detect")),
    *(
        f"models.common {name}"
        for name in (
            *("Conv", "Bottleneck", "C3", "SPP", "SPPF", "Concat", "Focus", "space_to_depth", "Contract"),
            *("Expand", "GhostConv", "GhostBottleneck", "C3Ghost", "BottleneckCSP", "CrossConv", "C3x"),
            *("C3SPP", "C3TR", "TransformerBlock", "TransformerLayer"),
        )
    ),
    *(
        f"torch.nn.modules.{name}"
        for name in (
            *("container Sequential", "container ModuleList", "conv Conv2d", "conv ConvTranspose2d"),
            *("batchnorm BatchNorm2d", "activation SiLU", "activation ReLU", "activation MultiheadAttention"),
            *("linear Linear", "linear NonDynamicallyQuantizableLinear", "linear Identity"),
            *("pooling MaxPool2d", "upsampling Upsample", "padding ZeroPad2d"),
        )
    ),
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"),
    *("torch HalfStorage", "torch FloatStorage", "torch LongStorage", "__builtin__ set"),
}
P6 = {
    "nc": 2,
    "depth_multiple": 0.33,
    "width_multiple": 0.25,
    "anchors": [[19, 27, 44, 40], [96, 68, 86, 152], [140, 301, 303, 264], [436, 615, 739, 380]],
    "backbone": [
        *([-1, 1, "Conv", [64, 6, 2, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]]),
        *([-1, 3, "C3", [64]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]]),
        *([-1, 1, "Conv", [64, 3, 2]], [-1, 1, "SPPF", [64, 5]]),
    ],
    "head": [[[3, 4, 5, -1], 1, "Detect", ["nc", "anchors"]]],
}
EVERY_BLOCK = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "activation": "nn.ReLU()",
    "backbone": [
        *([-1, 1, "Focus", [8, 3]], [-1, 1, "Conv", [16, 3, 1]], [-1, 1, "space_to_depth", [1]]),
        *([-1, 1, "SpaceToDepth", [1]], [-1, 1, "Conv", [16]], [-1, 2, "C3", [16]]),
        *([-1, 1, "DWConv", [16, 3]], [-1, 2, "Bottleneck", [16]], [-1, 1, "GhostConv", [16]]),
        *([-1, 1, "GhostBottleneck", [16]], [-1, 2, "C3Ghost", [16, False]], [-1, 2, "BottleneckCSP", [16]]),
        *([-1, 2, "C3x", [16]], [-1, 1, "C3SPP", [16]], [-1, 1, "CrossConv", [16, 3, 1, 1, 1.0, True]]),
        *([-1, 1, "C3TR", [16]], [-1, 1, "SPP", [16]], [-1, 1, "Contract", [2]], [-1, 1, "Expand", [2]]),
        *([-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]], [-1, 1, "nn.MaxPool2d", [2, 1]]),
    ],
    "head": [
        *([-1, 1, "SPPF", [16, 5]], [-1, 1, "nn.ConvTranspose2d", [16, 2, 2]]),
        *([-2, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 22], 1, "Concat", [1]]),
        *([-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Upsample", [None, 2, "nearest"]]),
        *([-1, 1, "Downsample", [16, "strided"]], [[24, 27], 1, "Detect", ["nc", "anchors"]]),
    ],
}


def narrow(name: str, **options):
    """A built-in network with a sixteenth of the channels."""
    return build_model({**read_architecture(name), "width_multiple": 1 / 16}, num_classes=2, **options)


NETWORKS = {
    "yolov5n": lambda: load_model(GOLDEN / "yolov5n.pt"),
    "yolov5n_spd": lambda: load_model(GOLDEN / "yolov5n_spd.pt"),
    "yolov5n-p2": lambda: narrow("yolov5n-p2"),
    "p6": lambda: build_model(P6),
    "strided by --downsample": lambda: narrow("yolov5n", downsample="strided"),
    "every block": lambda: build_model(EVERY_BLOCK),
}


def network(name: str) -> DetectionModel:
    """In eval mode, as it is after a way through 16 bits, with statistics in every BatchNorm."""
    model = NETWORKS[name]()
    assert isinstance(model, DetectionModel)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return model.half().float().eval()


def globals_of(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        operations = list(pickletools.genops(archive.read(member)))
    assert not {"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"} & {code.name for code, _, _ in operations}
    return {argument for code, argument, _ in operations if code.name == "GLOBAL"}


@pytest.fixture(scope="module", params=NETWORKS)
def written(request, tmp_path_factory) -> tuple[DetectionModel, Path]:
    model, path = network(request.param), tmp_path_factory.mktemp("yolov5") / "network.pt"
    save_yolov5_checkpoint(path, model, {"box": 0.05, "obj": 1.0}, {"imgsz": 64})
    return model, path


IMAGES = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(1))


def test_what_is_written_is_read_back_to_an_equal_network(written):
    model, path = written
    loaded = load_model(path)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert loaded.names == model.names
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES)[0], model(IMAGES)[0])
    assert read_checkpoint(path)["hyp"] == {"box": 0.05, "obj": 1.0}


def test_modules_that_know_only_the_pickle_give_the_same_output(written):
    """As YOLOv5 would run it: layer by layer, with `f` and `save`, in its own classes."""
    model, path = written
    content = load_as_yolov5(path)
    theirs = content["model"]
    with torch.no_grad():
        decoded, raw = theirs(IMAGES)
        ours, maps = model(IMAGES)
    for level, expected in zip(raw, maps, strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoded, ours, atol=1e-3, rtol=1e-5)
    assert (content["epoch"], content["ema"], content["optimizer"]) == (-1, None, None)
    assert (theirs.names, theirs.nc, theirs.inplace) == (model.names, model.head.nc, True)
    assert torch.equal(theirs.stride, model.stride)
    assert not any(parameter.requires_grad for parameter in theirs.parameters())


def test_the_pickle_names_nothing_but_classes_of_yolov5_and_pytorch(written):
    assert globals_of(written[1]) <= ALLOWED


def test_every_block_that_a_yaml_may_name_is_written():
    rows = EVERY_BLOCK["backbone"] + EVERY_BLOCK["head"]
    assert {row[2] for row in rows} == set(BLOCKS) - {"AnchorFreeDetect"}  # which YOLOv5 does not have


def test_the_yaml_builds_the_same_network_by_yolov5s_names_alone(written):
    model, path = written
    architecture = load_as_yolov5(path)["model"].yaml
    rows = architecture["backbone"] + architecture["head"]
    assert not {"Downsample", "Upsample", "SpaceToDepth"} & {row[2] for row in rows}
    assert set(architecture) <= {
        *("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "ch", "activation")
    }
    again = build_model(architecture).eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(IMAGES)[0], model(IMAGES)[0])


OFFICIAL = Path(os.environ.get("YOLOV5_SPD_DATA", "no measuring data")) / "weights" / "yolov5n.pt"
needs_official = pytest.mark.skipif(
    not OFFICIAL.is_file(), reason="YOLOV5_SPD_DATA has no weights/yolov5n.pt"
)
ITS_FILES = [
    GOLDEN / "yolov5n.pt",
    GOLDEN / "yolov5n_spd.pt",
    pytest.param(OFFICIAL, marks=needs_official, id="official"),
]
# What YOLOv5's own files hold and ours do not, and why.
LEFT_OUT = {
    "yaml_file": "only of networks built from a file; YOLOv5 asks whether it is there",
    "class_weights": "statistics of the training set; YOLOv5 sets them before it reads them",
    "gr": "of YOLOv5 before v6.0; nothing has read it since",
    **{key: "PyTorch adds it as it loads a module" for key in vars(nn.Module()) if key.endswith("hooks")},
    "_forward_hooks_with_kwargs": "likewise",
    "_forward_hooks_always_called": "likewise",
    "_forward_pre_hooks_with_kwargs": "likewise",
}
NOT_COMPARED = {
    *("training", "grid", "anchor_grid", "inplace", "stride"),  # set anew as YOLOv5 loads it
    *("names", "hyp"),  # in a test of their own
}


@pytest.mark.parametrize("path", ITS_FILES)
def test_classes_and_attributes_are_those_of_yolov5s_own_files(path, tmp_path):
    save_yolov5_checkpoint(tmp_path / "ours.pt", load_model(path))
    theirs, ours = read_attributes(path), read_attributes(tmp_path / "ours.pt")
    assert list(theirs) == list(ours)
    for where, (kind, attributes) in theirs.items():
        our_kind, written = ours[where]
        assert our_kind == kind.replace("DetectionModel", "Model"), where
        assert set(attributes) - set(written) <= set(LEFT_OUT), where
        for key in set(attributes) & set(written) - NOT_COMPARED:
            if key[0] != "_":
                assert written[key] == attributes[key], f"{where}.{key}"
        for kind_of in ("_parameters", "_buffers"):
            # the buffer of YOLOv5 before v6.0, for which later versions have the list that is written
            assert set(attributes[kind_of]) - set(written[kind_of]) <= {"anchor_grid"}
            for key, value in written[kind_of].items():
                if value is None:
                    assert attributes[kind_of][key] is None
                else:
                    assert torch.equal(value, attributes[kind_of][key]), f"{where}.{key}"
                    assert value.dtype == attributes[kind_of][key].dtype


@pytest.mark.parametrize("path", ITS_FILES)
def test_yaml_names_and_hyperparameters_come_back_as_they_were(path, tmp_path):
    content = read_checkpoint(path)
    save_yolov5_checkpoint(tmp_path / "ours.pt", load_model(path), content["hyp"])
    theirs, ours = (read_attributes(file)[""][1] for file in (path, tmp_path / "ours.pt"))
    assert ours["yaml"] == theirs["yaml"] and ours["hyp"] == theirs["hyp"]
    assert ours["names"] == content["names"] and ours["save"] == theirs["save"]
    assert type(ours["yaml"]["anchors"][0][0]) is int


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_model(P6, downsample="spd"), "layer 1 downsamples by 'spd', which YOLOv5's"),
        (lambda: build_model(P6, downsample="spectral"), "layer 1 downsamples by 'spectral'"),
        (lambda: build_model(P6, downsample="diffstride"), "layer 1 downsamples by 'diffstride'"),
    ],
)
def test_networks_that_yolov5_cannot_build_are_refused_by_name(make, message, tmp_path):
    with pytest.raises(UserError, match=message):
        save_yolov5_checkpoint(tmp_path / "no.pt", make())
    assert not list(tmp_path.iterdir())


def test_networks_after_surgery_are_refused(tmp_path):
    model = build_model(P6)
    replace_downsampling(model, "spd", preserve=True)
    with pytest.raises(UserError, match="layers were replaced by surgery"):
        save_yolov5_checkpoint(tmp_path / "no.pt", model)


def test_values_that_16_bits_cannot_hold_are_named(tmp_path):
    model = build_model(P6)
    model.model[0].bn.running_var[0] = 1e6
    with pytest.raises(UserError, match=r"model.0.bn.running_var has values above 65,504"):
        save_yolov5_checkpoint(tmp_path / "no.pt", model)


def test_a_fused_network_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="before it is fused"):
        save_yolov5_checkpoint(tmp_path / "no.pt", fuse_detector(build_model(P6)))


def test_a_cap_of_channels_goes_into_the_rows():
    capped = {**copy.deepcopy(P6), "max_channels": 32}
    architecture = yolov5_architecture(build_model(capped).yaml)
    assert "max_channels" not in architecture
    assert {row[3][0] for row in architecture["backbone"]} == {32}
    shapes = [
        {key: v.shape for key, v in build_model(y).state_dict().items()} for y in (capped, architecture)
    ]
    assert shapes[0] == shapes[1]


def test_the_network_that_was_written_is_unchanged(tmp_path):
    model = network("p6")
    before = copy.deepcopy(model.state_dict())
    save_yolov5_checkpoint(tmp_path / "a.pt", model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.yaml["anchors"] == build_model(P6).yaml["anchors"]
