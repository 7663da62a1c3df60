"""Object stores: an S3 server in this process, and fsspec's local files."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.inference.fleet.stores import is_stored, list_store, local_file, path_of
from tests.rectangles import draw_image, save
from utils.errors import UserError

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("flask_cors")
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """An address as users give it, without the bucket, and the options behind it."""
    from pyarrow.fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3FileSystem(
        endpoint_override=server, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    store.create_dir("archive")
    image = save(tmp_path / "a.png", draw_image((32, 48, 64, 96))).read_bytes()
    for name in ("flight/b.png", "flight/a.png", "flight/deep/c.png", "flight/notes.txt", "flight/._d.png"):
        with store.open_output_stream(f"archive/{name}") as file:
            file.write(image)
    return f"?endpoint_override={server}&scheme=http&region=us-east-1"


def test_folders_globs_and_files_of_s3_are_listed_as_local_ones(bucket):
    base = "s3://archive/flight"
    own, deep = [f"{base}/{name}.png{bucket}" for name in "ab"], f"{base}/deep/c.png{bucket}"
    assert list_store(f"{base}/{bucket}") == list_store(f"{base}{bucket}") == own
    assert list_store(f"{base}/*.png{bucket}") == own
    assert sorted(list_store(f"{base}/**/*.png{bucket}")) == sorted([*own, deep])
    assert list_store(own[0]) == [own[0]]


def test_a_file_of_s3_is_a_local_one_while_it_is_read(bucket):
    with local_file(f"s3://archive/flight/a.png{bucket}") as path:
        assert path.name == "a.png" and path.read_bytes()[:4] == b"\x89PNG"
    assert not path.exists()


def test_empty_folders_and_missing_buckets_are_one_line(bucket):
    with pytest.raises(UserError, match="no image or video there"):
        list_store(f"s3://archive/flight/*.jpg{bucket}")
    with pytest.raises(UserError, match="the store cannot be read"):
        list_store(f"s3://nobody/flight{bucket}")


def test_a_store_that_does_not_let_us_in_is_one_line(tmp_path, monkeypatch):
    def refuse(address):
        raise PermissionError(13, "AWS Error ACCESS_DENIED during ListObjectsV2 operation:\nAccess Denied")

    monkeypatch.setattr("engine.inference.fleet.stores._arrow_store", refuse)
    with pytest.raises(UserError, match=r"the store cannot be read .*ACCESS_DENIED") as raised:
        list_store("s3://archive/flight")
    assert "\n" not in str(raised.value)


def test_fsspec_reads_what_arrow_does_not(tmp_path):
    path = save(tmp_path / "in" / "a.png", draw_image())
    address = f"file://{tmp_path}/in"
    listed = list_store(address)
    assert len(listed) == 1 and listed[0].endswith("/in/a.png")
    with local_file(listed[0]) as copy:
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "glob",
    [
        "*/a.png",
        "20*/*.png",
        "2024/[ab].png",
        "2024/[!a].png",
        "*/[a-c].png",
        "**/b.png",
        "2024/*.png",
        "*.png",
    ],
)
def test_globs_of_a_store_match_what_they_match_locally(tmp_path, glob):
    for name in ("top.png", "2023/a.png", "2024/a.png", "2024/b.png", "2024/deep/b.png", "other/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = [Path(name.removeprefix("file://")) for name in list_store(f"file://{tmp_path}/{glob}")]
    assert listed == sorted(tmp_path.glob(glob)) and listed


def test_a_file_whose_name_has_brackets_is_itself(tmp_path):
    (tmp_path / "dir[1]").mkdir()
    (tmp_path / "dir[1]" / "a.png").write_bytes(b"x")
    address = f"file://{tmp_path}/dir[1]/a.png"
    assert list_store(address) == [address]


def test_a_question_mark_begins_options_of_addresses_only():
    assert path_of("s3://bucket/a.png?region=eu") == Path("s3://bucket/a.png")
    assert path_of("photos/who?.png") == Path("photos/who?.png")


def test_streams_and_paths_are_no_stores():
    assert not any(map(is_stored, ("rtsp://camera/live", "https://example.org/a.jpg", "a/b.jpg", "0")))
    assert is_stored("s3://bucket/a.jpg") and is_stored("gs://bucket")
