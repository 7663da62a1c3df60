"""Names of outputs and ids of images, whatever the files are called."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from utils.unique_names import ImageIds, UniqueNames

STEMS = ("clip", "clip_1", "clip_1_2", "Clip", "clip-2", "clip-2_1", "1", "01", "_1")
files = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STEMS), st.booleans()), unique=True)


@given(files)
@example([("a", "clip", True), ("a", "clip_1", False)])
@example([("a", "clip_1", False), ("a", "clip", True)])
def test_no_two_outputs_of_a_run_have_the_same_name(given_files: list[tuple[str, str, bool]]) -> None:
    name_of, written, files = UniqueNames(), [], set()
    for folder, stem, is_video in given_files:
        path = Path(folder) / f"{stem}.{'mp4' if is_video else 'jpg'}"
        name = name_of(path, is_video)
        assert name_of(path, is_video) == name
        written += [f"{name}_{number}" for number in (1, 2, 3)] if is_video else [name]
        files.add(name.lower())
    assert len({name.lower() for name in written}) == len(written)
    assert len(files) == len(given_files)


def test_files_of_different_stems_keep_them_and_others_are_numbered() -> None:
    name_of = UniqueNames()
    paths = ["a.jpg", "b_7.jpg", "c/a.png", "d/A.jpg", "a-2.jpg", "e/a.jpg"]
    assert [name_of(Path(path)) for path in paths] == ["a", "b_7", "a-2", "A-3", "a-2-2", "a-4"]


def test_an_image_is_known_by_its_number_unless_another_one_is() -> None:
    id_of = ImageIds()
    names = ["000000000139", "139", "a", "1", "01", "000000000139"]
    assert [id_of(name) for name in names] == [139, "139", "a", 1, "01", 139]
