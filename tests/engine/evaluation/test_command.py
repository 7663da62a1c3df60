"""val.py: perfect predictors score 1, full images from tiles, the run folder, and wrong input."""

import csv
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

from data.dataset_yaml import read_dataset_yaml
from data.detection.dataset import DetectionDataset
from data.detection.loader import build_loader
from data.detection.split import read_split
from engine.evaluation import command as val
from engine.evaluation.config import ValConfig
from engine.evaluation.evaluator import Scoring, evaluate, full_image_limits
from engine.evaluation.limits import limit_notes
from engine.evaluation.outputs import report, write_metrics
from engine.evaluation.predictions import predict_loader
from engine.inference.sizes import input_size
from tests.rectangles import save
from utils.errors import UserError
from utils.run_folders import default_weights

TWELVE = ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"]
SIZES = [(120, 90), (90, 120), (100, 100)]  # width, height of the images


@pytest.fixture
def data_yaml(tmp_path):
    """Three images of unequal size with six boxes each, two classes, in YOLO's layout."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i, (width, height) in enumerate(SIZES):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        columns, rows = np.meshgrid([20, 50, 75], [22, 65])
        centers = np.stack((columns.ravel() / width, rows.ravel() / height), 1)
        sides = rng.uniform(8, 20, (6, 2)) / (width, height)
        table = np.column_stack((rng.integers(0, 2, 6), centers, sides))
        np.savetxt(tmp_path / f"labels/{i}.txt", table, fmt=["%d"] + ["%.6f"] * 4)
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [car, person]\n")
    return file


def oracle(dataset, order):
    """A predictor that knows the ground truth of the images it will be shown, in that order."""
    queue = iter(order)

    def predict(images):
        decoded = torch.zeros(len(images), 40, 7)
        height, width = images.shape[2:]
        for place in range(len(images)):
            index, shape = next(queue)
            labels = dataset._plain(index, shape).labels if shape else dataset[index].labels
            decoded[place, : len(labels), :4] = labels[:, 1:] * torch.tensor([width, height, width, height])
            decoded[place, : len(labels), 4] = 1
            decoded[place, range(len(labels)), 5 + labels[:, 0].long()] = 0.9
        return decoded

    return predict


def loader_of(data_yaml, imgsz=64, **options):
    dataset = DetectionDataset(read_split(read_dataset_yaml(data_yaml), "val"), imgsz, **options)
    return build_loader(dataset, 2, shuffle=False, workers=0)


def evaluate_oracle(loader):
    requests = [request for batch in loader._batches for request in batch]
    predict = oracle(loader.dataset, [(request.index, request.shape) for request in requests])
    return evaluate(predict_loader(predict, loader, progress=False), ["car", "person"])


@pytest.mark.parametrize("rect", [False, True])
@pytest.mark.parametrize("imgsz", [64, 160])
def test_perfect_boxes_score_one_whatever_the_input_size(data_yaml, imgsz, rect):
    evaluation = evaluate_oracle(loader_of(data_yaml, imgsz, rect=rect))
    assert evaluation.metrics.values["AP"] == pytest.approx(1)
    assert evaluation.fitness == pytest.approx(1)
    assert evaluation.merged is None
    assert evaluation.metrics.values["AP_S"] == pytest.approx(1), "sizes are of the original image"
    assert evaluation.metrics.values["AP_M"] is None
    assert evaluation.metrics.objects.sum() == 18


def test_tiles_are_scored_and_merged_into_full_images(data_yaml):
    data_yaml.write_text(data_yaml.read_text() + "tile: {size: 64, overlap: .4, min_area: .4}\n")
    evaluation = evaluate_oracle(loader_of(data_yaml))
    assert evaluation.metrics.images > 6
    assert evaluation.metrics.values["AP"] == pytest.approx(1)
    merged = evaluation.merged
    assert [record.tile for record in merged.records] == [None] * 3
    assert merged.metrics.objects.sum() == 18
    assert merged.metrics.values["AP"] == pytest.approx(1)
    text = report(evaluation)
    assert "original-image pixels: S <32²" in text
    assert re.search(r"class +images +objects +P +R +AP ", text)
    assert text.count("where the mean F1 is best (1.000)") == 2
    assert "per tile" in text and "per full image, tiles merged, at most 100" in text


def test_limit_of_full_images_is_the_most_objects_in_one():
    def draw_image(objects, crowds=0):
        return SimpleNamespace(crowd=np.arange(objects + crowds) < crowds)

    assert full_image_limits([draw_image(5), draw_image(100)]) == (1, 10, 100)
    assert full_image_limits([draw_image(279), draw_image(3)]) == (1, 10, 100, 279)
    assert full_image_limits([draw_image(90, crowds=200)]) == (1, 10, 100)


def test_more_objects_than_the_limit_are_warned_about(data_yaml):
    loader = loader_of(data_yaml)
    requests = [(request.index, None) for batch in loader._batches for request in batch]
    predict = oracle(loader.dataset, requests)
    evaluation = evaluate(
        predict_loader(predict, loader, progress=False), ["car", "person"], Scoring(max_dets=[1, 2])
    )
    (note,) = limit_notes(evaluation.inputs)
    assert "only 2 detections count" in note
    assert "AR2" in evaluation.metrics.values


def test_a_broken_image_is_left_out_of_ground_truth_and_detections(data_yaml):
    loader = loader_of(data_yaml)
    broken = loader.dataset.records[1].path
    broken.write_bytes(broken.read_bytes()[:50])
    predict = oracle(loader.dataset, [(0, None), (2, None)])
    evaluation = evaluate(predict_loader(predict, loader, progress=False), ["car", "person"])
    assert evaluation.metrics.images == 2
    assert evaluation.metrics.values["AP"] == pytest.approx(1)


def test_metrics_json_keeps_the_order_of_the_twelve(data_yaml, tmp_path):
    write_metrics(evaluate_oracle(loader_of(data_yaml)), tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert list(content)[:12] == TWELVE
    assert content["AP_L"] is None
    assert [content[key] for key in ("P", "R", "F1")] == pytest.approx([1, 1, 1])
    assert 0 <= content["confidence"] <= 0.9
    assert content["classes"]["car"]["F1"] == pytest.approx(1)
    assert content["classes"]["car"]["objects"] + content["classes"]["person"]["objects"] == 18


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network of two classes, trained "at 64 px"."""
    from models import build_model
    from models.checkpoint import save_checkpoint

    torch.manual_seed(0)
    model = build_model("yolov5n", num_classes=2)
    file = tmp_path_factory.mktemp("weights") / "two.pt"
    content = {"task": "detect", "model": model.yaml, "names": ["car", "person"]}
    save_checkpoint(file, {**content, "weights": model.state_dict(), "config": {"imgsz": 64}})
    return file


