"""detect.py --ray on a local cluster: equal to detect.py, resumed without loss, and what may be broken."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.inference import command as detect
from engine.inference.config import DetectConfig
from engine.inference.pipeline import detect_image
from engine.inference.settings import make_settings
from tests.rectangles import RectangleFinder, draw_image, save, save_video
from utils.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("ray")

from engine.inference.fleet import run as fleet_run  # noqa: E402
from engine.inference.fleet import stream  # noqa: E402
from engine.inference.fleet.cluster import Fleet  # noqa: E402
from engine.inference.fleet.tiles import Reader  # noqa: E402


def images_in(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for number in range(count):
        corners = rng.integers(4, 150, (3, 2)).tolist()
        save(folder / f"{number:02d}.png", draw_image(*((x, y, x + 40, y + 30) for x, y in corners)))
    return folder


def options(weights: Path, source: object, tmp_path: Path, **more: object) -> DetectConfig:
    given = {
        "imgsz": (64,),
        "conf_thres": 0.6,
        "batch_size": 4,
        "device": "cpu",
        "project": tmp_path / "runs",
    }
    return DetectConfig.of(weights=(weights,), source=(str(source),), **(given | more))


def listed(folder: Path, kind: str) -> list[str]:
    files = sorted((folder / kind).glob("*.parquet"))
    return [name for file in files for name in pq.read_table(file)["image"].to_pylist()]


def test_every_file_is_the_one_that_detect_writes_without_ray(tmp_path, weights, cluster, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 40_000)  # three tiles: those of an image go to both actors
    source = images_in(tmp_path / "in", 6)
    save_video(source / "walk.avi", frames=3)
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    chosen = {
        "save_txt": True, "save_conf": True, "save_json": True, "save_csv": True, "save_crop": True,
        "save_frames": True, "tile": "128",
    }  # fmt: skip
    plain = detect.main(options(weights, source, tmp_path, name="plain", **chosen))
    fleet = detect.main(options(weights, source, tmp_path, name="ray", ray="local", actors=2, **chosen))
    assert plain == fleet == 1  # one is broken
    folder = tmp_path / "runs"
    written = sorted(path for path in (folder / "plain").rglob("*") if path.is_file())
    assert len(written) > 20
    for path in written:
        other = folder / "ray" / path.relative_to(folder / "plain")
        assert other.read_bytes() == path.read_bytes(), path.name
    assert listed(folder / "ray", "errors") == [str(source / "broken.png")]
    assert len(listed(folder / "ray", "images")) == 6 + 3


class NotingFinder(RectangleFinder):
    """Notes which process ran it."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def __call__(self, images):
        (self.folder / str(os.getpid())).touch()
        return super().__call__(images)


class Load:
    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self) -> NotingFinder:
        return NotingFinder(self.folder)


def test_tiles_of_one_image_go_to_two_actors_and_come_back_as_one_image(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_BYTES", 60_000)
    image = draw_image(*((x, x // 2, x + 40, x // 2 + 30) for x in range(20, 1800, 90)), size=(1000, 1900))
    path = save(tmp_path / "large.png", image)
    cfg = DetectConfig.of(tile="160", imgsz=(160,), batch_size=1)
    settings = make_settings(RectangleFinder(), cfg)
    (tmp_path / "noted").mkdir()
    read = Reader(settings, 32, 1, str(tmp_path))
    work = stream.Work(read, Load(tmp_path / "noted"), settings, Fleet(2, 0))
    files = list(stream.detected_files(pa.table({"index": [0], "image": [str(path)]}), work))
    assert len(list((tmp_path / "noted").iterdir())) == 2
    expected = detect_image(RectangleFinder(), image, settings).detections
    assert len(files) == 1 and len(expected) == 20
    np.testing.assert_array_equal(files[0].images[0].detections.to_array(), expected.to_array())


def test_an_interrupted_run_is_resumed_and_has_every_image_once(tmp_path, weights, cluster, monkeypatch):
    source = images_in(tmp_path / "in", 12)
    write, written = fleet_run.write_unit, []

    def fail_at_the_sixth(folder, unit, *rest):
        if len(written) == 5:
            raise UserError("cannot write: no space left on device")
        written.append(unit)
        write(folder, unit, *rest)

    monkeypatch.setattr(fleet_run, "write_unit", fail_at_the_sixth)
    with pytest.raises(UserError, match="no space left"):
        detect.main(options(weights, source, tmp_path, ray="local", actors=2))
    folder = tmp_path / "runs" / "exp"
    before = {path: path.stat().st_mtime_ns for path in (folder / "detections").iterdir()}
    assert len(before) == 5
    save(source / "later.png", draw_image())  # the run means the files that were there when it began

    monkeypatch.setattr(fleet_run, "write_unit", write)
    resume = DetectConfig.of(ray="local", actors=2, resume="newest", project=tmp_path / "runs")
    assert detect.main(resume) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert Counter(listed(folder, "images")) == Counter(str(source / f"{i:02d}.png") for i in range(12))


class DeadlyReader(Reader):
    """A decoder that crashes at one of the files."""

    def __call__(self, batch):
        if 3 in batch["index"].to_pylist():
            os._exit(1)
        yield from super().__call__(batch)


def test_a_file_that_kills_whoever_reads_it_is_the_only_one_that_is_lost(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(stream, "RETRIES", 0)
    source = images_in(tmp_path / "in", 5)
    settings = make_settings(RectangleFinder(), DetectConfig.of(imgsz=(64,)))
    read = DeadlyReader(settings, 32, 1, str(tmp_path))
    work = stream.Work(read, RectangleFinder, settings, Fleet(1, 0))
    names = sorted(map(str, source.iterdir()))
    files = list(stream.detected_files(pa.table({"index": list(range(5)), "image": names}), work))
    assert sorted(file.index for file in files) == list(range(5))
    assert {file.index for file in files if file.error} == {3}


def test_changed_weights_do_not_continue_a_run(tmp_path, weights, cluster):
    own = tmp_path / "own.pt"
    own.write_bytes(weights.read_bytes())
    detect.main(options(own, images_in(tmp_path / "in", 1), tmp_path, ray="local", actors=1))
    own.write_bytes(weights.read_bytes() + b"\0")
    resume = DetectConfig.of(ray="local", actors=1, resume="newest", project=tmp_path / "runs")
    with pytest.raises(UserError, match="weights have changed"):
        detect.main(resume)
