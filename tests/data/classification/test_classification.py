from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.classification.dataset_yaml import is_classification, read_classification_yaml
from data.classification.images import ImageSet
from data.classification.loader import ClassificationAugmentation, ClassificationLoader, mix, shift_and_flip
from data.classification.reading import read_labeled_images
from data.classification.transform import InputTransform
from data.dataset_yaml import read_dataset_yaml
from tests.classification_cases import (
    NAMES10,
    cifar_binary,
    cifar_python,
    mnist,
    some_images,
    tiny_imagenet,
    write_yaml,
)
from utils.errors import UserError

DATA = Path(__file__).parents[3] / "data"


def read(file: Path, split: str, imgsz: int) -> ImageSet:
    description = read_classification_yaml(file)
    return read_labeled_images(description, split, description.transform(imgsz))


def test_cifar10_binary_and_python_files_hold_the_same_images(tmp_path: Path) -> None:
    pixels, labels = some_images(5, 32), [3, 9, 0, 1, 2]
    cifar_binary(tmp_path / "data_batch_1.bin", pixels[:3], labels[:3])
    cifar_binary(tmp_path / "data_batch_2.bin", pixels[3:], labels[3:])
    cifar_python(tmp_path / "data_batch_1", pixels, labels)
    both = {"format": "cifar", "names": NAMES10, "val": "data_batch_1"}
    binary = write_yaml(tmp_path / "a.yaml", train=["data_batch_1.bin", "data_batch_2.bin"], **both)
    for split in ("train", "val"):
        image_set = read(binary, split, 32)
        assert (image_set.pixels == pixels).all()
        assert image_set.labels.tolist() == labels
        assert image_set.names == tuple(NAMES10)


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    pixels, labels, names = some_images(3, 32), [99, 7, 50], [f"c{i}" for i in range(100)]
    cifar_binary(tmp_path / "train.bin", pixels, labels, coarse=True)
    cifar_python(tmp_path / "test", pixels, labels, b"fine_labels")
    file = write_yaml(tmp_path / "a.yaml", format="cifar", names=names, train="train.bin", test="test")
    for split in ("train", "val"):
        image_set = read(file, split, 32)
        assert (image_set.pixels == pixels).all()
        assert image_set.labels.tolist() == labels


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("this ran",)


def test_a_cifar_pickle_that_names_code_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train").write_bytes(pickle.dumps({b"data": Evil()}))
    file = write_yaml(tmp_path / "a.yaml", format="cifar", names=NAMES10, train="train")
    with pytest.raises(UserError, match=r"train: .*builtins\.print"):
        read(file, "train", 32)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train.bin", "train"])
def test_a_truncated_cifar_file_is_named(tmp_path: Path, name: str) -> None:
    write = cifar_binary if name.endswith(".bin") else cifar_python
    write(tmp_path / name, some_images(3, 32), [1, 2, 3])
    content = (tmp_path / name).read_bytes()
    file = write_yaml(tmp_path / "a.yaml", format="cifar", names=NAMES10, train=name)
    (tmp_path / name).write_bytes(content[:-500])
    with pytest.raises(UserError, match=f"{name}: cut short"):
        read(file, "train", 32)


def test_a_label_that_is_no_class_is_named(tmp_path: Path) -> None:
    cifar_binary(tmp_path / "train.bin", some_images(2, 32), [1, 10])
    file = write_yaml(tmp_path / "a.yaml", format="cifar", names=NAMES10, train="train.bin")
    with pytest.raises(UserError, match=r"train\.bin: image 1 has label 10"):
        read(file, "train", 32)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read_plain_and_packed(tmp_path: Path, packed: bool) -> None:
    pixels, labels = some_images(4, 28, 1), [5, 0, 4, 1]
    mnist(tmp_path, "train", pixels[..., 0], labels, packed)
    source = "train-images-idx3-ubyte" + ".gz" * packed
    file = write_yaml(tmp_path / "a.yaml", format="mnist", train=source, resize=28)
    image_set = read(file, "train", 32)
    assert image_set.pixels.shape == (4, 32, 32, 1)
    assert (image_set.pixels[:, 2:30, 2:30] == pixels).all()
    assert image_set.labels.tolist() == labels
    whole = (tmp_path / source).read_bytes()
    (tmp_path / source).write_bytes(whole[:-9])
    with pytest.raises(UserError, match=f"{source}: .*cut short"):
        read(file, "train", 32)
    (tmp_path / source).write_bytes(b"something else")
    with pytest.raises(UserError, match="not an IDX file"):
        read(file, "train", 32)


def test_tiny_imagenet_is_read_in_its_own_layout(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path, ["n02", "n01"])
    file = write_yaml(tmp_path / "a.yaml", format="tiny-imagenet", train="train", val="val")
    train, val = read(file, "train", 64), read(file, "val", 64)
    assert train.names == val.names == ("name 0", "name 1")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert val.labels.tolist() == [0, 1]
    expected = cv2.imread(str(tmp_path / "train/n01/images/n01_1.JPEG"))[..., ::-1]
    assert (train.pixels[3] == expected).all()
    (tmp_path / "train/n03").mkdir()
    with pytest.raises(UserError, match="n03 is not in"):
        read(file, "train", 64)


def test_a_tiny_imagenet_image_of_another_size_is_named(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path, ["n02", "n01"], side=32)
    file = write_yaml(tmp_path / "a.yaml", format="tiny-imagenet", train="train", val="val")
    with pytest.raises(UserError, match=r"n02_0\.JPEG: 32x32 pixels, should be 64x64"):
        read(file, "train", 64)


def test_npz_files_of_both_kinds_are_read(tmp_path: Path) -> None:
    pixels, labels = some_images(4, 28, 1)[..., 0], np.array([0, 1, 1, 2])
    np.savez(tmp_path / "ours.npz", images=pixels, labels=labels, names=["a", "b", "c"])
    np.savez(tmp_path / "keras.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    ours = read(write_yaml(tmp_path / "a.yaml", format="npz", train="ours.npz"), "train", 28)
    keras = read(write_yaml(tmp_path / "b.yaml", format="npz", train="keras.npz"), "train", 28)
    assert (ours.pixels == keras.pixels).all()
    assert (ours.names, keras.names) == (("a", "b", "c"), ("0", "1", "2"))
    np.savez(tmp_path / "ours.npz", images=pixels.astype(float), labels=labels)
    with pytest.raises(UserError, match=r"ours\.npz: images must be uint8"):
        read(tmp_path / "a.yaml", "train", 28)


def folders(root: Path, split: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / split / name).mkdir(parents=True)
        cv2.imwrite(str(root / split / name / "1.png"), np.full((9, 12, 3), (0, 100, 10 * number), np.uint8))


def test_a_folder_a_class_needs_no_yaml(tmp_path: Path) -> None:
    folders(tmp_path, "train", ["b", "a"])
    folders(tmp_path, "test", ["a", "b"])
    assert is_classification(tmp_path)
    image_set = read(tmp_path, "val", 8)
    assert image_set.names == ("a", "b")
    assert image_set.labels.tolist() == [0, 1]
    assert image_set.pixels[1, 4, 4].tolist() == [10, 100, 0]  # RGB


@pytest.mark.parametrize("missing", [True, False])
def test_class_folders_that_differ_are_named(tmp_path: Path, missing: bool) -> None:
    folders(tmp_path, "train", ["a", "b"])
    folders(tmp_path, "test", ["a"] if missing else ["a", "b", "c"])
    with pytest.raises(UserError, match="b missing" if missing else "c not expected"):
        read(tmp_path, "val", 8)


@pytest.mark.parametrize("shape", [(9, 9, 4), (9, 9)])
def test_an_image_of_the_wrong_mode_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folders(tmp_path, "train", ["a", "b"])
    folders(tmp_path, "val", ["a", "b"])
    kind = np.uint8 if len(shape) == 3 else np.uint16
    cv2.imwrite(str(tmp_path / "train/b/wrong.png"), np.ones(shape, kind))
    with pytest.raises(UserError, match=r"b/wrong\.png: an image of mode"):
        read(tmp_path, "train", 8)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folders(tmp_path, "train", ["a", "b"])
    folders(tmp_path, "val", ["a", "b"])
    (tmp_path / "train/a/broken.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a/broken\.png"):
        read(tmp_path, "train", 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "cifer"}, "Did you mean 'cifar'"),
        ({"formt": "npz"}, "unknown key 'formt'"),
        ({"train": None}, "no key 'train' or 'val'"),
        ({"resize": 0}, "'resize' must be"),
        ({"train": "nothing.npz"}, r"nothing\.npz, of 'train', is not there"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    content = {"format": "npz", "train": "a.npz"} | changes
    with pytest.raises(UserError, match=message):
        read(write_yaml(tmp_path / "a.yaml", **content), "train", 8)


def test_each_kind_of_data_set_says_which_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="for classification; this needs one with boxes"):
        read_dataset_yaml(DATA / "mnist5k.yaml")
    with pytest.raises(UserError, match="task: classify"):
        read_classification_yaml(DATA / "treecrowns.yaml")
    assert not is_classification(DATA / "treecrowns.yaml")


