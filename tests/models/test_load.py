import collections
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models import build_model, fuse_detector, load_model, transfer_weights
from models.checkpoint import read_checkpoint, save_checkpoint
from models.load import from_checkpoint, to_checkpoint
from tests.golden_values import GOLDEN, NETWORKS
from utils.errors import UserError


@pytest.fixture(scope="module")
def released():
    return read_checkpoint(GOLDEN / "yolov5n_spd.pt")


@pytest.mark.parametrize("network", NETWORKS)
def test_loading_a_reference_checkpoint_imports_nothing_it_names(network):
    before = set(sys.modules)
    model = load_model(GOLDEN / f"{network}.pt")
    assert not {"models.yolo", "models.common"} & (set(sys.modules) - before)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_saved_model_loads_with_the_same_outputs(tmp_path):
    model = build_model("yolov5n", num_classes=2, downsample="spd")
    model.names = ["tree", "car"]
    model.set_anchors(torch.rand(3, 3, 2) * 50 + 5)
    save_checkpoint(tmp_path / "last.pt", {**to_checkpoint(model), "epoch": 3})
    loaded = load_model(tmp_path / "last.pt")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images)[0], model.eval()(images)[0])
    assert loaded.names == ["tree", "car"]
    assert loaded.yaml == model.yaml


def test_a_fused_model_is_not_saved():
    with pytest.raises(ValueError, match="before it is fused"):
        to_checkpoint(fuse_detector(build_model("yolov5n", num_classes=2)))


def _change(content, **changes):
    return {**content, **changes}


def test_a_checkpoint_that_does_not_fit_is_one_line(released):
    weights = dict(released["weights"])
    missing = {key: value for key, value in weights.items() if key != "model.3.cv1.conv.weight"}
    cases = [
        ({"weights": missing}, "model.3.cv1.conv.weight is missing"),
        ({"weights": {**weights, "model.99.bias": torch.ones(1)}}, "there is no place for model.99.bias"),
        (
            {"model": {**released["model"], "nc": 6}},
            "model.30.m.0.weight is (30, 64, 1, 1), and should be (33, 64",
        ),
        ({"names": ["one"]}, "1 names for 5 classes"),
        ({"model": {"nc": 5}}, "its architecture cannot be built: model YAML: 'backbone' must be"),
    ]
    for change, message in cases:
        with pytest.raises(UserError) as caught:
            from_checkpoint(_change(released, **change), "some.pt")
        assert str(caught.value).startswith("some.pt: ")
        assert message in str(caught.value)


def test_anchor_grids_of_older_checkpoints_are_left_out(released):
    weights = {**released["weights"], "model.30.anchor_grid": torch.ones(3, 1, 3, 1, 1, 2)}
    assert "model.30.anchor_grid" not in from_checkpoint(_change(released, weights=weights)).state_dict()


def test_transfer_copies_the_tensors_that_fit_and_keeps_the_new_head(released):
    model = build_model("yolov5n-spd", num_classes=3)
    anchors, head = model.head.anchors.clone(), model.head.m[0].weight.detach().clone()
    copied, total = transfer_weights(model, released["weights"])
    state = model.state_dict()
    assert (copied, total) == (
        len(state) - 7,
        len(state),
    )  # all but three heads' weights, biases, the anchors
    assert torch.equal(
        state["model.3.cv1.conv.weight"], released["weights"]["model.3.cv1.conv.weight"].float()
    )
    assert torch.equal(model.head.anchors, anchors)
    assert torch.equal(model.head.m[0].weight, head)


