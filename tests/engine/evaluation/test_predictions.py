"""val.py --predictions: pycocotools' numbers from the same files, without torch; wrong input."""

import contextlib
import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from engine.evaluation import command as val
from engine.evaluation.config import ValConfig
from tests.detection_cases import NAMES, random_case
from utils.cli import run
from utils.errors import UserError

IDS = [3, 90, 7, 1]  # category ids; the classes are numbered in their order
TWELVE = ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"]


def write_case(folder, seed=0, **changes):
    """Write a random case as gt.json and results.json, shuffled, with ids that are not consecutive."""
    ground_truth, detections = random_case(seed)
    rng = np.random.default_rng(seed)

    def xywh(box):
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    images = [
        {"id": 500 - 3 * i, "file_name": f"{i}.png", "width": 2000, "height": 2000}
        for i in range(ground_truth.num_images)
    ]
    annotations = [
        {
            "id": 10 + int(i),
            "image_id": images[ground_truth.image[i]]["id"],
            "category_id": IDS[ground_truth.classes[i]],
            "bbox": xywh(ground_truth.boxes_xyxy[i].tolist()),
            "area": float(ground_truth.areas[i]),
            "iscrowd": int(ground_truth.crowd[i]),
        }
        for i in rng.permutation(len(ground_truth.image))
    ]
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (folder / "gt.json").write_text(json.dumps(content))
    results = [
        {
            "image_id": images[detections.image[i]]["id"],
            "category_id": IDS[detections.classes[i]],
            "bbox": xywh(detections.boxes_xyxy[i].tolist()),
            "score": float(detections.scores[i] * 0.99 + 0.01 * rng.random()),
        }
        for i in rng.permutation(len(detections.image))
    ]
    (folder / "results.json").write_text(json.dumps(results))


def config(folder, **options):
    files = {"predictions": folder / "results.json", "annotations": folder / "gt.json"}
    return ValConfig.of(**(files | {"plots": False, "project": folder / "runs"} | options))


def metrics_of(folder, **options):
    assert val.main(config(folder, **options)) == 0
    return json.loads((folder / "runs/exp/metrics.json").read_text())


@pytest.mark.parametrize("evaluator", ["hotcoco", "pycocotools"])
def test_a_results_file_scores_as_in_pycocotools(tmp_path, evaluator):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    write_case(tmp_path)
    values = metrics_of(tmp_path, evaluator=evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(tmp_path / "gt.json"))
        reference = COCOeval(ground_truth, ground_truth.loadRes(str(tmp_path / "results.json")), "bbox")
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert list(values)[:12] == TWELVE
    # boxes are kept as float32 in our records, as float64 there
    ours = [-1 if values[key] is None else values[key] for key in TWELVE]
    np.testing.assert_allclose(ours, reference.stats, atol=1e-6)
    assert list(values["classes"]) == ["d", "a", "c", "b"], "in the order of the category ids"


def test_neither_scores_nor_report_need_torch(tmp_path):
    write_case(tmp_path)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((500, 500, 3), 90, np.uint8))
    code = """
import sys
from engine.evaluation import command as val
names = ("predictions", "annotations", "images", "project")
val.main(val.ValConfig.of(**dict(zip(names, sys.argv[1:]))))
sys.exit(bool({'torch', 'ultralytics', 'torchvision'} & set(sys.modules)))
"""
    files = [str(tmp_path / name) for name in ("results.json", "gt.json", ".", "runs")]
    assert subprocess.run([sys.executable, "-c", code, *files], check=False).returncode == 0
    html = (tmp_path / "runs/exp/report.html").read_text()
    assert html.count("data:image/jpeg;base64,") > 10, "the galleries"


def test_protocol_sizes_and_limits_are_the_users(tmp_path):
    write_case(tmp_path)
    values = metrics_of(tmp_path, sizes=("0,16", "64"), max_dets=(5, 50), protocol="aitod")
    assert {"AP_0-16", "AP_16-64", "AP_64+", "AR5", "AR50"} <= set(values)
    assert values["sizes"]["16-64"]["px2"] == [256, 4096]


def test_single_class_drops_the_categories(tmp_path):
    write_case(tmp_path)
    assert list(metrics_of(tmp_path, single_cls=True)["classes"]) == ["object"]


def test_a_category_called_ignore_holds_regions(tmp_path, capsys):
    ignore = {"id": 90, "name": "ignored regions"}
    categories = [{"id": number, "name": str(number)} for number in (1, 3, 7)]
    write_case(tmp_path, categories=[ignore, *categories])
    results = [row for row in json.loads((tmp_path / "results.json").read_text()) if row["category_id"] != 90]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert list(metrics_of(tmp_path, protocol="visdrone")["classes"]) == ["1", "3", "7"]
    assert "boxes of 'ignored regions' are regions to ignore" in capsys.readouterr().err


def test_annotation_ids_that_occur_twice_are_noted_and_change_nothing(tmp_path, capsys):
    write_case(tmp_path)
    before = metrics_of(tmp_path)
    content = json.loads((tmp_path / "gt.json").read_text())
    for annotation in content["annotations"]:
        annotation["id"] = 1
    (tmp_path / "gt.json").write_text(json.dumps(content))
    assert metrics_of(tmp_path, exist_ok=True) == before
    assert f"{len(content['annotations']) - 1} annotation id(s) are repeated" in capsys.readouterr().err


def test_tinyperson_honors_its_ignore_marks(tmp_path):
    boxes = [[0, 0, 10, 10], [50, 50, 40, 40]]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "ignore": i == 1}
        for i, box in enumerate(boxes)
    ]
    images, categories = (
        [{"id": 1, "file_name": "a.png", "width": 99, "height": 99}],
        [{"id": 1, "name": "person"}],
    )
    ground_truth = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(ground_truth))
    rows = [([0, 0, 10, 10], 0.5), ([55, 55, 8, 8], 0.9)]
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in rows]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert metrics_of(tmp_path, protocol="tinyperson")["AP"] == pytest.approx(1)
    val.main(config(tmp_path, name="coco"))
    assert json.loads((tmp_path / "runs/coco/metrics.json").read_text())["objects"] == 2


def test_more_objects_than_the_limit_are_warned_about(tmp_path, capsys):
    write_case(tmp_path)
    metrics_of(tmp_path, max_dets=(1,))
    assert "but only 1 detections count" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotations": None}, "give both"),
        ({"weights": ("a.pt",)}, "takes no --weights"),
        ({"save_json": True}, "takes no"),
        ({"sizes": ("8,4",)}, "--sizes 8,4: edges of sizes must ascend"),
        ({"sizes": ("a",)}, "--sizes a"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        config(tmp_path, **options)
    with pytest.raises(UserError, match="without those"):
        ValConfig.of(images=tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "gt.json").unlink(), "no COCO file"),
        (lambda folder: (folder / "results.json").write_text("[{"), "not readable as JSON"),
        (lambda folder: write_case(folder, images=[]), "has no images"),
        (lambda folder: write_case(folder, categories=[]), "has no categories"),
        (lambda folder: write_case(folder, categories=[{"id": 3, "name": "a"}] * 2), "two categories have"),
        (lambda folder: write_case(folder, annotations=[{"id": 4}]), "annotation 4 has no usable"),
        (
            lambda folder: (folder / "results.json").write_text(
                (folder / "results.json").read_text().replace('"image_id": 500', '"image_id": 501')
            ),
            "of an image_id that",
        ),
    ],
)
def test_wrong_files_are_one_line_exit_code_two_and_no_run_folder(tmp_path, damage, message, capsys):
    write_case(tmp_path)
    damage(tmp_path)
    files = ["--predictions", tmp_path / "results.json", "--annotations", tmp_path / "gt.json"]
    with pytest.raises(SystemExit) as exit_info:
        run(ValConfig, val.main, list(map(str, [*files, "--project", tmp_path / "runs"])))
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_a_missing_folder_of_images_is_named(tmp_path):
    write_case(tmp_path)
    with pytest.raises(UserError, match=r"no folder .*none of images"):
        val.main(config(tmp_path, images=tmp_path / "none"))
