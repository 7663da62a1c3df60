from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.records import read_records, survey_records
from data.paths import PROJECT, in_project, list_folder, read_lines, resolve
from tests.dataset_fixtures import write_image

Make = Callable[..., DatasetConfig]


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("images/train", "set/images/train"),
        ("./images/train", "set/images/train"),
        ("images\\train", "set/images/train"),
        ("../other/images", "other/images"),
        ("../train/images", "set/train/images"),
        ("here/images", "cwd/here/images"),
        ("images/train", "cwd/images/train"),
    ],
)
def test_a_path_is_found_where_its_writer_meant_it(tmp_path: Path, written: str, there: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    (tmp_path / "set").mkdir(exist_ok=True)
    place = resolve(written, [tmp_path / "set", tmp_path / "cwd"])
    assert place is not None and place.resolve() == tmp_path / there


def test_defaults_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_project(Path("data/hyps/low.yaml")) == PROJECT / "data/hyps/low.yaml"
    assert in_project(Path("nowhere.yaml")) == Path("nowhere.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_is_read_however_it_was_saved(tmp_path: Path, encoding: str, end: str) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(end.join(["# mine", "a.jpg", "", " b c.jpg ", "a.jpg", ""]).encode(encoding))
    assert read_lines(file) == ["a.jpg", "b c.jpg", "a.jpg"]


def test_a_folder_is_walked_through_links_once_without_what_systems_leave(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for name in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", "@eaDir/a.jpg", "b.heic", "Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/c.jpg").touch()
    (root / "linked").symlink_to(tmp_path / "far")
    (root / "loop").symlink_to(root)
    listing = list_folder(root, lambda path: path.suffix == ".jpg")
    assert listing.files == [root / "a.jpg", root / "linked/c.jpg"]
    hidden, other = listing.notes(root)
    assert "3 hidden" in hidden and "1 .heic" in other


LIST = "train: lists/train.txt\nnames: [car]\n"
ONE, TWO = ("images/train/a.jpg",), ("images/train/a.jpg", "images/train/B.JPG")
MANY = ("linked/a.jpe", "train/B.JPG", "train/a.jpg", "x.jfif", "y.WEBP", "z.mpo")
Layout = tuple[str, str, bytes | None, tuple[str, ...]]
LAYOUTS: dict[str, Layout] = {  # the YAML's place and text, the list's bytes, and what is resolved
    "folder": ("set/d.yaml", "train: images/train\nnames: [car]", None, ONE),
    "YOLOv5, path": ("data/d.yaml", "path: ../set\ntrain: images/train\nnames: [car]", None, ONE),
    "path, current folder": ("far/d.yaml", "path: set\ntrain: images/train\nnames: [car]", None, ONE),
    "Ultralytics, the YAML moved into the set": (
        "set/d.yaml", "path: ../datasets/set\ntrain: images/train\nnames: {0: car}", None, ONE,
    ),
    "Roboflow": ("set/d.yaml", "train: ../images/train\nnames: ['car']", None, ONE),
    "one image": ("set/d.yaml", "train: images/train/a.jpg\nnames: [car]", None, ONE),
    "backslashes": ("set/d.yaml", "train: images\\train\nnames: [car]", None, ONE),
    "list, relative to path": ("set/d.yaml", LIST, b"images/train/a.jpg\n", ONE),
    "list, with ./": ("set/d.yaml", LIST, b"./images/train/a.jpg", ONE),
    "list, relative to itself": ("set/d.yaml", LIST, b"../images/train/a.jpg\n", ONE),
    "list, current folder": ("set/d.yaml", LIST, b"set/images/train/a.jpg\n", ONE),
    "list, Windows": ("set/d.yaml", LIST, b"\xef\xbb\xbfimages\\train\\a.jpg\r\n\r\n", ONE),
    "list, UTF-16": ("set/d.yaml", LIST, "images\\train\\a.jpg\r\n".encode("utf-16"), ONE),
    "list, comments and quotes": (
        "set/d.yaml", LIST, b"# mine\n\n 'images/train/a.jpg' \n\timages/train/B.JPG\n", TWO,
    ),
    "list that repeats": ("set/d.yaml", LIST, b"images/train/a.jpg\n./images/train/../train/a.jpg\n", ONE),
    "links, endings, litter": (
        "set/d.yaml", "train: images\nnames: [car]", None, tuple(f"images/{name}" for name in MANY),
    ),
}  # fmt: skip
LITTER = ("._x.jpg", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints/x.jpg", "@eaDir/x.jpg", "raw.dng")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_resolves_to_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    place, text, listed, expected = LAYOUTS[layout]
    home = tmp_path / "home"
    images = home / "set/images"
    for name in ("set/images/train", "set/lists", "data", "far", "set/labels/train", "elsewhere"):
        (home / name).mkdir(parents=True)
    if "litter" in layout:
        for name in LITTER:
            (images / name).parent.mkdir(exist_ok=True)
            (images / name).write_bytes(b"x")
        Image.new("RGB", (8, 8)).save(home / "elsewhere/a.jpe", "JPEG")
        (images / "linked").symlink_to(home / "elsewhere")
        for name, kind in (("x.jfif", "JPEG"), ("y.WEBP", "WEBP"), ("z.mpo", "MPO")):
            Image.new("RGB", (8, 8)).save(images / name, kind)
    for name in ("a.jpg", "B.JPG"):
        if f"images/train/{name}" in expected:
            Image.new("RGB", (8, 8)).save(images / "train" / name, "JPEG")
    (home / place).write_text(text)
    if listed is not None:
        (home / "set/lists/train.txt").write_bytes(listed)
    monkeypatch.chdir(home)
    survey = survey_records(read_dataset_yaml(Path(place)), "train")
    resolved = [Path(os.path.abspath(record.path)) for record in survey.records]
    assert resolved == [home / "set" / name for name in expected]
    assert survey.broken == []
    if "litter" in layout:
        hidden, other = (note for note in survey.notes if "skipped" in note)
        assert "3 hidden file(s) or folder(s)" in hidden and "1 .dng" in other
    assert ("names 1 image(s) again" in str(survey.notes)) == ("repeats" in layout)


@pytest.mark.parametrize("line", ["images\\train\\000.jpg", "./images/train/000.jpg", "images/train/000.jpg"])
def test_a_list_elsewhere_names_images_below_the_root(yolo_set: Make, line: str) -> None:
    description = yolo_set("0 .5 .5 .25 .5\n")
    (description.path / "lists").mkdir()
    (description.path / "lists/val.txt").write_text(line)
    file = description.path / "list.yaml"
    file.write_text("val: lists/val.txt\nnames: [car]")
    records, _ = read_records(read_dataset_yaml(file), "val")
    assert [len(record.classes) for record in records] == [1]


def test_the_zip_of_roboflow_is_read_as_it_comes(tmp_path: Path) -> None:
    write_image(tmp_path / "set/train/images/a.jpg")
    (tmp_path / "set/train/labels").mkdir()
    (tmp_path / "set/train/labels/a.txt").write_text("0 .5 .5 .25 .5\n")
    file = tmp_path / "set/data.yaml"
    file.write_text("train: ../train/images\nnc: 1\nnames: ['red']\n")
    records, _ = read_records(read_dataset_yaml(file), "train")
    assert [len(record.classes) for record in records] == [1]


def test_numbers_that_names_leave_out_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: a\nnames: {0: car, 2: bus}")
    description = read_dataset_yaml(file)
    assert description.names == ("car", "class1", "bus")
    assert any("leaves out 1 number" in note for note in description.notes)
