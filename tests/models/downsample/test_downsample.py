"""Every block in the tables of models/downsample keeps their contract."""

import math

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from models import build_model
from models.downsample import DOWNSAMPLERS, RESAMPLERS, make_downsampler
from models.downsample.spd import space_to_depth
from utils.errors import UserError

every_downsampler = pytest.mark.parametrize("name", [*DOWNSAMPLERS, *RESAMPLERS])
every_resampler = pytest.mark.parametrize("name", RESAMPLERS)
needs_the_newer_exporter = pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 exports no cut-offs that are learned (docs/export.md)"
)
SIZES = [(2, 2), (2, 3), (3, 2), (5, 5), (8, 8), (7, 12), (13, 6)]


@every_downsampler
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_downsampler_halves_odd_and_even_sizes(name, height, width):
    block = make_downsampler(name, 6, 10)
    for training in (True, False):
        y = block.train(training)(torch.rand(2, 6, height, width))
        assert y.shape == (2, 10, math.ceil(height / 2), math.ceil(width / 2))


@every_resampler
def test_every_resampler_keeps_channels_and_constants(name):
    y = RESAMPLERS[name]()(torch.full((1, 3, 7, 10), 0.7))
    torch.testing.assert_close(y, torch.full((1, 3, 4, 5), 0.7))


@every_downsampler
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_downsampler_works_in_every_precision(name, dtype):
    x = torch.rand(2, 4, 9, 8)
    block = make_downsampler(name, 4, 8).eval()
    with torch.no_grad():
        reference = block(x)
        y = block.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), reference, atol=0.02, rtol=0.02)


@every_downsampler
def test_every_downsampler_passes_gradients_to_its_input(name):
    x = torch.rand(2, 4, 7, 8, requires_grad=True)
    make_downsampler(name, 4, 8)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()


@every_downsampler
def test_every_downsampler_accepts_channels_last_and_slices(name):
    block = make_downsampler(name, 4, 8).eval()
    x = torch.rand(2, 4, 10, 12)
    with torch.no_grad():
        reference = block(x)
        last = block(x.to(memory_format=torch.channels_last))
        strided = block(
            torch.rand(2, 4, 20, 24).copy_(x.repeat_interleave(2, 2).repeat_interleave(2, 3))[..., ::2, ::2]
        )
    torch.testing.assert_close(last, reference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(strided, reference, rtol=1e-5, atol=1e-6)


@every_downsampler
def test_every_downsampler_exports_with_free_sizes(name):
    block = make_downsampler(name, 4, 8).eval()
    rows, columns = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("columns", min=1, max=64)
    shapes = ({2: 4 * rows, 3: 4 * columns},)
    exported = torch.export.export(block, (torch.rand(1, 4, 16, 24),), dynamic_shapes=shapes)
    x = torch.rand(1, 4, 12, 8)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(x), block(x))


@every_downsampler
def test_every_downsampler_makes_a_detector_that_trains(name):
    model = build_model("yolov5n", num_classes=2, downsample=name)
    assert model.stride.tolist() == [8, 16, 32]
    sum(level.square().mean() for level in model(torch.rand(1, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_resampler
def test_a_resampled_conv_takes_the_weights_of_the_strided_one(name):
    strided, resampled = make_downsampler("strided", 4, 8), make_downsampler(name, 4, 8)
    missing, unexpected = resampled.load_state_dict(strided.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("resampler.") for key in missing)


def test_an_unknown_downsampler_names_the_choices():
    with pytest.raises(
        UserError, match=r"unknown downsampler 'striped'. Did you mean 'strided'\? Choose from: avg,"
    ):
        make_downsampler("striped", 4, 8)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_space_to_depth_holds_row_offset_i_column_offset_j_in_group_j_scale_i(scale, memory_format):
    x = torch.rand(2, 5, 4 * scale, 3 * scale)
    y = space_to_depth(x.to(memory_format=memory_format), scale)
    assert y.shape == (2, 5 * scale**2, 4, 3)
    for i in range(scale):
        for j in range(scale):
            group = (j * scale + i) * 5
            assert torch.equal(y[:, group : group + 5], x[..., i::scale, j::scale])


def test_space_to_depth_names_the_size_it_cannot_divide():
    with pytest.raises(ValueError, match="height 6 and width 7 must be divisible by 2"):
        space_to_depth(torch.rand(1, 3, 6, 7))


@pytest.mark.parametrize("scale", [0, -2, 2.0])
def test_space_to_depth_names_a_scale_that_is_not_valid(scale):
    with pytest.raises(ValueError, match=f"the scale must be a whole number above 0, got {scale}"):
        space_to_depth(torch.rand(1, 3, 6, 6), scale)


def test_the_average_of_a_window_at_the_border_counts_only_pixels_of_the_map():
    pool = RESAMPLERS["avg"]()
    assert pool(torch.tensor([[[[1.0, 3.0, 8.0]]]])).tolist() == [[[[2.0, 8.0]]]]
    assert isinstance(pool, nn.AvgPool2d)


def run_in_onnx(model, example, x, file, dynamic_shapes=None):
    """Export `model` with `example`, and return ONNX Runtime's output for `x`."""
    options = {"dynamo": True, "input_names": ["x"], "dynamic_shapes": dynamic_shapes, "verbose": False}
    torch.onnx.export(model, (example,), file, **options)
    return torch.from_numpy(onnxruntime.InferenceSession(file).run(None, {"x": x.numpy()})[0])


@needs_the_newer_exporter
def test_a_detector_with_every_downsampler_gives_the_same_boxes_in_onnx(tmp_path):
    names = [*DOWNSAMPLERS, *RESAMPLERS]
    rows = [[-1, 1, "Downsample", [8, name]] for name in names]
    head = [[[len(names) - 2, len(names) - 1], 1, "Detect", ["nc", "anchors"]]]
    model = build_model({"nc": 2, "anchors": 2, "backbone": rows, "head": head}).eval()
    x = torch.rand(2, 3, 2 ** len(names), 2 ** (len(names) + 1))
    outputs = run_in_onnx(model, x, x, tmp_path / "model.onnx")
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(x)[0], rtol=1e-4, atol=1e-3)


@needs_the_newer_exporter
def test_learned_cut_offs_are_exported_for_free_sizes(tmp_path):
    block = make_downsampler("diffstride", 3, 4).eval()
    shapes = ({2: 2 * Dim("rows")},)
    x = torch.rand(1, 3, 18, 16)
    outputs = run_in_onnx(block, torch.rand(1, 3, 12, 16), x, tmp_path / "block.onnx", shapes)
    with torch.no_grad():
        torch.testing.assert_close(outputs, block(x), rtol=1e-4, atol=1e-5)
