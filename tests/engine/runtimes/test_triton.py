"""Triton's model repositories: what the server is told fits the graph inside, which runs here as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from engine.export import export
from engine.runtimes import load_predictor
from engine.runtimes.metadata import Metadata
from engine.runtimes.onnx import open_session
from engine.runtimes.triton import config_text
from tests.classification_cases import SMALL_NETWORK
from tests.engine.export.test_command import save_tiny
from tests.engine.test_classifier_commands import save_classifier

FIXED = """\
backend: "onnxruntime"
max_batch_size: 0
input [
  {
    name: "images"
    data_type: TYPE_FP32
    dims: [2, 3, 64, 96]
  }
]
output [
  {
    name: "output0"
    data_type: TYPE_FP32
    dims: [2, 960, 8]
  }
]
"""
FREE = """\
backend: "onnxruntime"
max_batch_size: 8
input [
  {
    name: "images"
    data_type: TYPE_FP32
    dims: [3, -1, -1]
  }
]
output [
  {
    name: "output0"
    data_type: TYPE_FP32
    dims: [-1, 8]
  }
]
dynamic_batching { }
"""
if torch.__version__ < "2.7":  # whose exporter leaves all of the output's sides free
    FREE = FREE.replace("[-1, 8]", "[-1, -1]")


def export_triton(folder: Path, **options) -> Path:
    """The repository of a small detector, whose checkpoint is beside it."""
    save_tiny(folder / "best.pt")
    (repository,) = export(folder / "best.pt", include=["triton"], **options)
    return repository


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Path:
    return export_triton(tmp_path_factory.mktemp("fixed"), imgsz=(64, 96), batch_size=2)


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> Path:
    return export_triton(tmp_path_factory.mktemp("free"), dynamic=True)


@pytest.fixture(scope="module")
def with_nms(tmp_path_factory) -> Path:
    return export_triton(tmp_path_factory.mktemp("nms"), nms=True)


def test_a_repository_holds_the_model_its_labels_and_its_configuration(fixed):
    files = {str(path.relative_to(fixed.parent)) for path in fixed.parent.rglob("*") if path.is_file()}
    model = "best_triton/best"
    assert files == {"best.pt", f"{model}/config.pbtxt", f"{model}/labels.txt", f"{model}/1/model.onnx"}
    assert (fixed / "best" / "labels.txt").read_text() == "car\nдерево\na 'b' \"c\"\n"


def test_a_fixed_batch_is_part_of_the_shapes(fixed):
    assert (fixed / "best" / "config.pbtxt").read_text() == FIXED


def test_a_free_batch_is_left_to_triton(free):
    assert (free / "best" / "config.pbtxt").read_text() == FREE


def test_the_largest_batch_can_be_chosen(free):
    session = open_session(free / "best" / "1" / "model.onnx", torch.device("cpu"), threads=1)
    text = config_text(session, Metadata(["tree"], 8, dynamic=True, batch=32))
    assert text == FREE.replace("max_batch_size: 8", "max_batch_size: 32")


def test_nms_inside_the_file_gives_its_rows(with_nms):
    assert with_nms.name == "best_nms_triton"
    assert "dims: [1, 300, 6]" in (with_nms / "best" / "config.pbtxt").read_text()


def test_the_repository_runs_here_like_the_checkpoint(free):
    ours, theirs = load_predictor(free.with_name("best.pt")), load_predictor(free)
    assert (theirs.names, theirs.stride, theirs.config) == (ours.names, ours.stride, ours.config)
    images = torch.rand(3, 3, 64, 48)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)


def test_labels_belong_to_the_output_of_a_classifier(tmp_path):
    weights = save_classifier(tmp_path / "best.pt", yaml.safe_load(SMALL_NETWORK))
    (repository,) = export(weights, include=["triton"], dynamic=True)
    text = (repository / "best" / "config.pbtxt").read_text()
    assert "dims: [3, 12, 12]" in text and 'dims: [10]\n    label_filename: "labels.txt"' in text
    assert (repository / "best" / "labels.txt").read_text().splitlines() == load_predictor(
        weights, task=None
    ).names


@pytest.mark.parametrize("repository", ["fixed", "free", "with_nms"])
def test_the_configuration_is_of_tritons_schema_and_fits_the_graph(repository, request):
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="pip install 'tritonclient[grpc]'"
    )
    from google.protobuf import text_format

    folder = request.getfixturevalue(repository) / "best"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert config.backend == "onnxruntime"
    assert config.HasField("dynamic_batching") == (config.max_batch_size > 0) == (repository == "free")
    session = open_session(folder / "1" / "model.onnx", torch.device("cpu"), threads=1)
    batch = [-1] if config.max_batch_size else []
    for told, tensors in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        for tensor, ours in zip(told, tensors, strict=True):
            assert tensor.name == ours.name
            assert tensor.data_type == schema.TYPE_FP32 and ours.type == "tensor(float)"
            shape = [size if isinstance(size, int) else -1 for size in ours.shape]
            assert batch + list(tensor.dims) == shape
