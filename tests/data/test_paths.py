from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.records import read_records
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
