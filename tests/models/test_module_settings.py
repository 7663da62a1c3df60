import struct
import zipfile

import pytest
import torch

from models import build_model, load_model
from models.checkpoint import read_checkpoint, save_checkpoint
from models.layers.blocks import Conv
from models.load import from_checkpoint, to_checkpoint
from models.module_settings import built_settings, described_by, difference
from tests.golden_values import GOLDEN
from tests.models.yolov5_stand_ins import load_as_yolov5, save_as_yolov5
from utils.errors import UserError

SILU = b"ctorch.nn.modules.activation\nSiLU\n"


def change_pickle(tmp_path, old: bytes, new: bytes, count: int = -1):
    """Write the reference's checkpoint with some bytes of its pickle changed."""
    path = tmp_path / "changed.pt"
    with zipfile.ZipFile(GOLDEN / "yolov5n.pt") as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                assert old in content
                content = content.replace(old, new, count)
            archive.writestr(name, content)
    return path


def a_float(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "Hardswish", "LeakyReLU", "Identity", "Mish"])
def test_a_network_has_the_activation_that_its_file_holds(tmp_path, name):
    module = b"linear" if name == "Identity" else b"activation"
    given = b"ctorch.nn.modules.%s\n%s\n" % (module, name.encode())
    model = load_model(change_pickle(tmp_path, SILU, given))
    kinds = {type(m.act) for m in model.modules() if isinstance(m, Conv)}
    assert kinds == {getattr(torch.nn, name)}
    plain = load_model(GOLDEN / "yolov5n.pt")
    for module in plain.modules():
        if isinstance(module, Conv):
            module.act = getattr(torch.nn, name)()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(images)[0], plain(images)[0])
    save_checkpoint(tmp_path / "ours.pt", to_checkpoint(model))
    assert torch.equal(load_model(tmp_path / "ours.pt")(images)[0], model(images)[0])


def test_an_unknown_activation_is_refused_by_name(tmp_path):
    path = change_pickle(tmp_path, SILU, b"cutils.activations\nFReLU\n")
    with pytest.raises(UserError, match=r"changed.pt: model.0.act: unknown activation FReLU"):
        load_model(path)


def test_batchnorm_has_the_eps_and_momentum_of_the_file(tmp_path):
    path = change_pickle(tmp_path, a_float(1e-3), a_float(1e-5))
    model = load_model(path)
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}
    images = torch.rand(1, 3, 64, 64)
    assert not torch.equal(model(images)[0], load_model(GOLDEN / "yolov5n.pt")(images)[0])
    save_checkpoint(tmp_path / "ours.pt", to_checkpoint(model))
    assert torch.equal(load_model(tmp_path / "ours.pt")(images)[0], model(images)[0])


def test_batchnorm_has_the_momentum_of_the_file(tmp_path):
    model = load_model(change_pickle(tmp_path, a_float(0.03), a_float(0.1)))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)}
    save_checkpoint(tmp_path / "ours.pt", to_checkpoint(model))
    assert {
        m.momentum for m in load_model(tmp_path / "ours.pt").modules() if isinstance(m, torch.nn.BatchNorm2d)
    } == {0.1}


def test_one_batchnorm_unlike_the_others_is_refused_by_name(tmp_path):
    path = change_pickle(tmp_path, a_float(1e-3), a_float(1e-5), count=1)
    with pytest.raises(UserError, match=r"model.0.bn.eps is 1e-05 in the file, and 0.001 by its architect"):
        load_model(path)


def _plain():
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3", [16]], [-1, 1, "nn.MaxPool2d", [2]]]
    head = [[-1, 1, "Detect", ["nc", "anchors"]]]
    return build_model({"nc": 2, "anchors": [[4, 4, 8, 8]], "backbone": rows, "head": head})


def _set(path, **attributes):
    def change(model):
        vars(model.get_submodule(path)).update(attributes)

    return change


def _replace(path, module):
    def change(model):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, module)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("model.0.conv", stride=(1, 1)), "model.0.conv.stride is (1, 1) in the file, and (2, 2) by"),
        (_set("model.0.conv", padding=(0, 0)), "model.0.conv.padding is (0, 0)"),
        (_set("model.0.conv", groups=2), "model.0.conv.groups is 2"),
        (_set("model.0.conv", dilation=(2, 2)), "model.0.conv.dilation is (2, 2)"),
        (_set("model.0.conv", padding_mode="reflect"), "model.0.conv.padding_mode is 'reflect'"),
        (_set("model.1.m.0", add=False), "model.1.m.0.add is False in the file, and True"),
        (_set("model.2", ceil_mode=True), "model.2.ceil_mode is True"),
        (_set("model.2", kernel_size=3), "model.2.kernel_size is 3"),
        (_replace("model.0.act", torch.nn.ReLU()), "model.0.act is ReLU in the file, and SiLU"),
        (_replace("model.2", torch.nn.AvgPool2d(2)), "model.2 is AvgPool2d in the file, and MaxPool2d"),
        (_replace("model.1.drop", torch.nn.Dropout()), "there is no place for model.1.drop, Dropout"),
        (lambda model: delattr(model.model[0], "act"), "model.0.act, SiLU, is missing"),
    ],
)
def test_every_setting_of_every_module_is_compared(change, message):
    given = _plain()
    change(given)
    assert difference(built_settings(given), built_settings(_plain())).startswith(message)


