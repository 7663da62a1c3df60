"""Random COCO files with all that has ever made two evaluations differ, and pycocotools' own numbers."""

import contextlib
import copy
import io
import string

import numpy as np

SIDES = (0, 1, 3, 16, 20, 32, 40, 64, 96, 100)  # ratios of .5 to .95 of 20 and 40; 16·64 = 32², 144·64 = 96²
AREAS = (0.0, 1024.0, 9216.0, np.nextafter(1024.0, 0), np.nextafter(9216.0, 1e5), 1e10, 2e10)


def coco_case(seed: int) -> tuple[dict, list[dict]]:
    """Return a COCO file's content and the entries of a results file; what is in them depends on the seed.

    Scores are tied, also between images; IoUs lie on thresholds, in whole numbers and in decimals; ids are
    unordered, up to 2**63 or text; there are crowds, empty images, classes without objects, areas unlike the
    box and on the limits of sizes, boxes of no size and outside the image, and sometimes more detections than
    count.
    """
    rng = np.random.default_rng(seed)
    image_ids = _ids(rng, int(rng.integers(1, 6)))
    categories = rng.choice(12, int(rng.integers(1, 4)), replace=False).tolist()
    scale = float(rng.choice([1.0, 0.1, 0.05, 1.37, 1 / 3]))
    objects = [
        _object(rng, image_id, categories, scale) for image_id in image_ids for _ in range(rng.integers(0, 5))
    ]
    objects = [objects[i] for i in rng.permutation(len(objects))]
    scores = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], 3) if rng.random() < 0.7 else rng.random(50)
    results = []
    for known in objects:
        for _ in range(rng.integers(0, 4)):
            results.append({**known, "bbox": _near(rng, known["bbox"])})
    for _ in range(rng.integers(1, 6)):
        image_id = image_ids[rng.integers(len(image_ids))]
        results.append(_object(rng, image_id, categories, scale))
    results[-1]["bbox"] = [0.0, 7.0, 20.0, 20.0]  # so that not all look like fractions
    if rng.random() < 0.04:  # more than count
        results += [
            {**results[0], "bbox": _near(rng, results[0]["bbox"])} for _ in range(rng.integers(98, 130))
        ]
    results = [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"] if rng.random() < 0.9 else int(rng.choice(categories)),
            "bbox": row["bbox"],
            "score": float(rng.choice(scores)),
        }
        for row in (results[i] for i in rng.permutation(len(results)))
    ]
    letters = rng.permutation(list(string.ascii_letters))
    content = {
        "images": [
            {"id": image_id, "file_name": f"{letter}.jpg", "width": 1000, "height": 1000}
            for image_id, letter in zip(image_ids, letters, strict=False)
        ],
        "annotations": [dict(known, id=i) for i, known in enumerate(objects, int(rng.integers(1, 9)))],
        "categories": [{"id": number, "name": f"class {number}"} for number in categories],
    }
    return content, results


def _ids(rng: np.random.Generator, count: int) -> list[int] | list[str]:
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice(20, count, replace=False).tolist()
    if kind < 3:  # neighbors that a double tells apart, and some that it does not
        return ((2**53, 2**63 - 1)[kind - 1] - rng.choice(2 * count, count, replace=False)).tolist()
    return [
        f"{name}.png" for name in rng.choice(["b", "A", "10", "9", "ä", "a/b", "_"], count, replace=False)
    ]


def _object(rng: np.random.Generator, image_id: int | str, categories: list[int], scale: float) -> dict:
    corner = rng.choice([-10, 0, 7, 50, 480, 1010], 2, p=[0.05, 0.3, 0.25, 0.3, 0.05, 0.05])
    odds = np.array([0.02, *[1.0] * (len(SIDES) - 1)])
    width, height = (float(side) for side in rng.choice(SIDES, 2, p=odds / odds.sum()) * scale)
    if rng.random() < 0.2:  # with COCO's two decimals
        width, height, *corner = (float(side) for side in np.round(rng.uniform(0, 200, 4), 2))
    area = width * height if rng.random() < 0.6 else float(rng.choice(AREAS))
    return {
        "image_id": image_id,
        "category_id": int(rng.choice(categories)),
        "bbox": [*(float(place * scale) for place in corner), width, height],
        "area": area,
        "iscrowd": int(rng.random() < 0.12),
    }


def _near(rng: np.random.Generator, box: list[float]) -> list[float]:
    """Return a box whose IoU with this one lies on a threshold but for rounding, or one that is just near."""
    x, y, width, height = box
    part = float(rng.choice([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]))
    kind = rng.integers(6)
    if kind == 0:
        return [x, y, width * part, height]
    if kind == 1:
        return [x, y, width, height / part]
    if kind == 2:  # of equal size, moved
        return [x + width * (1 - part) / (1 + part), y, width, height]
    if kind == 3:
        return [x, y, round(width * part, 2), round(height, 2)]
    if kind == 4:
        return [x + (1 - part) * width, y + (1 - part) * height, width * part, height * part]
    return list(box)


def reference(content: dict, results: list[dict]):
    """Return pycocotools' COCOeval of these files, accumulated and summarized."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(content)
        coco.createIndex()
        coco_eval = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval
