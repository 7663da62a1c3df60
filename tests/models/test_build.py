import copy

import pytest
import torch
import yaml

from models import build_model, fuse_detector
from models.architecture import CONFIGS, model_names, read_architecture
from models.build import largest_stride
from models.fuse import fold_batchnorm
from models.layers.blocks import Conv
from models.layers.cross_stage import Contract, Expand
from models.summary import count_gflops, count_parameters, summarize
from utils.errors import UserError

PARAMETERS = {  # at 80 classes, as published
    "yolov5n": 1_872_157,
    "yolov5s": 7_235_389,
    "yolov5m": 21_190_557,
    "yolov5l": 46_563_709,
    "yolov5x": 86_749_405,
    "yolov5n-spd": 2_256_157,
    "yolov5s-spd": 8_771_389,
    "yolov5m-spd": 24_646_557,
    "yolov5l-spd": 52_707_709,
}
FOLDED = {
    "yolov5n": 1_867_405,
    "yolov5s": 7_225_885,
    "yolov5m": 21_172_173,
    "yolov5l": 46_533_693,
    "yolov5x": 86_705_005,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    model = build_model(name)
    assert count_parameters(model) == PARAMETERS[name]
    if name in FOLDED:
        for module in model.modules():
            if isinstance(module, Conv):
                fold_batchnorm(module)
        assert count_parameters(model) == FOLDED[name]


@pytest.mark.parametrize(("name", "gflops"), [("yolov5n", 4.5), ("yolov5s", 16.5)])
def test_arithmetic_agrees_with_yolov5(name, gflops):
    assert count_gflops(build_model(name)) == pytest.approx(gflops, rel=0.01)


def test_released_spd_needs_almost_twice_the_arithmetic_of_its_baseline():
    ratio = count_gflops(build_model("yolov5n-spd")) / count_gflops(build_model("yolov5n"))
    assert ratio == pytest.approx(1.97, abs=0.01)


@pytest.mark.parametrize("name", ["yolov5n-p2", "yolov5n-spd-p2"])
def test_p2_networks_have_a_fourth_level_at_stride_4(name):
    model = build_model(name, num_classes=3)
    assert model.stride.tolist() == [4, 8, 16, 32]
    assert model(torch.rand(2, 3, 64, 96))[0].shape == (2, 3, 16, 24, 8)
    assert (model.head.anchors[0] == model.head.anchors[3]).all()  # a bare number: the same in strides


def test_anchors_are_kept_in_strides_and_can_be_replaced():
    model = build_model("yolov5n", num_classes=2)
    assert model.head.anchors[2, 2].tolist() == [373 / 32, 326 / 32]
    pixels = torch.arange(18.0).view(3, 3, 2) + 1
    model.set_anchors(pixels)
    torch.testing.assert_close(model.head.anchors * model.stride.view(-1, 1, 1), pixels)
    assert model.yaml["anchors"] == pixels.flatten(1).tolist()
    with pytest.raises(ValueError, match=r"\(3, 3, 2\), got \(2, 3, 2\)"):
        model.set_anchors(pixels[:2])


def test_anchors_largest_first_are_reversed():
    rows = [[116, 90, 156, 198, 373, 326], [30, 61, 62, 45, 59, 119], [10, 13, 16, 30, 33, 23]]
    ours = build_model("yolov5n", anchors=rows)
    assert torch.equal(ours.head.anchors, build_model("yolov5n").head.anchors)


@pytest.mark.parametrize(
    "spelling",
    ["yolov5n-spd", "yolov5n-spd.yaml", "models/yolov5n-spd.yaml", str(CONFIGS / "yolov5n-spd.yaml")],
)
def test_a_name_a_file_name_and_a_path_mean_the_same(spelling):
    assert build_model(spelling).yaml == build_model("yolov5n-spd").yaml


def test_the_architecture_of_a_model_builds_it_again():
    for name, swap in (("yolov5n-spd", None), ("yolov5n-p2", None), ("yolov5n", "avg")):
        model = build_model(name, num_classes=4, downsample=swap)
        again = build_model(copy.deepcopy(model.yaml))
        assert again.yaml == model.yaml
        assert again.state_dict().keys() == model.state_dict().keys()


def test_yolov5s_own_spelling_builds_the_same_network(tmp_path):
    content = yaml.safe_load((CONFIGS / "yolov5.yaml").read_text(encoding="utf-8"))
    del content["scales"]
    content.update(depth_multiple=0.33, width_multiple=0.25, ch=3, inplace=True)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert count_parameters(build_model(path)) == PARAMETERS["yolov5n"]


def _rows(text):
    """A small model in YOLOv5's format; `text` holds its rows between stem and head."""
    return yaml.safe_load(f"""
        nc: 2
        depth_multiple: 1.0
        width_multiple: 0.25
        anchors: 2
        backbone: [[-1, 1, Conv, [64, 3, 2]], {text}]
        head: [[[-1], 1, Detect, [nc, anchors]]]""")


@pytest.mark.parametrize(
    "row",
    [
        "[-1, 1, DWConv, [64, 3, 2]]",
        "[-1, 3, Bottleneck, [64]]",
        "[-1, 2, Conv, [128, 3]]",
        "[-1, 1, SPP, [128, [5, 9, 13]]]",
        "[-1, 1, Focus, [128, 3]]",
        "[-1, 1, GhostConv, [128, 3, 2]]",
        "[-1, 3, C3Ghost, [128]]",
        "[-1, 3, C3Ghost, [128, False]]",
        "[-1, 1, GhostBottleneck, [128, 3, 2]]",
        "[-1, 2, GhostBottleneck, [64]]",
        "[-1, 3, BottleneckCSP, [128, False]]",
        "[-1, 3, C3x, [128]]",
        "[-1, 1, C3SPP, [128, [3, 5]]]",
        "[-1, 1, CrossConv, [128, 3, 2]]",
        "[-1, 1, CrossConv, [64, 3, 1, 1, 1.0, True]]",
        "[-1, 1, Contract, [2]]",
        "[-1, 1, Contract, [4]], [-1, 1, Expand, [2]]",
        "[-1, 1, nn.ConvTranspose2d, [128, 4, 2, 1]]",
        "[-1, 2, C3TR, [128]]",
        "[-1, 1, nn.MaxPool2d, [2, 2, 0]]",
        "[-1, 1, nn.ZeroPad2d, [[0, 2, 0, 2]]], [-1, 1, nn.MaxPool2d, [3, 2, 0]]",
        "[-1, 1, nn.Upsample, [None, 2, 'bilinear']]",
        "[-1, 1, Downsample, [128, spd]]",
    ],
)
def test_every_common_block_of_yolov5_trains_and_fuses(row):
    model = build_model(_rows(row))
    images = torch.rand(2, 3, 64, 64)
    model(images)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    with torch.no_grad():
        before, after = model(images)[0], fuse_detector(model)(images)[0]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-5)


