"""A dataset in an object store that fails: what is waited for, what is told, and what is never mixed up."""

import asyncio
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path

import pytest
from failing_store import FailingStore, failing_store
from object_store import environment

from marathon_pipeline.dataset import remote, storage
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Source
from marathon_pipeline.sources.download import fetch
from marathon_pipeline.sources.settings import DownloadSettings
from marathon_pipeline.stages.segment import Segment, SegmentSettings

SECOND, MIB = timedelta(seconds=1), 2**20


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingStore]:
    with failing_store() as store:
        for name, value in environment(store.url).items():
            monkeypatch.setenv(name, value)
        yield store


def refused(request: BaseHTTPRequestHandler) -> int:
    return 503


def test_a_store_is_asked_again_until_the_time_is_over_however_often_that_is(store: FailingStore) -> None:
    tries = count()
    store.fails = lambda request: 503 if next(tries) < 12 else None
    Storage("s3://b/d", patience=2 * SECOND).write("k", b"x")
    assert store.objects == {"/b/d/k": b"x"}


@pytest.mark.slow
def test_an_outage_of_half_a_minute_is_survived(store: FailingStore) -> None:
    in_worker = pickle.loads(pickle.dumps(Storage("s3://b/d")))
    store.fails = refused
    end = threading.Timer(30, lambda: setattr(store, "fails", lambda request: None))
    end.start()
    in_worker.write("k", b"x")
    assert not end.is_alive() and store.objects == {"/b/d/k": b"x"}


def test_a_store_that_was_never_reached_is_soon_given_up_and_told_in_one_line(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PATIENCE", SECOND / 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Failed) as failed:
        Storage("s3://b/d").read("k")
    assert failed.value.transient and "s3://b/d: cannot be read" in failed.value.message
    assert "127.0.0.1:9" in failed.value.message and "\n" not in failed.value.message


def test_a_worker_waits_for_a_store_longer_than_the_command_that_finds_it_out(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_PATIENCE", SECOND / 100)
    tries = count()
    store.fails = lambda request: 503 if next(tries) < 2 else None
    in_worker = pickle.loads(pickle.dumps(Storage("s3://b/d")))
    in_worker.write("k", b"x")
    assert store.objects == {"/b/d/k": b"x"}


def test_a_dataset_that_a_worker_gets_asks_the_store_nothing_by_itself(store: FailingStore) -> None:
    packed = pickle.dumps(Dataset("s3://b/d", create=True))
    store.fails = refused
    store.asked.clear()
    assert pickle.loads(packed).url == "s3://b/d" and not store.asked


def test_a_machine_whose_keys_for_a_store_are_no_good_fails_its_videos_for_now(
    store: FailingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    packed = pickle.dumps(Dataset("s3://b/d", create=True))
    dataset = pickle.loads(packed.replace(b"s3://b/d", b"gs://b/d"))
    stage = Segment(SegmentSettings(), dataset.storage)
    (outcome,) = asyncio.run(carry_out(stage, dataset, Order("v", "v", {"": "f"}, {}, False, True, None)))
    assert (outcome.reason, outcome.transient) == ("storage", True) and "absent.json" in outcome.message


def slowly(request: BaseHTTPRequestHandler) -> None:
    time.sleep(0.15 if request.command == "GET" else 0)


def test_an_object_that_takes_longer_than_all_tries_of_a_request_is_read(store: FailingStore) -> None:
    whole = store.objects["/b/d/k"] = os.urandom(5 * MIB)
    store.fails, store.most = slowly, 2 * MIB
    dataset = Storage("s3://b/d", patience=SECOND / 4)
    with dataset.local_file("k") as path:
        assert path.read_bytes() == whole
    assert dataset.read("k") == whole


def test_two_versions_of_an_object_are_never_mixed(store: FailingStore) -> None:
    def replaced(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            store.objects["/b/d/k"] = bytes(5 * MIB)

    store.objects["/b/d/k"] = os.urandom(5 * MIB)
    store.fails, store.most = replaced, 2 * MIB
    with pytest.raises(Failed, match="written anew"):
        Storage("s3://b/d", patience=SECOND / 2).read("k")


def test_an_object_that_is_too_large_for_a_store_to_copy_passes_through(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.objects["/b/d/k"] = whole = os.urandom(2000)
    store.fails = lambda request: 400 if request.headers.get("x-amz-copy-source") else None
    monkeypatch.setattr(storage, "_COPIED_BYTES", 1000)
    Storage("s3://b/d").copy("k", "l")
    assert store.objects["/b/d/l"] == whole


def test_a_slash_at_the_end_of_a_url_is_not_doubled() -> None:
    assert Storage("s3://b/d/").url == Storage("s3://b/d").url == "s3://b/d"


def test_users_of_one_dataset_on_one_machine_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def part_of(user: int) -> Path:
        monkeypatch.setattr(os, "getuid", lambda: user)
        return Storage("s3://b/d").partial()

    assert part_of(1000) == part_of(1000) != part_of(1001)


def test_a_temporary_folder_that_is_not_writable_is_not_taken_for_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/1/fdinfo")  # where not even root makes a folder
    with pytest.raises(Failed, match="read-only: set TMPDIR"):
        Storage("s3://b/d").scratch()


def test_what_is_removed_is_not_looked_for_first(store: FailingStore) -> None:
    dataset = Storage("s3://b/d", patience=SECOND)
    store.objects["/b/d/k"] = b"x"
    dataset.remove("k")
    dataset.remove("k")
    assert not store.objects and [method for method, _ in store.asked] == ["POST", "POST"]


def test_one_that_is_gone_keeps_no_other_from_being_removed(tmp_path: Path) -> None:
    dataset = Storage(tmp_path.as_uri(), patience=SECOND)  # which deletes one by one, as Google's store does
    keys = [f"k{number}" for number in range(30)]
    for key in keys:
        dataset.write(key, b"x")
    dataset.remove_all(["absent", *keys])
    assert not dataset.keys("")


def test_a_download_goes_on_where_it_broke_off_unless_the_object_is_another_one(
    store: FailingStore, tmp_path: Path
) -> None:
    source = Source(source_id="a", url="s3://b/v.mp4")

    def broken_off(whole: bytes) -> None:
        store.objects["/b/v.mp4"] = whole
        with pytest.raises(Failed, match="not whole"):
            fetch(source, tmp_path, DownloadSettings(max_seconds=1e-9))
        store.asked.clear()

    whole = os.urandom(5 * MIB)
    broken_off(whole)
    assert fetch(source, tmp_path, DownloadSettings()).read_bytes() == whole
    ((_, began),) = (asked for asked in store.asked if asked[0] == "GET")
    assert int(began.removeprefix("bytes=").removesuffix("-")) >= MIB
    broken_off(whole)
    store.objects["/b/v.mp4"] = bytes(5 * MIB)
    assert fetch(source, tmp_path, DownloadSettings()).read_bytes() == bytes(5 * MIB)
