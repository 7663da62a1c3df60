"""Ultralytics' own engine trains, validates, predicts and exports networks with our downsampling.

The last tests pin all that models/ultralytics_bridge.py relies on: an upgrade that breaks it fails here.
"""

from __future__ import annotations

import copy
import inspect
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models import load_model, replace_downsampling
from models.downsample.pooling import BlurPool2d
from models.downsample.spd import space_to_depth
from models.downsample.spd_conv2d import SPDConv2d
from models.surgery.compare import outputs_of, relative_difference
from models.ultralytics_bridge import FORMER_NAME, enable, swap_downsampling
from tests.models.torchvision_stand_in import torchvision_importable
from utils.errors import UserError
from utils.ultralytics_adapter import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def yolo():
    """Ultralytics' YOLO, with the bridge, where torchvision can be imported."""
    with torchvision_importable():
        enable()
        yield load("ultralytics.models.yolo.model").YOLO


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four images of a bright square."""
    root = tmp_path_factory.mktemp("squares")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for index in range(4):
        image = np.full((64, 64, 3), 40, np.uint8)
        image[8 * index : 8 * index + 24, 20:44] = 220
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        (root / "labels" / f"{index}.txt").write_text(f"0 .5 {(8 * index + 12) / 64} .375 .375\n")
    path = root / "data.yaml"
    path.write_text(json.dumps({"path": str(root), "train": "images", "val": "images", "names": ["square"]}))
    return path


def train(network, data, folder):
    network.train(
        data=data,
        epochs=1,
        batch=4,
        imgsz=64,
        workers=0,
        device="cpu",
        plots=False,
        project=folder,
        name="run",
    )
    return folder / "run" / "weights" / "best.pt"


@pytest.fixture(scope="module")
def trained(yolo, data, tmp_path_factory):
    """Best checkpoint of their trainer for yolo11n-spd, and the YOLO that was trained."""
    network = yolo("yolo11n-spd.yaml")
    return train(network, data, tmp_path_factory.mktemp("spd")), network


def spd_layers(model):
    return [module for module in model.modules() if isinstance(module, SPDConv2d)]


NEW_PROCESS = """
import os, socket, sys
def refuse(*args, **kwargs):
    os._exit(9)

socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["torchvision"] = None
import torch
from models.ultralytics_bridge import enable
enable()
from ultralytics import YOLO
weights, saved = sys.argv[1:]
network = YOLO(weights)
rebuilt = type(network.model)(network.model.yaml, nc=1, verbose=False)
rebuilt.load_state_dict(network.model.state_dict())
x = torch.full((1, 3, 64, 64), 0.5)
torch.save([network.model.eval()(x)[0], rebuilt.eval()(x)[0]], saved)
"""


def test_their_checkpoint_loads_in_a_new_process_without_torchvision_or_network(trained, tmp_path):
    weights, network = trained
    done = subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, weights, tmp_path / "out.pt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "engine cannot run here, because torchvision cannot be imported: " in done.stdout
    expected = network.model.eval()(torch.full((1, 3, 64, 64), 0.5))[0]
    for output in torch.load(tmp_path / "out.pt"):
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


IMPORTED = """
import sys
import models.ultralytics_bridge as bridge
assert "ultralytics" not in sys.modules, "imported"
from utils.ultralytics_adapter import load
tasks, model = load("ultralytics.nn.tasks"), load("ultralytics.engine.model")
before = tasks.yaml_model_load, tasks.parse_model, model.yaml_model_load
assert not any(hasattr(function, "__wrapped__") for function in before), "wrapped by the import"
bridge.enable()
after = tasks.yaml_model_load, tasks.parse_model, model.yaml_model_load
assert [function.__wrapped__ for function in after] == list(before), "wrapped once"
bridge.enable()
assert after == (tasks.yaml_model_load, tasks.parse_model, model.yaml_model_load), "wrapped again"
"""


def test_importing_the_bridge_changes_nothing_and_enabling_it_twice_is_enabling_it_once():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


READ = """
import sys
import torch
from utils.ultralytics_adapter import load
tasks = load("ultralytics.nn.tasks")
network = torch.load(sys.argv[1], weights_only=False)["model"]
assert hasattr(tasks.parse_model, "__wrapped__"), "not enabled"
rebuilt = type(network)(network.yaml, verbose=False)
assert rebuilt.state_dict().keys() == network.state_dict().keys()
assert sum(type(m).__name__ == "SPDConv2d" for m in rebuilt.modules()) == 7
"""


def test_reading_a_checkpoint_enables_the_bridge_so_that_it_is_built_again_as_it_was(trained):
    done = subprocess.run(
        [sys.executable, "-c", READ, trained[0]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_checkpoint_written_under_the_former_name_loads(yolo, trained, tmp_path):
    payload = trained[0].read_bytes()
    assert FORMER_NAME in sys.modules
    content = torch.load(trained[0], weights_only=False)
    bridge = type(vars(content["model"].model)["bridge"])
    module, bridge.__module__ = bridge.__module__, FORMER_NAME
    try:
        torch.save(content, tmp_path / "former.pt")
    finally:
        bridge.__module__ = module
    written = (tmp_path / "former.pt").read_bytes()
    assert b"models.ultralytics\nBridge" in written and b"models.ultralytics_bridge\nBridge" in payload
    assert len(spd_layers(yolo(tmp_path / "former.pt").model)) == 7


def test_spd_validates_predicts_and_exports_with_their_engine(trained, data, tmp_path):
    import onnxruntime

    weights, network = trained
    assert len(spd_layers(network.model)) == 7
    assert b"models.ultralytics_bridge" in weights.read_bytes()  # reading it enables the bridge
    metrics = network.val(data=data, imgsz=64, plots=False, device="cpu", project=tmp_path, verbose=False)
    assert 0 <= metrics.box.map <= 1
    image = data.parent / "images" / "0.png"
    (result,) = network.predict(image, imgsz=64, device="cpu", verbose=False)
    assert result.names == {0: "square"}
    file = network.export(format="onnx", imgsz=64, simplify=False, device="cpu", opset=18)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = torch.rand(1, 3, 64, 64)
    (ours,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = yolo_outputs(network.model, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def yolo_outputs(model, x):
    with torch.no_grad():
        return model.eval()(x)[0].numpy()


def test_surgery_on_their_weights_trains_with_their_engine_and_keeps_the_outputs(yolo, data, tmp_path):
    plain = yolo("yolov8n.yaml")
    plain.save(tmp_path / "any.pt")
    network = yolo(tmp_path / "any.pt")
    x = torch.rand(1, 3, 64, 64)
    before = outputs_of(network.model.float(), x)
    report = replace_downsampling(network.model, "spd", preserve=True)
    assert len(report.replaced) == 7
    assert relative_difference(before, outputs_of(network.model, x)) < 1e-4
    start = load("ultralytics.nn.tasks").DetectionModel(copy.deepcopy(network.model.yaml), verbose=False)
    start.load(network.model)
    assert relative_difference(before, outputs_of(start, x)) < 1e-4  # what their trainer starts from
    weights = train(network, data, tmp_path)
    again = yolo(weights)
    assert len(spd_layers(again.model)) == 7
    assert again.model.yaml["surgery"] == [{"to": "spd", "layers": report.replaced}]
    assert relative_difference(outputs_of(network.model, x), outputs_of(again.model, x)) < 1e-4


def test_surgery_of_a_pooling_is_repeated_from_the_yaml(yolo):
    network = yolo("yolov3-tiny.yaml").model
    report = replace_downsampling(network, preserve=False)
    tasks = load("ultralytics.nn.tasks")
    again = tasks.DetectionModel(copy.deepcopy(network.yaml), verbose=False)
    assert again.state_dict().keys() == network.state_dict().keys()
    assert len(spd_layers(again)) == len(report.replaced) > 0
    again.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    assert relative_difference(outputs_of(network, x), outputs_of(again, x)) < 1e-6


NAMES = {
    "yolov8s-p2-spd": ("spd", 8),
    "yolo26n-spd": ("spd", 7),
    "yolov5n-blur": ("blur", 6),
    "yolov8n-cls-spd": ("spd", 5),
    "rtdetr-l-spd": ("spd", 7),
}


@pytest.mark.parametrize("name", NAMES)
def test_any_family_and_downsampler_is_built_by_its_name(yolo, name):
    downsampler, count = NAMES[name]
    tasks = load("ultralytics.nn.tasks")
    content = tasks.yaml_model_load(f"{name}.yaml")
    assert content["downsample"] == downsampler and content["yaml_file"] == f"{name}.yaml"
    assert content["scale"] == tasks.yaml_model_load(f"{name.rpartition('-')[0]}.yaml")["scale"]
    layers, _ = tasks.parse_model(copy.deepcopy(content), 3, verbose=False)
    kind = {"spd": SPDConv2d, "blur": BlurPool2d}[downsampler]
    assert sum(isinstance(module, kind) for module in layers.modules()) == count


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 9)])
def test_spd_in_their_conv_is_space_to_depth_and_a_convolution(yolo, height, width):
    conv = load("ultralytics.nn.modules.conv").Conv(3, 4, 3, 2).double().eval()
    layers = nn.Sequential(conv)
    shape = layers(torch.rand(1, 3, height, width).double()).shape
    assert swap_downsampling(layers, "spd") == 1
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    weight = layers.double()[0].conv.weight
    padded = nn.functional.pad(x, (0, width % 2, 0, height % 2))
    expected = nn.functional.conv2d(space_to_depth(padded), weight, padding=1)
    torch.testing.assert_close(conv.conv(x), expected, rtol=0, atol=1e-12)
    assert layers(x).shape[1:] == shape[1:]


def test_a_resampler_follows_the_activation_of_a_convolution_with_stride_1(yolo):
    conv = load("ultralytics.nn.modules.conv").Conv(3, 4, 3, 2).eval()
    keys, x = list(conv.state_dict()), torch.rand(1, 3, 9, 12)
    expected = nn.functional.silu(conv.bn(nn.functional.conv2d(x, conv.conv.weight, padding=1)))
    swap_downsampling(nn.Sequential(conv), "max")
    torch.testing.assert_close(conv(x), nn.functional.max_pool2d(expected, 2, ceil_mode=True))
    assert list(conv.state_dict()) == keys  # their weights fit


def test_wrong_names_and_missing_weights_are_errors_without_using_the_network(yolo, trained, offline):
    with pytest.raises(FileNotFoundError, match=r"yolo11-spdd\.yaml"):
        yolo("yolo11n-spdd.yaml")
    with pytest.raises(UserError, match="Did you mean 'spd'"):
        swap_downsampling(nn.Sequential(), "spdd")
    with pytest.raises(UserError, match="this network has none"):
        swap_downsampling(nn.Sequential(nn.Conv2d(3, 3, 3, 2)), "spd")
    with pytest.raises(UserError, match=r"no weights file nowhere\.pt.*give its address"):
        yolo("nowhere.pt")
    with pytest.raises(
        UserError, match=r"of the ultralytics package, not of YOLOv5: .*docs/spd\.md"
    ) as caught:
        load_model(trained[0])
    assert "\n" not in str(caught.value)


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_what_is_wrapped_in_ultralytics_is_what_we_know(yolo, monkeypatch):
    tasks, model = load("ultralytics.nn.tasks"), load("ultralytics.engine.model")
    assert parameters(tasks.yaml_model_load.__wrapped__) == ["path"]
    assert parameters(tasks.parse_model.__wrapped__) == ["d", "ch", "verbose"]
    assert model.yaml_model_load is tasks.yaml_model_load
    given, parse_model = [], tasks.parse_model
    monkeypatch.setattr(
        tasks, "parse_model", lambda d, **options: given.append(d) or parse_model(d, **options)
    )
    tasks.DetectionModel("yolov8n-max.yaml", verbose=False)
    tasks.ClassificationModel("yolov8n-cls-max.yaml", verbose=False)
    assert [yaml["downsample"] for yaml in given] == ["max", "max"]
    trainer = load("ultralytics.models.yolo.detect.train").DetectionTrainer
    assert parameters(trainer.get_model) == ["self", "cfg", "weights", "verbose"]
    assert "cfg=self.model.yaml" in inspect.getsource(model.Model.train)


def test_what_is_used_of_ultralytics_is_there(yolo):
    conv = load("ultralytics.nn.modules.conv").Conv(3, 4, 3, 2).eval()
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(conv(x), conv.act(conv.bn(conv.conv(x))))
    torch.testing.assert_close(conv.forward_fuse(x), conv.act(conv.conv(x)))
    utils, downloads = load("ultralytics.utils"), load("ultralytics.utils.downloads")
    assert parameters(utils.set_logging) == ["name", "verbose"]
    assert utils.LOGGER.isEnabledFor(20) and utils.VERBOSE
    assert utils.SETTINGS["sync"] is False and "weights_dir" in utils.SETTINGS
    assert downloads.checks.check_yolov5u_filename("a.pt") == "a.pt"
    assert "check_font(" in inspect.getsource(load("ultralytics.data.utils").check_det_dataset)
    assert load("ultralytics.data.utils").check_font is load("ultralytics.utils.plotting").check_font
