"""COCO's results files: any layout, any order, any ids; and every fault that is named."""

import json
from pathlib import Path

import numpy as np
import pytest

import engine.evaluation.coco_results
from engine.evaluation.coco_results import Known, read_results
from utils.errors import UserError

KNOWN = Known(Path("gt.json"), {7: 0, "b": 1, 3: 2}, {1: 0, 90: 1}, [(640, 480), (100, 100), (50, 60)])


def entry(**changes):
    return {"image_id": 7, "category_id": 90, "bbox": [10, 20, 30, 40], "score": 0.5, **changes}


def written(tmp_path, entries, **options):
    file = tmp_path / "results.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries, **options))
    return file


@pytest.mark.parametrize("piece", [1, 300, 1 << 22])
@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"separators": (",", ":")}])
def test_every_layout_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, piece, options):
    monkeypatch.setattr(engine.evaluation.coco_results, "PIECE", piece)
    rng = np.random.default_rng(0)
    entries = [
        entry(image_id=[7, "b", 3][i % 3], bbox=rng.uniform(0, 20, 4).tolist(), score=i / 50, id=50 - i)
        for i in range(50)
    ]
    detections, notes = read_results(written(tmp_path, entries, **options), KNOWN)
    assert notes == []
    assert detections.num_images == 3
    assert detections.image.tolist() == [0, 1, 2] * 16 + [0, 1]
    assert set(detections.classes) == {1}
    boxes = np.array([row["bbox"] for row in entries])
    np.testing.assert_allclose(detections.boxes_xyxy, np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:])))
    np.testing.assert_allclose(detections.scores, np.arange(50) / 50)


@pytest.mark.parametrize("first", [0, 5])
def test_entries_that_hold_dicts_are_not_cut_apart(tmp_path, monkeypatch, first):
    monkeypatch.setattr(engine.evaluation.coco_results, "PIECE", 1)
    nested = {"segmentation": [{"counts": "a"}, {"counts": "}, {"}]}
    entries = [entry(score=i / 10, **(nested if i >= first else {})) for i in range(9)]
    detections, _ = read_results(written(tmp_path, entries), KNOWN)
    np.testing.assert_allclose(detections.scores, np.arange(9) / 10)


def test_an_empty_list_is_no_detections(tmp_path):
    detections, notes = read_results(written(tmp_path, []), KNOWN)
    assert len(detections.image) == 0
    assert "holds no detections" in notes[0]


def test_duplicate_detections_and_boxes_far_outside_are_noted(tmp_path):
    rows = [entry(score=i / 20) for i in range(20)]
    _, notes = read_results(written(tmp_path, [*rows, rows[3], entry(bbox=[600, 0, 100, 10])]), KNOWN)
    assert "1 of 22 entries, first entry 21, reach more than 5% out of their image" in notes[0]
    assert "1 of 22 detections are there twice" in notes[1]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[{]", "not readable as JSON"),
        ("", "not in COCO's results format"),
        ({"annotations": []}, "not in COCO's results format"),
        ([entry(), 3], "entry 1 is 3, not a detection"),
        ([entry(), {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}], "entry 1 has no 'score'"),
        ([entry(bbox=[1, 2, 3])], "entry 0: bbox [1, 2, 3] is not x, y, width, height"),
        ([entry(bbox=[1, 2, 3, None])], "1 of 1 entries, first entry 0, with a NaN"),
        ([entry(bbox=[1, 2, 3, {}])], "entry 0: bbox"),
        ([entry(score="high")], "entry 0: score 'high' is no number"),
        ([entry(image_id=[7])], "entry 0: image_id and category_id must be"),
        ([entry(), entry(image_id=8), entry(image_id=9)], "2 of 3 entries, first entry 1, of an image_id"),
        ([entry(), entry(image_id="7")], "'7', not 7, 'b', 3"),
        ([entry(category_id=2)], "of a category_id that gt.json does not have: 2, not 1, 90"),
        ([entry(bbox=[1, 2, float("nan"), 4])], "1 of 1 entries, first entry 0, with a NaN"),
        ([entry(), entry(bbox=[50, 50, -10, 4])], "first entry 1, with a negative width or height"),
        ([entry(score=87.0)], "a score outside 0..1"),
        ([entry(bbox=[0.5, 0.5, 0.1, 0.1])] * 3, "boxes must be in pixels, not fractions"),
        ([entry(bbox=[500, 300, 600, 400]), entry(bbox=[400, 400, 500, 450])], "fit as corners"),
    ],
)
def test_wrong_files_are_named_with_their_first_bad_entry(tmp_path, entries, message):
    file = written(tmp_path, entries)
    with pytest.raises(UserError) as caught:
        read_results(file, KNOWN)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no results file .*none\.json"):
        read_results(tmp_path / "none.json", KNOWN)
