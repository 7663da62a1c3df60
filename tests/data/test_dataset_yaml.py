from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import data.dataset_yaml
from data.classification.dataset_yaml import read_classification_yaml
from data.dataset_yaml import find_dataset_yaml, read_dataset_yaml
from data.tiling import Tiling
from utils.errors import UserError


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def test_names_may_be_a_list_or_numbered(tmp_path: Path) -> None:
    numbered = read_dataset_yaml(write(tmp_path, "train: a\nnames: {1: person, 0: car}"))
    assert numbered.names == ("car", "person")
    assert read_dataset_yaml(write(tmp_path, "train: a\nnames: [car, person]")).names == numbered.names


def test_foreign_keys_are_noted_and_never_run(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    text = f"train: a\nnames: [car]\nnc: 1\ndownload: |\n  import os; os.mkdir('{planted}')\n"
    description = read_dataset_yaml(write(tmp_path, text))
    assert [note.split("key ")[1].split(" ")[0] for note in description.notes] == ["'nc'", "'download'"]
    assert not planted.exists()


def test_path_is_looked_for_beside_the_yaml_then_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/root").mkdir(parents=True)
    (tmp_path / "yamls").mkdir()
    file = write(tmp_path / "yamls", "path: root\ntrain: a\nnames: [car]")
    monkeypatch.chdir(tmp_path / "here")
    assert read_dataset_yaml(file).path == tmp_path / "here/root"
    (tmp_path / "yamls/root").mkdir()
    assert read_dataset_yaml(file).path == tmp_path / "yamls/root"


def test_a_missing_root_names_every_place_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yamls").mkdir()
    with pytest.raises(UserError) as caught:
        read_dataset_yaml(write(tmp_path / "yamls", "path: nowhere\ntrain: a\nnames: [car]"))
    assert str(tmp_path / "yamls/nowhere") in str(caught.value)
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [car]", "no key 'train'"),
        ("train: a", "no key 'names'"),
        ("train: 3\nnames: [car]", "'train' must be"),
        ("train: a\nnames: car", "'names' must be a list"),
        ("train: a\nnames: [no]", "put it in quotes"),
        ("train: a\nnames: {0: car, -2: bus}", "must be numbers of classes from 0"),
        ("train: a\nnames: [car]\ntile: 640", "'tile' must be like"),
        ("train: a\nnames: [car]\ntile: {size: 640, overlp: .2}", "Did you mean 'overlap'"),
        ("train: a\nnames: [car]\ntile: {size: 640, overlap: 1}", "from 0 to below 1"),
        ("train: a\nnames: [car]\ntile: {size: -1}", "whole number"),
        ("train: a\nnames: [car]\ncategory_ids: [1, 2]", "1 different ids"),
        ("train: a\nnames: [car]\nimages: {trian: a}", "Did you mean 'train'"),
        ("- a", "found the list ['a']"),
        ("train: [", "not valid YAML"),
        ("train: a\nnames: [car]\nrecipe: low.yaml", "'recipe' must be like"),
        ("train: a\nnames: [car]\nrecipe: {epoch: 3}", "Did you mean 'epochs'"),
        ("train: a\nnames: [car]\nrecipe: {epochs: 0}", "whole number from 1"),
        ("train: a\nnames: [car]\nrecipe: {hyp: 3}", "must be a YAML file"),
    ],
)
def test_bad_descriptions_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match="mine") as caught:
        read_dataset_yaml(write(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data-set file .*none\.yaml"):
        read_dataset_yaml(tmp_path / "none.yaml")


def test_a_bare_name_finds_the_data_sets_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("data").resolve()
    monkeypatch.chdir(tmp_path)
    for name in ("treecrowns", "treecrowns.yaml", "data/treecrowns.yaml"):
        assert read_dataset_yaml(name).file == here / "treecrowns.yaml"
    write(tmp_path, "train: a\nnames: [car]").rename(tmp_path / "treecrowns.yaml")
    assert read_dataset_yaml("treecrowns.yaml").names == ("car",)
    with pytest.raises(UserError, match=r"no data-set file treecrown; .*Did you mean 'treecrowns'.*coco"):
        find_dataset_yaml("treecrown")
    with pytest.raises(UserError, match="no data-set file other/treecrowns"):
        find_dataset_yaml("other/treecrowns.yaml")


def test_a_recipe_is_read_and_its_hyp_file_is_located_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "train: a\nnames: [car]\nrecipe: {hyp: data/hyps/low.yaml, imgsz: 256}"
    assert read_dataset_yaml(write(tmp_path, text)).recipe == {"hyp": "data/hyps/low.yaml", "imgsz": 256}
    low = Path("data/hyps/low.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    assert read_dataset_yaml(write(tmp_path, text)).recipe["hyp"] == str(low)
    assert read_dataset_yaml(write(tmp_path, "train: a\nnames: [car]")).recipe == {}


def test_tile_settings_are_read(tmp_path: Path) -> None:
    description = read_dataset_yaml(
        write(tmp_path, "train: a\nnames: [car]\ntile: {size: 640, overlap: .25}")
    )
    assert description.tile == Tiling(640, 0.25, 0.4)


def test_coco_yaml_numbers_its_80_classes_as_coco_does() -> None:
    content = yaml.safe_load(Path("data/coco.yaml").read_text())
    ids = dict(zip(content["names"], content["category_ids"], strict=True))
    assert len(ids) == 80
    known = {"person": 1, "fire hydrant": 11, "stop sign": 13, "dining table": 67, "tv": 72, "toothbrush": 90}
    assert {name: ids[name] for name in known} == known


@pytest.mark.parametrize("name", sorted(file.name for file in Path("data").glob("*.yaml")))
def test_every_data_set_that_ships_is_described_without_a_fault(tmp_path: Path, name: str) -> None:
    lines = Path("data", name).read_text().splitlines()
    assert lines[0].startswith("#")
    text = "\n".join("path: ." if line.startswith("path:") else line for line in lines)
    file = write(tmp_path, text)
    if "task: classify" in lines:
        assert {"train", "val"} <= set(read_classification_yaml(file).splits)
        return
    description = read_dataset_yaml(file)
    assert {"train", "val"} <= set(description.splits)
    assert description.notes == ()


def test_a_missing_data_set_that_ships_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.dataset_yaml, "SHIPPED", tmp_path)
    write(tmp_path, "path: nowhere\ntrain: a\nnames: [car]")
    with pytest.raises(UserError, match="first lines say where to get the data"):
        read_dataset_yaml("mine")
