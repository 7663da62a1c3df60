"""Spectral pooling and DiffStride against the reference, against FFTs, and against finite differences."""

import math

import numpy as np
import pytest
import torch

from models.downsample import fourier
from models.downsample.diffstride import DiffStride2d, learned_strides, stride_complexity
from models.downsample.spectral import SpectralPool2d
from tests.golden_values import GOLDEN, assert_close

METHODS = pytest.mark.parametrize("method", ["matrices", "fft"])
SIZES = [(32, 32), (16, 24), (17, 15), (9, 8), (7, 12), (2, 3), (5, 2)]


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN / "diffstride.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@METHODS
@pytest.mark.parametrize("case", range(8))
def test_diffstride_output_and_gradients_match_the_reference(reference, case, method):
    *_, rows, columns, smoothness = reference[f"case{case}"].tolist()
    layer = DiffStride2d((rows, columns), smoothness, method=method)
    x = reference[f"x{case}"].requires_grad_()
    y = layer(x)
    assert_close(y, reference[f"diffstride{case}"], 1e-5)
    torch.testing.assert_close(layer.strides.data, reference[f"strides_after{case}"])
    (grad,) = torch.autograd.grad((y * reference[f"cotangent{case}"]).sum(), x, retain_graph=True)
    assert_close(grad, reference[f"grad_x{case}"], 1e-5)
    (y * reference[f"cotangent{case}"]).sum().backward()
    torch.testing.assert_close(layer.strides.grad, reference[f"grad_strides{case}"], rtol=1e-4, atol=1e-4)


@METHODS
@pytest.mark.parametrize("case", range(8))
def test_spectral_pooling_matches_the_reference(reference, case, method):
    *_, rows, columns, _ = reference[f"case{case}"].tolist()
    with torch.no_grad():
        y = SpectralPool2d((rows, columns), method=method)(reference[f"x{case}"])
    assert_close(y, reference[f"spectral{case}"], 1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [(2.0, 2.0), (1.0, 3.0), (1.5, 2.5)])
def test_on_the_fixed_grid_matrices_equal_transforms(size, stride):
    x = torch.randn(2, 3, *size)
    for make in (SpectralPool2d, DiffStride2d):
        matrices, fft = (make(stride, fixed_grid=True, method=method) for method in ("matrices", "fft"))
        y = matrices(x)
        assert y.shape[2:] == (math.ceil(size[0] / stride[0]), math.ceil(size[1] / stride[1]))
        torch.testing.assert_close(y, fft(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (5, 9)])
@METHODS
def test_gradients_on_the_fixed_grid_are_the_derivatives(size, method):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    layer = DiffStride2d((2.0, 2.0), smoothness=2.5, fixed_grid=True, method=method).double().eval()
    layer.strides.data = torch.tensor([2.3, 2.6], dtype=torch.float64)

    def apply(x, strides):
        return torch.func.functional_call(layer, {"strides": strides}, (x,))

    assert torch.autograd.gradcheck(apply, (x, layer.strides))
    assert torch.autograd.gradcheck(SpectralPool2d(fixed_grid=True, method=method), (x,))


def test_what_the_grid_can_hold_passes_unchanged():
    rows, columns = torch.arange(24) / 24, torch.arange(20) / 20
    wave = torch.cos(2 * math.pi * (3 * rows[:, None] + 2 * columns)) + 0.5
    y = SpectralPool2d(fixed_grid=True)(wave[None, None])
    torch.testing.assert_close(y[0, 0], wave[::2, ::2], rtol=1e-5, atol=1e-5)


def test_frequencies_above_the_grid_vanish_instead_of_folding():
    stripes = torch.cos(2 * math.pi * 9 * torch.arange(24) / 24).repeat(24, 1)  # 9 cycles, the grid holds 6
    assert stripes[::2, ::2].abs().max() > 0.9
    assert SpectralPool2d(fixed_grid=True)(stripes[None, None]).abs().max() < 1e-5


