from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.checkup import advice, sizes
from data.checkup.advice import Facts, advise
from data.checkup.copies import read_fingerprints, same_bytes, similar
from data.checkup.plots import plot_facts
from data.image_record import ImageRecord, ground_truth_arrays
from data.tiling import Tiling, tile_records

COCO_ANCHORS = np.array(
    [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]], float
)


def record(
    boxes: Sequence[Sequence[float]],
    width: int = 1000,
    height: int = 500,
    path: Path = Path("a.jpg"),
    classes: Sequence[int] = (),
    crowd: Sequence[bool] = (),
) -> ImageRecord:
    labels = list(classes) or [0] * len(boxes)
    return ImageRecord(path, 1, width, height, *ground_truth_arrays(boxes, labels, None, list(crowd) or None))


def squares(*sides: float) -> list[list[float]]:
    return [[0, 0, side, side] for side in sides]


def facts(records: list[ImageRecord], imgsz: int, tiling: Tiling | None = None, **more: object) -> Facts:
    tiles = tile_records(records, tiling) if tiling else records
    made = Facts(
        sizes=sizes.measure(records, tiling, imgsz),
        trained_sizes=sizes.trained_sizes(tiles, imgsz),
        counts=np.array([len(tile.classes) for tile in tiles]),
        imgsz=imgsz,
        tiling=tiling,
        strides=(8.0, 16.0, 32.0),
        anchors=COCO_ANCHORS,
        names=("car",),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def test_sizes_are_measured_in_the_file_and_at_the_input() -> None:
    measured = sizes.measure([record([[10, 10, 30, 50], [0, 0, 5, 5]], crowd=[False, True])], None, 500)
    assert measured.in_file.tolist() == [[20, 40]]
    assert measured.at_input.tolist() == [[10, 20]]
    assert measured.scales.tolist() == [0.5]
    assert measured.per_image.tolist() == [1]


def test_a_tiled_image_is_scaled_as_its_tiles_are() -> None:
    images = [record(squares(20)), record(squares(20), 100, 80)]
    measured = sizes.measure(images, Tiling(250), 500)
    assert measured.scales.tolist() == [2, 5]
    assert measured.at_input.tolist() == [[40, 40], [100, 100]]
    assert measured.long_sides.tolist() == [250, 100]


def test_sides_fall_into_the_bands_between_strides() -> None:
    at_input = np.array([[3, 3], [4, 4], [2, 18], [7.9, 7.9], [31, 31], [32, 32], [500, 500]], float)
    assert sizes.histogram(at_input).tolist() == [1, 3, 0, 1, 2]
    assert sizes.thin(at_input).tolist() == [False, False, True, False, False, False, False]
    assert sizes.share_small(at_input) == pytest.approx(5 / 7)
    assert sizes.thin(np.zeros((0, 2))).tolist() == [] and sizes.share_small(np.zeros((0, 2))) == 0


def test_shrunken_images_are_advised_to_keep_their_size() -> None:
    said = advice.image_size(facts([record(squares(*[20] * 8, 60, 60))], 512))
    assert said is not None and said.startswith("--imgsz 1024: at 512 the images are shrunk to 51%")
    assert "from 80% to 100%" in said
    assert "80% are under 16 px" in said
    assert said.endswith("at 1024 it is 0%.")
    assert advice.image_size(facts([record(squares(*[20] * 8, 60, 60))], 1024)) is None
    assert advice.image_size(facts([record(squares(200, 300))], 512)) is None


def test_large_images_are_advised_to_be_tiled() -> None:
    large = [record(squares(*[20] * 19, 90), 4000, 3000)]
    assert advice.image_size(facts(large, 640)) is None
    said = advice.tiling(facts(large, 640))
    assert said is not None and "tile: {size: 640, overlap: 0.1}" in said
    assert "shrunk to 16%" in said
    assert advice.tiling(facts(large, 640, Tiling(640))) is None


def test_more_overlap_is_advised_where_objects_are_longer_than_what_tiles_share() -> None:
    tall = [record([[0, 0, 20, 150]] * 4 + squares(30, 30))]
    said = advice.tile_overlap(facts(tall, 400, Tiling(400, 0.2)))
    assert said is not None and said.startswith("tile overlap 0.4: neighboring tiles share 80 px, but 67%")
    assert advice.tile_overlap(facts(tall, 400, Tiling(400, 0.4))) is None


def test_a_head_of_stride_4_is_advised_for_objects_small_at_full_size() -> None:
    tiny = facts([record(squares(*[10] * 9, 60))], 1024)
    said = advice.fine_head(tiny)
    assert said is not None and "90% of the objects are under 16 px" in said and "0% are under 8 px" in said
    assert advice.fine_head(replace(tiny, strides=(4.0, 8.0, 16.0, 32.0))) is None
    assert advice.fine_head(facts([record(squares(*[20] * 9))], 1024)) is None


def test_new_anchors_are_advised_where_they_miss_boxes_or_idle() -> None:
    rng = np.random.default_rng(0)
    tiny = facts([record([[0, 0, *size] for size in rng.uniform(2, 4, (50, 2))])], 1000)
    said = advice.anchors(tiny)
    assert said is not None and "100.0% with anchors fitted to the data" in said
    small = facts([record(squares(*rng.uniform(11, 14, 50)))], 1000)
    said = advice.anchors(small)
    assert said is not None and "6 of 9 anchors fit no box; the best possible recall is 100.0%" in said
    assert advice.anchors(facts([record(squares(12, 30, 60, 120, 240, 480))], 1000)) is None


def test_thin_objects_are_counted() -> None:
    said = advice.thin_objects(facts([record([[0, 0, 4, 100], [0, 0, 20, 20]])], 500))
    assert (
        said is not None and said.startswith("1 objects (50.0%) are under 3 px") and said.endswith("it is 0.")
    )
    assert advice.thin_objects(facts([record(squares(20))], 500)) is None


def test_crowded_images_meet_the_limits_of_nms_and_evaluation() -> None:
    crowded = facts([record(squares(*[20] * 301)), record(squares(*[20] * 101)), record(squares(20))], 1000)
    said = advice.limits(crowded)
    assert said is not None
    assert "--max-det 301: 1 image holds" in said and "--max-dets 1 10 301: 2 hold more" in said
    assert advice.limits(facts([record(squares(20))], 1000)) is None


def test_rare_classes_are_named() -> None:
    rare = facts([record(squares(*[20] * 12), classes=[0] * 11 + [2])], 1000, names=("a", "b", "c"))
    said = advice.rare_classes(rare)
    assert said is not None and "b (0), c (1)" in said


def test_a_set_without_objects_gets_no_advice() -> None:
    assert advise(facts([record([])], 640)) == []


def test_a_plot_is_drawn_for_any_number_of_classes_and_boxes(tmp_path: Path) -> None:
    many = record(squares(*range(5, 65)), classes=list(range(60)))
    for number, made in enumerate([facts([record(squares(20))], 640), facts([many], 640, names=("x",) * 60)]):
        png = tmp_path / f"{number}.png"
        plot_facts(made, png)
        assert cv2.imread(str(png)) is not None


def draw_image(path: Path, seed: int, width: int = 320, height: int = 240) -> ImageRecord:
    """A landscape of soft blobs."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(path), image)
    return record([], width, height, path)


def test_files_with_the_same_bytes_are_grouped_whatever_their_names(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two"), ("d", b"three")):
        (tmp_path / name).write_bytes(content)
    (group,) = same_bytes(tmp_path / name for name in "aabcd")
    assert [path.name for path in group] == ["a", "b"]


def test_copies_encoded_or_resized_again_are_recognized_and_others_are_not(tmp_path: Path) -> None:
    known = [draw_image(tmp_path / f"{seed}.png", seed) for seed in range(30)]
    original = cv2.imread(str(known[7].path))
    worse, smaller = tmp_path / "worse.jpg", tmp_path / "smaller.png"
    cv2.imwrite(str(worse), original, [cv2.IMWRITE_JPEG_QUALITY, 30])
    cv2.imwrite(str(smaller), cv2.resize(original, (200, 150), interpolation=cv2.INTER_AREA))
    queries = [
        *(record([], 320, 240, worse), record([], 200, 150, smaller)),
        *(draw_image(tmp_path / f"new{seed}.png", 100 + seed) for seed in range(10)),
    ]
    pairs = similar(read_fingerprints(queries), read_fingerprints(known))
    assert sorted((query.name, known.name) for query, known in pairs) == [
        ("smaller.png", "7.png"),
        ("worse.jpg", "7.png"),
    ]


def test_large_images_are_decoded_reduced_and_still_match(tmp_path: Path) -> None:
    large = draw_image(tmp_path / "large.jpg", 3, 1600, 1200)
    small = draw_image(tmp_path / "small.jpg", 3, 400, 300)
    assert similar(read_fingerprints([small]), read_fingerprints([large]))


def test_flat_images_are_not_called_copies(tmp_path: Path) -> None:
    images = []
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((48, 64, 3), 200, np.uint8))
        images.append(record([], 64, 48, tmp_path / name))
    assert similar(read_fingerprints(images), read_fingerprints(images)) == []
    assert similar(read_fingerprints([]), read_fingerprints(images)) == []


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    good = draw_image(tmp_path / "good.png", 1)
    broken = record([], 64, 48, tmp_path / "broken.png")
    broken.path.write_bytes(good.path.read_bytes()[:40])
    assert read_fingerprints([good, broken]).undecoded == [broken.path]
