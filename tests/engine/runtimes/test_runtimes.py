"""One interface for PyTorch and ONNX Runtime, ensembles and test-time augmentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.inference.sizes import input_size
from engine.inference.test_time_augmentation import TestTimeAugmentation
from engine.runtimes import Ensemble, load_predictor
from engine.runtimes.metadata import Metadata
from engine.runtimes.parity import FP16, FP32, compare
from models import load_model
from models.checkpoint import save_checkpoint
from utils.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ["car", "дерево", "a 'quoted' name", "x", "y"]


def write_onnx(path: Path, shape=("batch", 3, "rows", "columns"), metadata: Metadata | None = None) -> Path:
    """A graph with a detector's input and output whose rows are (B, 4, 10) means of the images."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    means = helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1)  # (B, 1, 1, 1)
    flat = helper.make_node("Reshape", ["mean", "three"], ["flat"])  # (B, 1, 1)
    tiled = helper.make_node("Tile", ["flat", "times"], ["output0"])  # (B, 4, 10)
    constants = {"axes": [1, 2, 3], "three": [-1, 1, 1], "times": [1, 4, 10]}
    values = [helper.make_tensor(key, onnx.TensorProto.INT64, [3], value) for key, value in constants.items()]
    graph = helper.make_graph(
        [means, flat, tiled],
        "stub",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info("output0", kind, (shape[0], 4, 10))],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if metadata:
        helper.set_model_props(model, metadata.to_strings())
    onnx.save(model, str(path))
    return path


class Scene:
    """A predictor of one box an image, where the brightest pixel is."""

    names, stride, imgsz, task, config = ["spot"], 32, None, "detect", {}
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        brightest = images.sum(1).flatten(1).argmax(1)
        y, x = brightest // images.shape[3], brightest % images.shape[3]
        side = torch.full_like(x, 20)
        one = torch.ones_like(x)
        return torch.stack([x + 0.5, y + 0.5, side, side, one, one], 1)[:, None].float()


def test_predictor_gives_what_the_network_gives():
    images = torch.rand(2, 3, 64, 96)
    predictor = load_predictor(GOLDEN / "yolov5n.pt")
    with torch.no_grad():
        expected = load_model(GOLDEN / "yolov5n.pt")(images)[0]
    torch.testing.assert_close(predictor(images), expected, atol=1e-3, rtol=1e-4)
    assert (predictor.stride, predictor.task, predictor.imgsz, len(predictor.names)) == (
        32,
        "detect",
        None,
        5,
    )


def test_names_given_replace_the_checkpoints_when_their_number_fits():
    assert load_predictor(GOLDEN / "yolov5n.pt", names=NAMES).names == NAMES
    with pytest.raises(UserError, match=r"5 classes, but the data set names 2"):
        load_predictor(GOLDEN / "yolov5n.pt", names=["a", "b"])


def test_training_configuration_and_tiles_travel_with_our_checkpoints(tmp_path):
    from models import build_model
    from models.load import to_checkpoint

    content = to_checkpoint(build_model("yolov5n", num_classes=1))
    tile = {"size": 416, "overlap": 0.2}
    save_checkpoint(tmp_path / "ours.pt", content | {"config": {"imgsz": 320}, "tile": tile})
    predictor = load_predictor(tmp_path / "ours.pt")
    assert predictor.config == {"imgsz": 320, "tile": tile}
    assert input_size(None, predictor) == (320, 320)
    small = {"task": "classify", "nc": 2, "block": "basic", "depths": [1], "widths": [8, 8]}
    other = build_model(small | {"downsample": ["none", "none"]})
    save_checkpoint(tmp_path / "other.pt", to_checkpoint(other))
    with pytest.raises(UserError, match="task 'classify'"):
        load_predictor(tmp_path / "other.pt")


def test_onnx_batches_are_cut_and_filled_to_the_fixed_one(tmp_path):
    metadata = Metadata(NAMES, 32, imgsz=(32, 64), config={"imgsz": 64, "data": "x.yaml"})
    predictor = load_predictor(write_onnx(tmp_path / "a.onnx", (2, 3, 32, 64), metadata))
    images = torch.rand(5, 3, 32, 64)
    means = images.mean((1, 2, 3)).view(5, 1, 1).expand(5, 4, 10)
    torch.testing.assert_close(predictor(images), means)
    assert predictor.imgsz == (32, 64)
    assert predictor.names == NAMES and predictor.config == metadata.config
    with pytest.raises(ValueError, match=r"\(32, 64\).*not \(64, 64\)"):
        predictor(torch.rand(1, 3, 64, 64))


def test_dynamic_onnx_takes_any_size(tmp_path):
    predictor = load_predictor(write_onnx(tmp_path / "a.onnx", metadata=Metadata(NAMES, 32, dynamic=True)))
    assert predictor.imgsz is None
    for shape in ((1, 3, 32, 64), (3, 3, 96, 32)):
        assert predictor(torch.rand(shape)).shape == (shape[0], 4, 10)


def test_onnx_without_metadata_asks_for_the_data_set(tmp_path):
    path = write_onnx(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign.onnx: no metadata 'names'.*--data"):
        load_predictor(path)
    assert load_predictor(path, names=NAMES).names == NAMES
    assert load_predictor(path, nameless=NAMES).names == NAMES
    named = write_onnx(tmp_path / "ours.onnx", metadata=Metadata(NAMES[::-1], 32))
    assert load_predictor(named, nameless=NAMES).names == NAMES[::-1]
    with pytest.raises(UserError, match="the graph has 5 classes, but 1 are named"):
        load_predictor(path, names=["tree"])


def test_wrong_weights_are_one_clear_line(tmp_path):
    (tmp_path / "text.onnx").write_text("no graph")
    (tmp_path / "empty.onnx").touch()
    cases = {
        "text.onnx": "cannot open",
        "empty.onnx": "cannot open",
        "missing.onnx": "no such weights: .*export.py",
        "missing.pt": "ultralytics/yolov5/releases",
        "model.pb": "give one of .pt, .onnx",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            load_predictor(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="needs a GPU"):
        load_predictor(GOLDEN / "yolov5n.pt", half=True)


def test_onnx_graph_of_another_kind_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, (1, 8)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "other.onnx"))
    with pytest.raises(UserError, match=r"not a YOLOv5 graph"):
        load_predictor(tmp_path / "other.onnx")


def test_metadata_survives_the_file_and_yolov5s_own_is_read():
    metadata = Metadata(NAMES, 64, imgsz=(640, 320), dynamic=True, config={"hyp": None, "classes": [0]})
    assert Metadata.from_strings(metadata.to_strings(), "a") == metadata
    theirs = Metadata.from_strings({"stride": "32", "names": "{0: 'person', 1: \"it's\"}"}, "b")
    assert (theirs.names, theirs.stride, theirs.config) == (["person", "it's"], 32, {})


@pytest.mark.parametrize("text", ["__import__('os')", "[", "3", "{'a': 'b'}", "null"])
def test_metadata_is_never_run_and_nonsense_is_refused(text):
    with pytest.raises(UserError, match=r"x\.onnx"):
        Metadata.from_strings({"stride": "32", "names": text}, "x.onnx")


def test_ensemble_pools_the_boxes_of_networks_with_the_same_classes():
    one, two = Scene(), Scene()
    assert Ensemble([one, two])(torch.rand(2, 3, 32, 32)).shape == (2, 2, 6)
    two.names = ["other"]
    with pytest.raises(UserError, match="same classes"):
        Ensemble([one, two])


@pytest.mark.parametrize("fixed", [None, (96, 160)])
def test_augmented_views_find_the_object_where_it_is(fixed):
    scene = Scene()
    scene.imgsz = fixed
    images = torch.zeros(2, 3, 96, 160)
    images[0, :, 30:34, 120:124] = 1.0
    images[1, :, 80:84, 8:12] = 1.0
    rows = TestTimeAugmentation(scene)(images)
    assert rows.shape == (2, 3, 6)
    centers = torch.tensor([[122.0, 32.0], [10.0, 82.0]])
    assert (rows[..., :2] - centers[:, None]).abs().max() < 2.5
    sizes = {shape[2:] for shape in scene.shapes}
    assert sizes == ({fixed} if fixed else {(96, 160), (96, 128)})


class Blob(Scene):
    """A predictor of one box an image, whose center is the center of what is brighter than gray."""

    def __call__(self, images: Tensor) -> Tensor:
        light = (images.mean(1) - 0.45).clamp(min=0)  # (B, H, W)
        sides = [torch.arange(n) + 0.5 for n in images.shape[2:]]
        y, x = ((light.sum(3 - i) * sides[i - 1]).sum(1) / light.sum((1, 2)) for i in (1, 2))
        side = torch.full_like(x, 20)
        return torch.stack([x, y, side, side, side, side], 1)[:, None]