def test_as_published_the_mean_grows_and_on_the_fixed_grid_it_stays():
    x = torch.rand(1, 1, 32, 24)
    assert SpectralPool2d()(x).mean().item() == pytest.approx(4 * x.mean().item(), rel=1e-5)
    for layer in (SpectralPool2d(fixed_grid=True), DiffStride2d((2.0, 2.0), fixed_grid=True)):
        assert layer(x).mean().item() == pytest.approx(x.mean().item(), rel=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(4, 6), (16, 12)])
def test_every_order_of_the_products_gives_the_same_output(size, memory_format):
    x = torch.randn(2, 5, *size)
    rows, columns = torch.randn(2, 3, size[0]), torch.randn(2, 4, size[1])
    expected = torch.einsum("ih,bchw,jw->bcij", rows[0], x, columns[0])
    expected -= torch.einsum("ih,bchw,jw->bcij", rows[1], x, columns[1])
    y = fourier.separable(x.to(memory_format=memory_format), rows, columns)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("terms", [1, 2])
def test_matrices_are_used_up_to_the_measured_size(terms):
    limit = fourier.MATRIX_SIDE[terms]
    small, large = torch.empty(1, 1, 8, limit), torch.empty(1, 1, 8, limit + 1)
    assert fourier.use_matrices(small, "auto", terms)
    assert not fourier.use_matrices(large, "auto", terms)
    assert fourier.use_matrices(large.half(), "auto", terms)
    assert not fourier.use_matrices(small, "fft", terms)


@pytest.mark.parametrize("fixed_grid", [False, True])
def test_strides_have_gradients_and_stay_within_their_limits(fixed_grid):
    layer = DiffStride2d((2.0, 2.0), limits=(1.5, 2.5), fixed_grid=fixed_grid)
    layer(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert layer.strides.grad.abs().min() > 0
    for wild in (-5.0, 50.0):
        layer.strides.data.fill_(wild)
        layer(torch.randn(1, 1, 16, 16))
        assert layer.strides.min() >= 1.5
        assert layer.strides.max() <= 2.5


def test_a_layer_may_run_twice_before_backward():
    layer = DiffStride2d((1.0, 1.0))
    x = torch.randn(1, 2, 16, 16)
    (layer(x) + layer(x.flip(1)).flip(1)).square().sum().backward()
    assert layer.strides.grad.isfinite().all()


def test_a_shared_stride_is_one_parameter():
    layer = DiffStride2d((2.0, 2.0), shared=True)
    assert layer.strides.shape == (1,)
    assert layer(torch.randn(1, 1, 32, 32)).shape == DiffStride2d()(torch.randn(1, 1, 32, 32)).shape


def test_the_complexity_penalty_is_the_papers_sum_of_products():
    layers = [DiffStride2d((2.0, 3.0)), DiffStride2d((1.5, 2.0))]
    penalty = stride_complexity(layers)
    assert penalty.item() == pytest.approx(1 / 6 + 1 / 6 / 3)
    penalty.backward()
    assert (layers[0].strides.grad < 0).all()
    assert learned_strides(torch.nn.Sequential(*layers)) == {"0": (2.0, 3.0), "1": (1.5, 2.0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpectralPool2d((0.5, 2.0)), "strides must be at least 1"),
        (lambda: DiffStride2d((2.0, math.nan)), "strides must be at least 1"),
        (lambda: DiffStride2d((2.0, 3.0), shared=True), "one number for both axes"),
        (lambda: DiffStride2d((2.0, 2.0), limits=(2.5, 4.0)), "must lie within their limits"),
        (lambda: DiffStride2d(smoothness=0.0), "smoothness must be above 0"),
        (lambda: SpectralPool2d((4.0, 4.0))(torch.rand(1, 1, 7, 7)), "a 7x7 map is too small for strides"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("strides", [(1.0, 1.0), (2.7, 3.1)])
def test_the_published_form_exports_with_its_learned_strides(strides):
    layer = DiffStride2d((2.0, 2.0))
    layer.load_state_dict({"strides": torch.tensor(strides)})
    x = torch.rand(1, 2, 32, 17)
    exported = torch.export.export(layer.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), layer(x), rtol=1e-5, atol=1e-5)
