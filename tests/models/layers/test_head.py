import math

import pytest
import torch

from models import build_model, fuse_detector
from models.layers.head import Detect


def make_head(num_classes=3, channels=(8, 16), strides=(8.0, 16.0)):
    head = Detect(num_classes, 2, channels)
    head.stride = torch.tensor(strides)
    head.anchors = torch.rand(len(channels), 2, 2) * 4 + 1
    return head


def test_decoding_equals_the_formula_cell_by_cell():
    head = make_head()
    raw = [torch.randn(2, 2, 3, 5, 8), torch.randn(2, 2, 2, 4, 8)]
    decoded = head.decode(raw)
    expected = []
    for image in range(2):
        predictions = []
        for level, (values, stride) in enumerate(zip(raw, (8, 16), strict=True)):
            for anchor in range(2):
                for row in range(values.shape[2]):
                    for column in range(values.shape[3]):
                        p = values[image, anchor, row, column].sigmoid().tolist()
                        width, height = (head.anchors[level, anchor] * stride).tolist()
                        x, y = (2 * p[0] - 0.5 + column) * stride, (2 * p[1] - 0.5 + row) * stride
                        predictions.append([x, y, (2 * p[2]) ** 2 * width, (2 * p[3]) ** 2 * height, *p[4:]])
        expected.append(predictions)
    torch.testing.assert_close(decoded, torch.tensor(expected))


def test_biases_start_from_eight_objects_and_even_classes():
    head = Detect(4, 3, [8])
    head.stride = torch.tensor([16.0])
    before = head.m[0].bias.detach().view(3, -1).clone()
    head.initialize_bias()
    change = head.m[0].bias.detach().view(3, -1) - before
    torch.testing.assert_close(change[:, 4], torch.full((3,), math.log(8 / 40**2)))
    torch.testing.assert_close(change[:, 5:], torch.full((3, 4), math.log(0.6 / (4 - 0.99999))))
    assert not change[:, :4].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_decode_in_float32(dtype):
    model = build_model("yolov5n", num_classes=2).eval()
    anchors = model.head.anchors.clone()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        reference = model(images)[0]
        decoded, raw = model.to(dtype)(images.to(dtype))
    assert raw[0].dtype == dtype
    assert decoded.dtype == torch.float32
    assert torch.equal(model.head.anchors, anchors)
    torch.testing.assert_close(decoded[..., :2], reference[..., :2], atol=2.0, rtol=0)


def test_sizes_that_do_not_fit_the_stride_are_refused():
    model = build_model("yolov5n", num_classes=2)
    with pytest.raises(ValueError, match="height 64 and width 70 must be multiples of the stride, 32"):
        model(torch.rand(1, 3, 64, 70))


def test_eval_mode_exports_with_free_batch_height_and_width():
    class Decoded(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images)[0]

    stem = [[-1, 1, "Focus", [8, 3]], [-1, 1, "space_to_depth", [1]], [-1, 1, "C3", [16]]]
    small = {"nc": 2, "anchors": 2, "backbone": stem, "head": [[[-1, 0], 1, "Detect", ["nc", "anchors"]]]}
    model = Decoded(fuse_detector(build_model(small)))
    batch, rows, columns = (torch.export.Dim(name, min=1, max=64) for name in ("batch", "rows", "columns"))
    exported = torch.export.export(
        model, (torch.rand(2, 3, 16, 24),), dynamic_shapes=({0: batch, 2: 4 * rows, 3: 4 * columns},)
    )
    images = torch.rand(3, 3, 32, 20)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(images), model(images))