def config(weights, data_yaml, tmp_path, **options):
    defaults = {"workers": 0, "device": "cpu", "plots": False, "project": tmp_path / "runs"}
    return ValConfig.of(weights=(weights,), data=data_yaml, **(defaults | options))


def test_a_run_leaves_its_folder(weights, data_yaml, tmp_path, capsys):
    options = {"plots": True, "save_json": True, "save_txt": True, "save_conf": True, "conf_thres": 0.0}
    assert val.main(config(weights, data_yaml, tmp_path, **options)) in (0, None)
    folder = tmp_path / "runs" / "exp"
    names = {path.name for path in folder.iterdir()}
    curves = {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"}
    assert curves | {"val_batch0_labels.png", "val_batch0_pred.png", "config.yaml"} <= names
    assert list(json.loads((folder / "metrics.json").read_text()))[:12] == TWELVE
    results = json.loads((folder / "predictions.json").read_text())
    assert {row["image_id"] for row in results} == {0, 1, 2}
    assert {row["category_id"] for row in results} <= {0, 1}
    rows = np.loadtxt(folder / "labels" / "1.txt", ndmin=2)
    assert rows.shape[1] == 6
    assert (rows[:, 1:] <= 1.0001).all()
    printed = "".join(capsys.readouterr())
    assert "at 64 px" in printed
    assert "person" in printed


@pytest.fixture
def rectangles(tmp_path):
    """A COCO data set of images of many shapes, in no order, with objects near the rectangles in them."""
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for image_id, side in zip(
        (900, 12, 2**40, 7, 30, 31), rng.integers(120, 320, (6, 2)).tolist(), strict=True
    ):
        corners = [(x, y) for x in range(8, side[1] - 50, 55) for y in range(8, side[0] - 50, 55)]
        sizes = rng.integers(8, 45, (len(corners), 2)).tolist()
        pixels = np.full((*side, 3), 60, np.uint8)
        for (x, y), (width, height) in zip(corners, sizes, strict=True):
            red = rng.random() < 0.5
            pixels[y : y + height, x : x + width] = (0, 0, 255) if red else 255
            box = np.round(np.add([x, y, width, height], rng.uniform(-3, 3, 4)), 2).tolist()
            kind = {"category_id": 9 if red else 4, "iscrowd": int(rng.random() < 0.1)}
            number = len(annotations) + 1
            annotations.append(
                {"id": number, "image_id": image_id, "bbox": box, "area": width * height, **kind}
            )
        save(tmp_path / f"images/{image_id}.png", pixels)
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": side[1], "height": side[0]})
    categories = [{"id": 4, "name": "white"}, {"id": 9, "name": "re/d"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    file = tmp_path / "rectangles.yaml"
    file.write_text(f"path: {tmp_path}\nval: gt.json\nimages: {{val: images}}\nnames: [white, re/d]\n")
    return file


@pytest.mark.parametrize("options", [{}, {"rect": False}, {"tile": "128"}, {"evaluator": "pycocotools"}])
def test_predictions_json_scores_bit_by_bit_like_the_run(finder, rectangles, tmp_path, options):
    val.main(config("finder.pt", rectangles, tmp_path, save_json=True, **options))
    folder = tmp_path / "runs" / "exp"
    files = {"predictions": folder / "predictions.json", "annotations": tmp_path / "gt.json", "plots": False}
    val.main(ValConfig.of(**files, project=tmp_path / "runs", name="again"))
    run, again = (
        json.loads((tmp_path / f"runs/{name}/metrics.json").read_text()) for name in ("exp", "again")
    )
    assert run.pop("seconds_per_image")
    assert run == again
    assert 0.1 < run["AP"] < 0.9
    assert 0.1 < run["P"] < 1


def test_coco_ground_truth_gives_original_image_and_category_ids(weights, data_yaml, tmp_path):
    boxes = [
        {"id": 1, "image_id": 139, "category_id": 90, "bbox": [10, 10, 20, 20], "area": 300, "iscrowd": 0}
    ]
    images = [{"id": 139, "file_name": "0.png", "width": 120, "height": 90}]
    categories = [{"id": 3, "name": "car"}, {"id": 90, "name": "person"}]
    ground_truth = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "val.json").write_text(json.dumps(ground_truth))
    file = tmp_path / "coco.yaml"
    file.write_text(f"path: {tmp_path}\nval: val.json\nimages: {{val: images}}\nnames: [car, person]\n")
    val.main(config(weights, file, tmp_path, save_json=True, conf_thres=0.0))
    results = json.loads((tmp_path / "runs/exp/predictions.json").read_text())
    assert {row["image_id"] for row in results} == {139}
    assert {row["category_id"] for row in results} <= {3, 90}


def test_augmented_evaluation_runs(weights, data_yaml, tmp_path):
    val.main(config(weights, data_yaml, tmp_path, augment=True))
    assert (tmp_path / "runs/exp/metrics.json").exists()


def test_single_class_drops_the_classes(weights, data_yaml, tmp_path):
    val.main(config(weights, data_yaml, tmp_path, single_cls=True))
    content = json.loads((tmp_path / "runs/exp/metrics.json").read_text())
    assert list(content["classes"]) == ["object"]
    assert content["objects"] == 18


def test_the_reference_evaluator_gives_the_same_file(weights, data_yaml, tmp_path):
    for evaluator in ("hotcoco", "pycocotools"):
        val.main(config(weights, data_yaml, tmp_path, evaluator=evaluator, name=evaluator, conf_thres=0.0))
    ours, theirs = (
        json.loads((tmp_path / "runs" / name / "metrics.json").read_text())
        for name in ("hotcoco", "pycocotools")
    )
    del ours["seconds_per_image"], theirs["seconds_per_image"]
    assert ours == theirs


def test_another_number_of_classes_is_refused_before_anything_is_written(weights, data_yaml, tmp_path):
    data_yaml.write_text(data_yaml.read_text().replace("[car, person]", "[car, person, dog]"))
    with pytest.raises(UserError, match=r"weights know 2 classes \(car, person\), but .*data.yaml names 3"):
        val.main(config(weights, data_yaml, tmp_path))
    assert not (tmp_path / "runs").exists()


def test_other_names_are_noted(weights, data_yaml, tmp_path, capsys):
    data_yaml.write_text(data_yaml.read_text().replace("[car, person]", "[van, person]"))
    val.main(config(weights, data_yaml, tmp_path))
    assert "the weights call the classes car, person" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("fixed", "asked", "trained", "expected"),
    [
        (None, None, {}, 640),
        (None, None, {"imgsz": 320}, 320),
        (None, 416, {"imgsz": 320}, 416),
        (None, 100, {}, "multiple of the stride 32; try --imgsz 128"),
        ((256, 256), None, {}, 256),
        ((256, 256), 256, {}, 256),
        ((256, 256), 320, {}, "fixed to --imgsz 256 256"),
        ((256, 320), 256, {}, "fixed to --imgsz 256 320"),
    ],
)
def test_input_size(fixed, asked, trained, expected):
    predictor = SimpleNamespace(task="detect", imgsz=fixed, stride=32, config=trained)
    sides = (asked,) if asked else None
    if isinstance(expected, int):
        assert input_size(sides, predictor) == (expected, expected)
    else:
        with pytest.raises(UserError, match=expected):
            input_size(sides, predictor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "missing.pt"], "missing.pt"),
        (["--data", "missing.yaml"], "missing.yaml"),
        (["--task", "test"], "no key 'test'"),
        (["--conf-thres", "2"], "--conf-thres must be at most 1.0|--conf-thres must be at most 1"),
        (["--evaluator", "coco"], "hotcoco"),
        (["--max-dets", "0"], "--max-dets must be at least 1"),
        (["--imgsz", "100"], "try --imgsz 128"),
        (["--project", "/dev/null/runs"], "/dev/null/runs"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_two(weights, data_yaml, arguments, message, capsys):
    from utils.cli import run

    given = ["--weights", str(weights), "--data", str(data_yaml), "--workers", "0", "--device", "cpu"]
    for flag in arguments[::2]:
        if flag in given:
            del given[given.index(flag) : given.index(flag) + 2]
    with pytest.raises(SystemExit) as exit_info:
        run(ValConfig, val.main, [*given, *arguments])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert any(part in error for part in message.split("|"))


@pytest.mark.parametrize("option", [{"save_conf": True}, {"save_format": 1}])
def test_how_label_files_look_is_refused_without_label_files(option):
    with pytest.raises(UserError, match=r"--save-txt.*; give both"):
        ValConfig.of(**option)


def test_label_files_hold_fractions_or_corners(weights, data_yaml, tmp_path):
    for number in (0, 1):
        options = {"save_txt": True, "save_conf": True, "conf_thres": 0.0, "save_format": number}
        val.main(config(weights, data_yaml, tmp_path, name=str(number), **options))
    for image, (width, height) in enumerate(SIZES):
        files = (tmp_path / f"runs/{number}/labels/{image}.txt" for number in (0, 1))
        fractions, corners = (np.loadtxt(file, ndmin=2) for file in files)
        assert len(fractions)
        centers, sides = fractions[:, 1:3] * (width, height), fractions[:, 3:5] * (width, height)
        np.testing.assert_array_equal(corners[:, 0], fractions[:, 0])
        np.testing.assert_allclose(corners[:, 1:3], centers - sides / 2, atol=0.01)
        np.testing.assert_allclose(corners[:, 3:5], centers + sides / 2, atol=0.01)
        np.testing.assert_allclose(corners[:, 5], fractions[:, 5], atol=1e-6)


def test_task_speed_measures_with_the_thresholds_of_detection(weights, data_yaml, tmp_path):
    val.main(config(weights, data_yaml, tmp_path, task="speed"))
    used = yaml.safe_load((tmp_path / "runs/exp/config.yaml").read_text())
    assert (used["conf_thres"], used["iou_thres"]) == (0.25, 0.45)
    assert json.loads((tmp_path / "runs/exp/metrics.json").read_text())["seconds_per_image"]


def test_task_study_writes_a_line_for_each_size(weights, data_yaml, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("engine.evaluation.study.SIZES", (64, 96))
    val.main(config(weights, data_yaml, tmp_path, task="study"))
    with (tmp_path / "runs/exp/study.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["imgsz"] for line in lines] == ["64", "96"]
    for line in lines:
        metrics = json.loads((tmp_path / f"runs/exp/{line['imgsz']}/metrics.json").read_text())
        assert float(line["AP50"]) == metrics["AP50"]
        assert float(line["inference_ms"]) > 0
    assert "inference_ms" in capsys.readouterr().out


def test_newest_weights_are_the_last_written(tmp_path):
    import os

    for i, name in enumerate(("exp", "exp2")):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights/best.pt").touch()
        os.utime(tmp_path / name / "weights/best.pt", (i, i))
    assert default_weights(tmp_path) == tmp_path / "exp2/weights/best.pt"


def test_before_the_first_run_the_weights_are_those_that_ship(tmp_path, capsys, monkeypatch):
    shipped = tmp_path / "treecrowns.pt"
    monkeypatch.setattr("utils.run_folders.SHIPPED", shipped)
    with pytest.raises(UserError, match="train first, or give --weights"):
        default_weights(tmp_path / "runs")
    shipped.touch()
    assert default_weights(tmp_path / "runs") == shipped
    assert f"the tree-crown detector that ships, {shipped}" in capsys.readouterr().err


def test_importing_the_command_is_light():
    heavy = "{'torch', 'cv2', 'ultralytics', 'matplotlib'}"
    code = f"import sys, val; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