def test_the_largest_stride_is_that_of_the_last_level_and_leaves_the_random_numbers_alone():
    rows = [[-1, 1, "Conv", [16, 3, 2]] for _ in range(6)]
    head = [[[-2, -1], 1, "Detect", ["nc", "anchors"]]]
    before = torch.random.get_rng_state()
    assert largest_stride({"nc": 1, "anchors": 3, "backbone": rows, "head": head}) == 64
    assert (largest_stride("yolov5n"), largest_stride("resnet18")) == (32, 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_expand_undoes_contract():
    x = torch.rand(2, 3, 8, 12)
    contracted = Contract(2)(x)
    for j, i in ((0, 0), (0, 1), (1, 0), (1, 1)):
        group = 2 * j + i
        assert torch.equal(contracted[:, 3 * group : 3 * group + 3], x[..., j::2, i::2])
    assert torch.equal(Expand(2)(contracted), x)


def test_rarer_blocks_have_yolov5s_names():
    def keys(row):
        names = build_model(_rows(row)).model[1].state_dict()
        return {name.removesuffix(".weight") for name in names if name.endswith(".weight")}

    bottleneck = {f"m.0.{conv}.{part}" for conv in ("cv1", "cv2") for part in ("conv", "bn")}
    convs = {f"{conv}.{part}" for conv in ("cv1", "cv2", "cv3") for part in ("conv", "bn")}
    spp = {f"m.{conv}.{part}" for conv in ("cv1", "cv2") for part in ("conv", "bn")}
    csp = {"cv1.conv", "cv1.bn", "cv2", "cv3", "cv4.conv", "cv4.bn", "bn"}
    assert keys("[-1, 1, BottleneckCSP, [64]]") == bottleneck | csp
    assert keys("[-1, 1, C3x, [64]]") == bottleneck | convs
    assert keys("[-1, 1, C3SPP, [64]]") == spp | convs
    ghosts = {f"conv.{i}.{conv}.{part}" for i in (0, 2) for conv in ("cv1", "cv2") for part in ("conv", "bn")}
    halves = {f"{path}.{part}" for path in ("conv.1", "shortcut.0", "shortcut.1") for part in ("conv", "bn")}
    assert keys("[-1, 1, GhostBottleneck, [64]]") == ghosts
    assert keys("[-1, 1, GhostBottleneck, [64, 3, 2]]") == ghosts | halves


def test_activation_replaces_silu_everywhere():
    model = build_model({**_rows("[-1, 1, C3, [64]]"), "activation": "nn.LeakyReLU(0.1)"})
    kinds = {type(m) for m in model.modules() if "activation" in type(m).__module__}
    assert kinds == {torch.nn.LeakyReLU}
    assert next(m for m in model.modules() if isinstance(m, torch.nn.LeakyReLU)).negative_slope == 0.1


MISTAKES = [
    (
        "[-1, 1, Cnov, [64]]",
        "backbone row 2 (Cnov): unknown block 'Cnov'. Did you mean 'Conv'? Choose from: ",
    ),
    (
        "[-1, 1, C3, [64, True, 1, x]]",
        "backbone row 2 (C3): argument 4, 'expansion', takes a number, got 'x'",
    ),
    ("[-1, 1, C3, [64, True, 1, 0.5, x]]", "backbone row 2 (C3): unexpected argument 5, 'x'"),
    ("[-1, 1, Conv, []]", "backbone row 2 (Conv): argument 1, 'out', is missing"),
    (
        "[-1, 1, Conv, [64, '3']]",
        "backbone row 2 (Conv): argument 2, 'kernel', takes a whole number, got '3'",
    ),
    ("[-1, 1, Conv, [64, True]]", "argument 2, 'kernel', takes a whole number, got True"),
    ("[-1, 1, SPP, [64, 5]]", "argument 2, 'kernels', takes a list or None, got 5"),
    ("[-1, 1, nn.ZeroPad2d, [x]]", "argument 1, 'sides', takes a whole number or a list, got 'x'"),
    ("[-1, 1, Conv, [-64]]", "backbone row 2 (Conv): the number of channels must be at least 1, got -64"),
    ("[7, 1, Conv, [64]]", "backbone row 2 (Conv): 'from' 7 is not an earlier layer (0 to 0)"),
    ("[-3, 1, Conv, [64]]", "'from' -3 is not an earlier layer (0 to 0)"),
    ("[[-1, 0], 1, Conv, [64]]", "backbone row 2 (Conv): takes one input, and 'from' names 2"),
    ("[x, 1, Conv, [64]]", "backbone row 2: 'from' must be a layer's index or a list of them, got 'x'"),
    ("[-1, 0, Conv, [64]]", "backbone row 2: number must be a whole number above 0, got 0"),
    ("[-1, 1, Conv]", "backbone row 2 must be [from, number, block, arguments], got [-1, 1, 'Conv']"),
    ("[-1, 1, Conv, 64]", "backbone row 2 (Conv): the arguments must be a list, got 64"),
    (
        "[-1, 1, Conv, [64, 3, 2]], [[-1, 0], 1, Concat, [1]]",
        "backbone row 3 (Concat): Sizes of tensors must match",
    ),
    ("[-1, 1, space_to_depth, [2]]", "backbone row 2 (space_to_depth): stacks along dimension 1"),
    ("[-1, 1, Downsample, [64, sdp]]", "(Downsample): unknown downsampler 'sdp'. Did you mean 'spd'?"),
    ("[-1, 1, Conv, [64, 3, 1, 1, 7]]", "backbone row 2 (Conv): "),
    ("[-1, 1, nn.Upsample, [None, 2, nearer]]", "backbone row 2 (nn.Upsample): "),
    ("[[-1], 1, Detect, [nc, anchors]]", "backbone row 2 (Detect): Detect must be the last row"),
    ("[-1, 1, __import__('os').abort(), []]", "unknown block"),
]


@pytest.mark.parametrize(("row", "message"), MISTAKES, ids=[row for row, _ in MISTAKES])
def test_a_mistake_in_a_row_is_named_with_its_place(row, message):
    with pytest.raises(UserError) as caught:
        build_model(_rows(row))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbnoe": []}, "model YAML: unknown key 'backbnoe'. Did you mean 'backbone'? Choose from: "),
        ({"nc": 0}, "nc, the number of classes, must be a whole number above 0, got 0"),
        ({"nc": None}, "nc, the number of classes, must be a whole number above 0, got None"),
        ({"width_multiple": "wide"}, "width_multiple must be a number above 0, got 'wide'"),
        ({"anchors": None}, "anchors must be rows of width, height in pixels, or a number, got None"),
        ({"anchors": [[1, 2, 3]]}, "anchors row 1: must be width, height pairs"),
        (
            {"anchors": [[1, 2], [3, 4]]},
            "head row 1 (Detect): has 1 inputs, and there are anchors for 2 levels",
        ),
        ({"anchors": [[1, -2]]}, "anchors row 1 must be a number above 0, got -2"),
        ({"head": []}, "'head' must be a list of rows"),
        ({"head": [[-1, 1, "Conv", [64]]]}, "head row 1 (Conv): Detect must be the last row, and only that"),
        ({"activation": "os.system('true')"}, "unknown activation"),
        ({"activation": "nn.SiLu()"}, "unknown activation 'nn.SiLu()'. Did you mean 'SiLU'?"),
        ({"scales": {"n": [1.0]}, "scale": "n"}, "scale n must be [depth, width, max_channels], got [1.0]"),
        ({"scales": {"n": [1.0, 1.0]}}, "has several scales; say which"),
    ],
)
def test_a_mistake_in_a_key_is_named(change, message):
    with pytest.raises(UserError) as caught:
        build_model({**_rows("[-1, 1, C3, [64]]"), **change})
    assert message in str(caught.value)