@pytest.mark.parametrize(("height", "width"), [(416, 1280), (1280, 640), (95, 163)])
def test_augmented_views_agree_to_a_fraction_of_a_pixel(height, width):
    for x, y in ((20, 20), (width - 20, height - 20), (width // 2, height - 20)):
        images = torch.zeros(1, 3, height, width)
        images[..., y - 6 : y + 6, x - 6 : x + 6] = 1.0
        rows = TestTimeAugmentation(Blob())(images)
        assert (rows[0, :, :2] - torch.tensor([x, y])).abs().max() < 0.3  # of resampling


def test_parity_finds_a_difference_and_not_a_number():
    scene = Scene()
    assert compare(scene, scene, [(2, 32, 64)]).agree
    shifted = compare(scene, lambda x: scene(x) + torch.tensor([0.5, 0, 0, 0, 0, 0]), [(1, 32, 64)])
    assert (shifted.agree, shifted.pixels, shifted.scores) == (False, 0.5, 0.0)
    scores = compare(scene, lambda x: scene(x) - torch.tensor([0, 0, 0, 0, 0, 0.01]), [(1, 32, 64)])
    assert not scores.agree and scores.scores == pytest.approx(0.01, abs=1e-6)
    assert not compare(scene, lambda x: scene(x) * float("nan"), [(1, 32, 64)]).agree


@pytest.mark.parametrize(
    ("tolerance", "off", "places", "agree"),
    [
        (FP16, 2.0, 1, True),  # one of 100,000 numbers, out by up to five times
        (FP16, 6.0, 1, False),
        (FP16, 2.0, 100, False),
        (FP16, float("nan"), 1, False),
        (FP32, 2.0, 1, False),
    ],
)
def test_in_16_bits_a_few_numbers_may_differ_a_little_more(tolerance, off, places, agree):
    def first(images):
        return torch.zeros(1, 20_000, 5)

    def second(images):
        output = first(images)
        output[0, :places, 4] = off * tolerance.scores
        return output

    assert compare(first, second, [(1, 32, 64)], tolerance).agree is agree


@pytest.mark.parametrize(
    "given, fixed, config, expected",
    [
        (None, None, {}, (640, 640)),
        (None, None, {"imgsz": 416}, (416, 416)),
        (None, (96, 64), {"imgsz": 416}, (96, 64)),
        ((320,), None, {}, (320, 320)),
        ((96, 64), (96, 64), {}, (96, 64)),
        ((96, 64, 32), None, {}, "height and width"),
        ((100, 64), None, {}, "try --imgsz 128 64"),
        ((128,), (96, 64), {}, "fixed to --imgsz 96 64"),
    ],
)
def test_input_size_is_as_given_as_fixed_or_as_trained(given, fixed, config, expected):
    scene = Scene()
    scene.imgsz, scene.config = fixed, config
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            input_size(given, scene)
    else:
        assert input_size(given, scene) == expected


def test_onnx_output_is_float32_whatever_the_input(tmp_path):
    predictor = load_predictor(write_onnx(tmp_path / "a.onnx", metadata=Metadata(NAMES, 32)))
    images = torch.rand(1, 3, 64, 32).half()[..., ::2]  # another type, not contiguous
    assert predictor(images).dtype == torch.float32
    assert np.isfinite(predictor(images).numpy()).all()


def test_yolov5s_torchscript_takes_the_size_it_was_traced_for(tmp_path):
    class Traced(torch.nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (images.new_zeros(2, 12, 7),)

    file = tmp_path / "yolov5n.torchscript"
    config = json.dumps({"shape": [2, 3, 64, 96], "stride": 32, "names": {"0": "cat", "1": "dog"}})
    traced = torch.jit.trace(Traced(), torch.zeros(2, 3, 64, 96))
    torch.jit.save(traced, str(file), _extra_files={"config.txt": config})
    predictor = load_predictor(file)
    assert (predictor.names, predictor.stride, predictor.imgsz) == (["cat", "dog"], 32, (64, 96))
    assert predictor(torch.rand(3, 3, 64, 96)).shape == (3, 12, 7)
    with pytest.raises(ValueError, match=r"takes images of \(64, 96\)"):
        predictor(torch.rand(1, 3, 96, 96))


def test_openvino_metadata_are_also_read_from_the_yaml_that_yolov5_writes(tmp_path):
    openvino = pytest.importorskip("openvino")
    graph = write_onnx(tmp_path / "plain.onnx", (1, 3, 64, 96))
    folder = tmp_path / "yolov5n_openvino_model"
    folder.mkdir()
    openvino.save_model(openvino.Core().read_model(graph), folder / "yolov5n.xml", compress_to_fp16=False)
    with pytest.raises(UserError, match="no metadata 'names' in the file"):
        load_predictor(folder)
    (folder / "yolov5n.yaml").write_text("stride: 64\nnames:\n  0: a\n  1: b\n  2: c\n  3: d\n  4: e\n")
    predictor = load_predictor(folder)
    assert (predictor.names, predictor.stride, predictor.imgsz) == (list("abcde"), 64, (64, 96))
    (folder / "yolov5n.yaml").write_text("- cat\n")
    with pytest.raises(UserError, match=r"yolov5n.yaml: must hold stride and names"):
        load_predictor(folder)