@pytest.mark.parametrize(("name", "side"), [("mnist5k", 28), ("mnist5k-14", 14), ("mnist5k-7", 7)])
def test_mnist5k_is_balanced_and_averaged_to_low_resolution(name: str, side: int) -> None:
    full, low = DATA / "mnist5k.yaml", DATA / f"{name}.yaml"
    imgsz = read_classification_yaml(low).recipe["imgsz"]
    digits, small = read(full, "val", 28), read(low, "val", imgsz)
    assert np.bincount(small.labels).tolist() == [100] * 10
    n, border = 28 // side, (imgsz - side) // 2
    mean = digits.pixels.reshape(1000, side, n, side, n).mean((2, 4))
    shown = small.pixels[:, border : border + side, border : border + side, 0]
    assert np.abs(shown - mean).max() <= 0.51
    assert small.pixels.sum() == shown.sum()  # zeros around it
    assert len(read(low, "train", imgsz)) == 4000


def test_an_input_smaller_than_its_images_is_refused() -> None:
    with pytest.raises(UserError, match="--imgsz 16 does not hold"):
        read_classification_yaml(DATA / "mnist5k.yaml").transform(16)


def test_an_input_shows_the_central_square() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 9
    assert (InputTransform(4, 4)(image) == 9).all()
    assert InputTransform(2, 5)(image).sum() == 2 * 2 * 3 * 9


def images(count: int = 7, side: int = 6) -> ImageSet:
    labels = np.arange(count, dtype=np.int64) % 3
    return ImageSet(some_images(count, side), labels, ("a", "b", "c"), ["?"] * count)


def test_shift_and_flip_equal_a_slow_loop() -> None:
    pixels = images().pixels
    import torch

    shifted = shift_and_flip(
        torch.from_numpy(pixels), ClassificationAugmentation(2, 0.5), np.random.default_rng(3)
    )
    rng = np.random.default_rng(3)
    (top, left), flips = rng.integers(0, 5, (2, 7, 1)), rng.random((7, 1)) < 0.5
    assert 0 < flips.sum() < 7
    for i, image in enumerate(pixels):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        crop = padded[top[i, 0] : top[i, 0] + 6, left[i, 0] : left[i, 0] + 6]
        assert (shifted[i].numpy() == (crop[:, ::-1] if flips[i, 0] else crop)).all()


def test_mixup_blends_images_and_targets_by_the_same_share() -> None:
    import torch

    pixels = torch.zeros(4, 2, 2, 1, dtype=torch.uint8)
    pixels[:2] = 200
    targets = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed, shares = mix(pixels, targets, 1.0, np.random.default_rng(1))
    assert torch.allclose(mixed[:, 0, 0, 0] / 200, shares[:, 0], atol=0.003)
    assert torch.allclose(shares.sum(1), torch.ones(4))


def test_batches_depend_on_seed_and_epoch_only() -> None:
    def epoch(seed: int, number: int) -> list:
        loader = ClassificationLoader(images(), 3, ClassificationAugmentation(1, 0.5, 0.2), seed)
        loader.set_epoch(number)
        return [batch.images.clone() for batch in loader]

    assert len(epoch(0, 0)) == 2  # the seventh image waits for another epoch
    same = zip(epoch(0, 4), epoch(0, 4), strict=True)
    assert all((a == b).all() for a, b in same)
    assert any((a != b).any() for a, b in zip(epoch(0, 4), epoch(0, 5), strict=True))
    assert any((a != b).any() for a, b in zip(epoch(0, 4), epoch(1, 4), strict=True))


def test_an_epoch_goes_on_where_it_stopped_and_is_shared_by_processes() -> None:
    from utils.distributed import World

    whole = list(ClassificationLoader(images(), 3, ClassificationAugmentation(1, 0.5, 0.2)))
    later = ClassificationLoader(images(), 3, ClassificationAugmentation(1, 0.5, 0.2))
    later.set_epoch(0, 1)
    assert all((a.images == b.images).all() for a, b in zip(whole[1:], later, strict=True))
    shares = [
        ClassificationLoader(images(), 3, ClassificationAugmentation(1, 0.5, 0.2), world=World(i, 2))
        for i in range(2)
    ]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert (batch.targets[0::2] == first.targets).all()
        assert (batch.images[1::2] == second.images).all()
        assert batch.indices[1::2] == second.indices


def test_validation_shows_every_image_in_order() -> None:
    batches = list(ClassificationLoader(images(), 3))
    assert [len(batch.images) for batch in batches] == [3, 3, 1]
    assert np.concatenate([batch.labels for batch in batches]).tolist() == [0, 1, 2, 0, 1, 2, 0]