def test_an_unknown_model_names_the_choices(tmp_path):
    with pytest.raises(UserError, match=r"unknown model 'yolov5n-sdp'. Did you mean 'yolov5n-spd'\? Choose"):
        build_model("yolov5n-sdp")
    with pytest.raises(UserError, match=r"no model file .*there.yaml"):
        build_model(tmp_path / "there.yaml")
    with pytest.raises(UserError, match=r"say which: yolov5n-spd, yolov5s-spd"):
        build_model(CONFIGS / "yolov5-spd.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("nc: [1\nhead: }", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken.yaml is not valid YAML"):
        build_model(broken)


def test_every_built_in_name_can_be_read():
    assert {"yolov5n", "yolov5x-p2", "yolov5l-spd", "yolov5s-spd-p234", "resnet50-spd"} < set(model_names())
    for name in model_names():
        read_architecture(name)


def test_downsample_swaps_every_strided_row_and_only_those():
    names = [row[2] for section in ("backbone", "head") for row in build_model("yolov5n").yaml[section]]
    swapped = build_model("yolov5n", downsample="max").yaml
    assert [row[2] for section in ("backbone", "head") for row in swapped[section]].count("Downsample") == 6
    assert names.count("Conv") == 9
    with pytest.raises(UserError, match="replaces stride-2 3x3 Conv rows, and this model has none"):
        build_model("yolov5n-spd", downsample="max")


def test_strided_downsampling_is_yolov5_itself():
    plain, swapped = build_model("yolov5n"), build_model("yolov5n", downsample="strided")
    swapped.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images)[0], swapped.eval()(images)[0])


def test_summary_of_a_size_that_does_not_fit_names_the_stride():
    with pytest.raises(UserError, match="imgsz must be a multiple of the model's stride 32, got 650"):
        summarize(build_model("yolov5n"), 650)


def test_building_does_not_change_the_given_dict():
    content = _rows("[-1, 1, C3, [64]]")
    before = copy.deepcopy(content)
    build_model(content, num_classes=7, anchors=3)
    assert content == before