def test_equal_networks_have_no_difference():
    assert difference(built_settings(_plain()), built_settings(_plain())) == ""
    assert described_by(built_settings(_plain())) == {}


def test_a_fused_network_is_refused_as_such():
    given = _plain()
    del given.model[0].bn
    with pytest.raises(UserError, match="the network is fused"):
        described_by(built_settings(given))


def test_a_fused_file_of_yolov5_is_refused_as_such(tmp_path):
    """YOLOv5 folds BatchNorm into the convolution and, in place of `forward`, stores another method."""
    network = load_as_yolov5(GOLDEN / "yolov5n.pt")["model"]
    convs = [module for module in network.modules() if hasattr(module, "bn")]
    for module in convs:
        module.conv.bias = torch.nn.Parameter(torch.zeros(module.conv.out_channels))
        del module.bn
    save_as_yolov5(tmp_path / "fused.pt", network)
    with pytest.raises(UserError, match=r"fused.pt: the network is fused .* give the file from before that"):
        load_model(tmp_path / "fused.pt")
    for module in convs:
        module.forward = module.forward
    save_as_yolov5(tmp_path / "fused.pt", network)
    with pytest.raises(
        UserError, match=r"fused.pt is refused: .*getattr, as networks do that YOLOv5 has fused"
    ):
        load_model(tmp_path / "fused.pt")


def test_a_bfloat16_file_of_yolov5_is_read_with_its_values(tmp_path):
    network = load_as_yolov5(GOLDEN / "yolov5n.pt")["model"].bfloat16()
    save_as_yolov5(tmp_path / "bf16.pt", network)
    loaded = load_model(tmp_path / "bf16.pt").state_dict()
    for key, value in network.state_dict().items():
        assert loaded[key].dtype in (torch.float32, torch.int64)
        assert torch.equal(loaded[key], value.to(loaded[key].dtype)), key


def test_16_bit_weights_of_either_kind_are_widened_exactly(tmp_path):
    model = load_model(GOLDEN / "yolov5n.pt").bfloat16()
    save_checkpoint(tmp_path / "bf16.pt", to_checkpoint(model))
    loaded = load_model(tmp_path / "bf16.pt")
    for key, value in loaded.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, model.state_dict()[key].to(value.dtype))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nn.ReLU()", torch.nn.ReLU),
        ("nn.ReLU", torch.nn.ReLU),
        ("torch.nn.Hardswish(inplace=True)", torch.nn.Hardswish),
        ("nn.LeakyReLU(negative_slope=0.1, inplace=True)", torch.nn.LeakyReLU),
    ],
)
def test_activations_are_named_as_in_yolov5s_files(text, expected):
    model = build_model({**_plain().yaml, "activation": text})
    assert type(model.model[0].act) is expected
    assert getattr(model.model[0].act, "negative_slope", 0.1) == 0.1
    assert {m.act.training for m in model.modules() if isinstance(m, Conv)} == {True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn.Mish(0.3)", "activation 'nn.Mish(0.3)': nn.Mish takes no number"),
        ("nn.LeakyReLU(slope=1)", "nn.LeakyReLU takes one number, negative_slope"),
        ("nn.LeakyReLU(nn.ReLU())", "unknown activation"),
        ("os.ReLU()", "unknown activation"),
    ],
)
def test_activations_that_cannot_be_made_are_named(text, message):
    with pytest.raises(UserError) as caught:
        build_model({**_plain().yaml, "activation": text})
    assert message in str(caught.value)


def test_a_network_of_four_channels_ends_in_one_line():
    with pytest.raises(UserError, match="ch is 4, and detectors here take 3 channels"):
        build_model({**_plain().yaml, "ch": 4})


def test_other_strides_than_the_files_are_refused():
    content = {**read_checkpoint(GOLDEN / "yolov5n.pt"), "strides": [8.0, 16.0, 64.0]}
    with pytest.raises(UserError, match=r"strides \[8.0, 16.0, 64.0\] in the file, \[8.0, 16.0, 32.0\] as"):
        from_checkpoint(content)
