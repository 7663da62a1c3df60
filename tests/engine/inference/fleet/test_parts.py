"""What a run on Ray consists of, without a cluster: listing, tiles, shards, checks."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from engine.inference import command as detect
from engine.inference.config import DetectConfig
from engine.inference.fleet.cluster import Fleet, _connect, _room, check_address, check_ray, joined
from engine.inference.fleet.listing import paths_of, read_listing, write_listing
from engine.inference.pipeline import detect_image
from engine.inference.settings import make_settings
from engine.options import FleetOptions
from tests.rectangles import RectangleFinder, draw_image, save, save_video
from utils.detections import Detections
from utils.errors import UserError

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from engine.inference.fleet.collect import Collector, DetectedFile, DetectedImage  # noqa: E402
from engine.inference.fleet.network import Network  # noqa: E402
from engine.inference.fleet.run import RunState  # noqa: E402
from engine.inference.fleet.shards import Origin, done_units, write_unit  # noqa: E402
from engine.inference.fleet.tiles import Reader  # noqa: E402

ORIGIN = Origin(["tree", "car"], "a" * 16, "b" * 16)


def detected(index: int, count: int, error: str | None = None) -> DetectedFile:
    boxes = [[10 * i, 1, 10 * i + 7.25, 9.5, 0.9 - 0.1 * i, i % 2] for i in range(count)]
    return DetectedFile(index, [DetectedImage(1, 64, 48, 1, Detections.from_array(boxes))], error)


def test_tables_of_paths_are_read_by_their_column(tmp_path):
    names = [f"{i}.jpg" for i in range(5)]
    pq.write_table(pa.table({"size": range(5), "image": names}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("size,path\n" + "".join(f"1,{name}\n" for name in names))
    for table in ("a.parquet", "a.csv"):
        assert list(paths_of([str(tmp_path / table)])) == names
    (tmp_path / "b.csv").write_text("size,what\n1,2\n")
    with pytest.raises(UserError, match=r"no column of paths.*it has size, what"):
        paths_of([str(tmp_path / "b.csv")])
    (tmp_path / "c.csv").write_text("image\n")
    with pytest.raises(UserError, match="empty"):
        paths_of([str(tmp_path / "c.csv")])


def test_sources_without_images_and_streams_are_one_line(tmp_path):
    for source, message in ((tmp_path, "the folder is empty"), (tmp_path / "no", "no such source")):
        with pytest.raises(UserError, match=message):
            paths_of([str(source)])
    with pytest.raises(UserError, match="stream or camera"):
        paths_of(["rtsp://camera/live"])


@pytest.mark.parametrize(("count", "size"), [(1, 4), (4, 4), (10, 4), (70_000, 66_000)])
def test_a_listing_comes_back_numbered_and_in_slices(tmp_path, count, size):
    names = [f"s3://bucket/{i}.jpg" for i in range(count)]
    assert write_listing(iter(names), tmp_path / "l.parquet") == count
    slices = list(read_listing(tmp_path / "l.parquet", size))
    assert [len(part) for part in slices] == [size] * (count // size) + [count % size] * bool(count % size)
    table = pa.concat_tables(slices)
    assert table["image"].to_pylist() == names and table["index"].to_pylist() == list(range(count))


def rows_of(path: Path, settings, finder) -> list:
    """The rows of a file as actors return them, one table each."""
    tiles = list(Reader(settings, 32, 1, "/")(pa.table({"index": [7], "image": [str(path)]})))
    network = Network(lambda: finder, settings)
    return [network(table) for table in tiles]


@pytest.mark.parametrize("seed", range(3))
def test_tiles_in_any_order_and_twice_make_the_image_that_detect_makes(tmp_path, seed):
    image = draw_image(*((x, x, x + 40, x + 30) for x in range(10, 400, 60)), size=(480, 640))
    settings = make_settings(RectangleFinder(), DetectConfig.of(tile="160", imgsz=(160,)))
    rows = rows_of(save(tmp_path / "a.png", image), settings, RectangleFinder())
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    collector = Collector(settings)
    files = [file for place in order[:-1] + order for file in collector.add(rows[place])]
    assert [file.index for file in files] == [7] and len(rows) > 9
    expected = detect_image(RectangleFinder(), image, settings).detections
    got = files[0].images[0]
    np.testing.assert_array_equal(got.detections.to_array(), expected.to_array())
    assert (got.width, got.height, got.tiles) == (640, 480, len(rows))


def test_a_video_is_complete_with_its_last_frame_whatever_comes_first(tmp_path):
    settings = make_settings(RectangleFinder(), DetectConfig.of(imgsz=(320,)))
    rows = rows_of(save_video(tmp_path / "a.avi", frames=3), settings, RectangleFinder())
    for order in itertools.permutations(rows):
        collector = Collector(settings)
        files = [file for table in order for file in collector.add(table)]
        assert len(files) == 1 and [image.number for image in files[0].images] == [1, 2, 3]
        assert [len(image.detections) for image in files[0].images] == [1, 1, 1]


def test_a_broken_file_is_an_error_with_its_reason(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    settings = make_settings(RectangleFinder(), DetectConfig.of(imgsz=(320,)))
    collector = Collector(settings)
    rows = rows_of(path, settings, RectangleFinder())
    files = [file for table in rows for file in collector.add(table)]
    assert len(files) == 1 and not files[0].images and str(path) in str(files[0].error)


def test_pandas_and_duckdb_read_what_was_detected(tmp_path):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    RunState.of(4, ORIGIN).save(tmp_path)
    write_unit(tmp_path, 0, [detected(0, 3), detected(1, 0)], ["a.jpg", "b.jpg"], ORIGIN)
    write_unit(
        tmp_path, 1, [detected(2, 2), DetectedFile(3, [], "d.jpg: broken")], ["c.jpg", "d.jpg"], ORIGIN
    )
    assert done_units(tmp_path) == {0, 1}

    table = pandas.read_parquet(tmp_path / "detections")
    assert table["image"].tolist() == ["a.jpg"] * 3 + ["c.jpg"] * 2
    assert table["class_name"].tolist() == ["tree", "car", "tree", "tree", "car"]
    first = table.iloc[1]
    assert (first.x1, first.y1, first.x2, first.y2) == (10, 1, 17.25, 9.5)
    assert (first.width, first.height, first.model_hash, first.options_hash) == (64, 48, "a" * 16, "b" * 16)

    count = duckdb.sql(
        f"select class_name, count(*) from '{tmp_path}/detections/*.parquet' group by 1 order by 1"
    )
    assert count.fetchall() == [("car", 2), ("tree", 3)]
    images = duckdb.sql(f"select image, objects from '{tmp_path}/images/*.parquet' order by index").fetchall()
    assert images == [("a.jpg", 3), ("b.jpg", 0), ("c.jpg", 2)]
    errors = duckdb.sql(f"select image, reason from '{tmp_path}/errors/*.parquet'").fetchall()
    assert errors == [("d.jpg", "d.jpg: broken")]


def test_a_unit_counts_as_done_only_when_its_last_file_is_there(tmp_path, monkeypatch):
    RunState.of(1, ORIGIN).save(tmp_path)
    written = []

    def full(path, *args, **options):
        written.append(path.parent.name)
        if path.parent.name == "detections":
            raise UserError("cannot write: no space left on device")
        return open(path, "wb")

    monkeypatch.setattr("engine.inference.fleet.shards.write_atomically", full)
    with pytest.raises(UserError):
        write_unit(tmp_path, 0, [detected(0, 3)], ["a.jpg"], ORIGIN)
    assert written == ["errors", "images", "detections"] and done_units(tmp_path) == set()


def test_actors_leave_a_core_to_the_readers():
    assert _room({"CPU": 8.0}, None, "", "auto") == Fleet(7, 0)
    assert _room({"CPU": 8.0}, 3, "cpu", "auto") == Fleet(3, 0)
    assert _room({"CPU": 8.0, "GPU": 2.0}, None, "", "auto") == Fleet(2, 1)
    assert _room({"CPU": 8.0, "GPU": 2.0}, None, "cpu", "auto") == Fleet(7, 0)
    for resources, actors, device, message in (
        ({"CPU": 4.0}, 4, "", "--actors 4: the cluster has 4 cores.*at most 3"),
        ({"CPU": 1.0}, None, "", "too few for an actor and a reader"),
        ({"CPU": 4.0}, None, "0", "the cluster has no GPU"),
        ({"CPU": 9.0, "GPU": 1.0}, 2, "0", "9 cores and 1 GPUs.*at most 1"),
    ):
        with pytest.raises(UserError, match=message):
            _room(resources, actors, device, "auto")


def test_what_cannot_be_used_is_one_line_and_starts_nothing(tmp_path, monkeypatch):
    source = save(tmp_path / "a.png", draw_image())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(UserError, match=f"--ray 127.0.0.1:{port}: no cluster there"):
        check_address(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match="auto or HOST:PORT, got nowhere"):
        check_address("nowhere")
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    with pytest.raises(UserError, match="needs ray, which is not installed: pip install"):
        check_ray()
    cfg = DetectConfig.of(source=(str(source),), ray="local", project=tmp_path / "runs")
    with pytest.raises(UserError, match="needs ray"):
        detect.main(cfg)
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_asks_for_a_token_is_told_from_one_that_does_not_answer(monkeypatch, capfd):
    def refuse(**_: object) -> None:
        os.write(2, b"gcs_client.cc:210: Unauthenticated: InvalidAuthToken: token is missing")
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match="asks for a token: set RAY_AUTH_MODE=token"):
        _connect("127.0.0.1:1", None)
    assert "InvalidAuthToken" not in capfd.readouterr().err  # Ray's own noise stays off the console


def test_a_cluster_of_this_machine_has_a_token_that_is_not_written_to_the_home_folder(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RAY_AUTH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that it is restored
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    tokens = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: tokens.append(os.environ["RAY_AUTH_TOKEN"]))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    with joined(FleetOptions(ray="local"), "cpu") as fleet:
        assert fleet == Fleet(1, 0)
    assert len(tokens) == 1 and len(tokens[0]) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray": "local", "track": "bytetrack"}, "--track needs one process"),
        ({"ray": "local", "view_img": True}, "--view-img needs"),
        ({"actors": 2}, "--actors says how many networks --ray runs"),
        ({"resume": "newest"}, "--resume finishes a run of --ray"),
        ({"ray": "ray://host:10001"}, "auto or HOST:PORT"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(UserError, match=message):
        DetectConfig.of(**options)


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(UserError, match=r"no run of --ray that can be resumed: it has no run\.json"):
        RunState.read(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"files": 1}))
    with pytest.raises(UserError, match="not the state of a run"):
        RunState.read(tmp_path)


def test_small_runs_have_many_units_and_large_ones_units_of_256():
    assert [RunState.of(count, ORIGIN).unit for count in (1, 500, 51_200, 10_000_000)] == [1, 8, 256, 256]


def test_ray_is_not_imported_before_it_is_asked_for():
    import subprocess

    code = "import sys, engine.inference.command, engine.evaluation.command; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4]).returncode == 0