def write_pickled(path, payload):
    """Write a torch-style zip whose pickle is `payload`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def call(module, name, argument):
    """A protocol-2 pickle that calls module.name(argument) when it is loaded."""
    text = argument.encode()
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"X"
        + len(text).to_bytes(4, "little")
        + text
        + b"\x85R."
    )


@pytest.mark.parametrize(
    ("module", "name", "shown"),
    [
        ("os", "system", "os.system"),
        ("posix", "system", "posix.system"),
        ("builtins", "eval", "builtins.eval"),
        ("__builtin__", "exec", "builtins.exec"),
        ("torch.hub", "load", "torch.hub.load"),
        ("torch.nn.modules.module", "register_module_forward_hook", "torch.nn.modules.module.register"),
        ("runpy", "run_path", "runpy.run_path"),
        ("models.common", "os.system", "models.common.os.system"),
        ("utils.general", "check_requirements", "utils.general.check_requirements"),
        ("numpy.core.multiarray", "fromfile", "numpy.core.multiarray.fromfile"),
    ],
)
def test_a_planted_global_is_refused_by_name_and_not_run(tmp_path, module, name, shown):
    target = tmp_path / "ran"
    write_pickled(tmp_path / "evil.pt", call(module, name, f"touch {target}"))
    with pytest.raises(UserError, match=r"evil.pt is refused: it names ") as caught:
        load_model(tmp_path / "evil.pt")
    assert shown in str(caught.value)
    assert not target.exists()


def test_a_planted_global_inside_a_real_checkpoint_is_refused(tmp_path):
    evil, ran = tmp_path / "evil.pt", tmp_path / "ran"
    with zipfile.ZipFile(GOLDEN / "yolov5n.pt") as source, zipfile.ZipFile(evil, "w") as archive:
        for name in source.namelist():
            payload = source.read(name)
            archive.writestr(name, payload.replace(b"ctorch.nn.modules.activation\nSiLU\n", b"cos\nsystem\n"))
    with pytest.raises(UserError, match=r"it names os.system, and loading would run that code"):
        load_model(evil)
    assert not ran.exists()


def test_a_network_class_that_is_called_does_nothing(tmp_path):
    write_pickled(tmp_path / "called.pt", call("models.common", "Conv", "x"))
    with pytest.raises(UserError, match="holds no YOLOv5 network"):
        load_model(tmp_path / "called.pt")


class Planted:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_planted_global_is_named_whatever_the_pickle_protocol(tmp_path, protocol):
    content = {"model": Planted(tmp_path / "ran"), "again": Planted(tmp_path / "ran")}
    torch.save(content, tmp_path / "evil.pt", pickle_protocol=protocol)
    with pytest.raises(UserError, match=r"refused: it names (posix|nt).mkdir, and"):
        load_model(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_an_unsupported_pickle_is_one_line(tmp_path):
    write_pickled(tmp_path / "new.pt", pickle.dumps(collections.OrderedDict(a=1), protocol=4))
    with pytest.raises(UserError, match=r"new.pt is damaged and cannot be read: Unsupported operand"):
        load_model(tmp_path / "new.pt")


def test_options_and_metrics_of_unfinished_training_are_read(tmp_path):
    left = {"best_fitness": np.float64(0.3), "opt": {"save_dir": Path("runs")}, "array": np.ones(2)}
    torch.save({"model": torch.nn.Identity(), **left}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="holds no YOLOv5 network"):  # it was read to the end
        load_model(tmp_path / "last.pt")


def test_an_ultralytics_checkpoint_is_named_as_one(tmp_path):
    write_pickled(tmp_path / "yolov8n.pt", call("ultralytics.nn.tasks", "DetectionModel", "x"))
    with pytest.raises(
        UserError, match=r"yolov8n.pt is a checkpoint of the ultralytics package, not of YOLOv5"
    ):
        load_model(tmp_path / "yolov8n.pt")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["models.yolo.SegmentationModel", "models.yolo.Segment"], "segmentation"),
        (
            [
                "models.yolo.ClassificationModel",
                "torchvision.transforms.transforms.Compose",
                "utils.augmentations.CenterCrop",
            ],
            "classification",
        ),
        (["torchvision.models.resnet.ResNet", "torchvision.models.resnet.Bottleneck"], "classification"),
    ],
)
def test_other_checkpoints_of_yolov5_are_refused_as_what_they_are(tmp_path, names, kind):
    globals_ = b"".join(b"c%s\n%s\n0" % tuple(n.encode() for n in name.rsplit(".", 1)) for name in names)
    write_pickled(tmp_path / "best.pt", b"\x80\x02" + globals_ + b"}.")
    with pytest.raises(UserError, match=f"best.pt is a YOLOv5 {kind} checkpoint; YOLOv5's detectors are"):
        load_model(tmp_path / "best.pt")
    write_pickled(tmp_path / "evil.pt", b"\x80\x02" + globals_ + b"cos\nsystem\n0}.")
    with pytest.raises(UserError, match=r"evil.pt is refused: it names os.system"):
        load_model(tmp_path / "evil.pt")


def test_names_may_be_a_dict_or_a_list(released):
    assert (
        read_checkpoint(GOLDEN / "yolov5n.pt")["names"]
        == released["names"]
        == [f"class{i}" for i in range(5)]
    )
