"""A dataset, its manifest, its videos and its releases in an object store: the same guarantees as on a disk."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from conftest import Command
from object_store import BUCKET, environment, in_front, object_store
from obstore.store import S3Store

from marathon_pipeline.dataset import lease, remote
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.lease import Held, Lease, holder_of
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import Source
from marathon_pipeline.sources.download import fetch
from marathon_pipeline.sources.inputs import sources_of_inputs
from marathon_pipeline.sources.settings import DownloadSettings

ROOT = f"s3://{BUCKET}"
JOB = f"""
dataset: {ROOT}/DATASET
inputs: [{ROOT}/incoming/videos.jsonl]
segment: {{min_seconds: 0}}
events: {{min_events: 0}}
release: {{name: test}}
audit: {{sample_per_task: 1}}
run: {{workers: 1}}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with object_store() as url, pytest.MonkeyPatch.context() as patch:
        use(url, patch)
        yield url


def use(url: str, patch: pytest.MonkeyPatch) -> None:
    """Point `s3://`, here and in what is started from here, at a store."""
    for name, value in environment(url).items():
        patch.setenv(name, value)


def client(store: str) -> S3Store:
    return S3Store(
        BUCKET, endpoint=store, access_key_id="a", secret_access_key="b", client_options={"allow_http": True}
    )


def put(key: str, data: bytes | Path) -> None:
    Storage(ROOT).write_file(key, data) if isinstance(data, Path) else Storage(ROOT).write(key, data)


def test_a_manifest_and_its_videos_are_read_from_a_store(store: str, tmp_path: Path) -> None:
    put("mine/list.csv", b"path,licence\na b%20c.mp4,CC0-1.0\n../x.mp4,\nhttps,\n")
    put("mine/a b%20c.mp4", b"film")
    (source, *_), _ = sources_of_inputs([f"{ROOT}/mine/list.csv"])
    assert source.url == f"{ROOT}/mine/a b%20c.mp4" and source.licence == "CC0-1.0"
    assert fetch(source, tmp_path, DownloadSettings()).read_bytes() == b"film"


def test_a_worker_of_a_store_s_dataset_knows_what_was_purged(store: str) -> None:
    dataset = Dataset(f"{ROOT}/pickled", create=True)
    dataset.removals().add("yt_a")
    assert pickle.loads(pickle.dumps(dataset)).removals().holds("id", "yt_a")


def test_a_lease_whose_answer_a_store_lost_is_not_taken_for_somebody_else_s(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front(store) as front:
        use(front.url, monkeypatch)
        storage = Storage(f"{ROOT}/lost")
        front.loses = 1
        assert storage.create("lease/1", b"mine") and storage.read("lease/1") == b"mine"
        assert not storage.create("lease/1", b"another's") and storage.read("lease/1") == b"mine"


def test_paths_of_a_manifest_in_a_store_are_read_as_on_a_disk_and_stay_in_the_bucket(
    store: str, tmp_path: Path
) -> None:
    rows = ("./a.mp4", "sub/../b.mp4", "sub//c.mp4", "../d.mp4", "../../e.mp4", "..")
    both = {"url": "https://a.example/f.mp4", "path": "f.mp4"}
    lines = [json.dumps(row) for row in (*({"path": path} for path in rows), both)]
    put("mine/list.jsonl", "\n".join(lines).encode())
    put("mine/a.mp4", b"film")
    sources, problems = sources_of_inputs([f"{ROOT}/mine/list.jsonl"])
    keys = ["mine/a.mp4", "mine/b.mp4", "mine/sub/c.mp4", "d.mp4"]
    assert [source.url for source in sources] == [f"{ROOT}/{key}" for key in keys]
    assert [problem.line for problem in problems] == [5, 6, 7]
    assert fetch(sources[0], tmp_path, DownloadSettings()).read_bytes() == b"film"


def test_a_key_that_the_store_s_library_refuses_is_said_in_one_line(store: str, marathon: Command) -> None:
    said = marathon("manifest", "check", f"{ROOT}/a//list.csv", code=2)
    assert said.count("\n") == 1 and f"{ROOT}/a//list.csv cannot be asked for" in said


@pytest.mark.parametrize(
    ("key", "reason"),
    [("absent.mp4", "http_404"), ("mine/large.mp4", "too_large"), ("mine//a.mp4", "unsupported_url")],
)
def test_a_video_that_a_store_does_not_give_has_a_typed_reason(
    key: str, reason: str, store: str, tmp_path: Path
) -> None:
    put("mine/large.mp4", b"0" * 100)
    with pytest.raises(Failed) as failed:
        fetch(Source(source_id="a", url=f"{ROOT}/{key}"), tmp_path, DownloadSettings(max_bytes=99))
    assert failed.value.reason == reason and not failed.value.transient
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_manifest_that_is_not_there_is_said_in_one_line(store: str, marathon: Command) -> None:
    said = marathon("manifest", "check", f"{ROOT}/absent.csv", code=2)
    assert said.count("\n") == 1 and f"{ROOT}/absent.csv does not exist" in said


def test_a_bucket_that_is_not_there_is_named_in_one_line(store: str, marathon: Command) -> None:
    (marathon.folder / "job.yaml").write_text(JOB.replace(f"{ROOT}/DATASET", "s3://misspelt/mine"))
    for command in (("plan", "job.yaml"), ("status", "s3://misspelt/mine")):
        said = marathon(*command, code=2)
        assert said.count("\n") == 1 and "there is no bucket misspelt" in said
    in_worker = pickle.loads(pickle.dumps(Storage("s3://misspelt/mine")))
    for work in (in_worker.write, in_worker.create):
        with pytest.raises(Failed, match="no bucket misspelt") as failed:
            work("k", b"x")
        assert failed.value.reason == "storage" and failed.value.transient


def test_a_large_file_goes_to_a_store_in_as_many_parts_as_it_allows(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PARTS", 2)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(21 * 2**20)
    put("mine/large", tmp_path / "large")
    assert str(client(store).head("mine/large")["e_tag"]).strip('"').endswith("-2")
    assert remote.part_bytes(5 * 2**20) == 5 * 2**20, "none but the last may be smaller"


def test_of_many_that_take_a_lease_at_once_one_gets_it(store: str) -> None:
    def take(_: int) -> bool:
        try:
            with Lease(Storage(f"{ROOT}/leased")):
                time.sleep(1)
        except Held:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


def test_a_heart_does_not_wait_for_a_store_as_long_as_a_run_does(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "FIRST_PATIENCE", timedelta(seconds=0.3))
    with in_front(store) as front, pytest.MonkeyPatch.context() as patch:
        use(front.url, patch)
        with Lease(Storage(f"{ROOT}/outage")) as held:
            front.storm = 1.0
            held.tell({"sources": 1}, at_once=True)
            while not front.answered["503"]:
                time.sleep(0.01)
        front.storm = 0.0
        holder = holder_of(Storage(f"{ROOT}/outage"))
        assert holder and holder.state != "released", "it ended with the outage, not with the store's answer"


WORKER = """
import sys, time
from marathon_pipeline.dataset.storage import Storage
folder = Storage(sys.argv[1]).scratch()
(folder / "video.mp4").write_bytes(b"half of it")
print(folder, flush=True)
time.sleep(600)
"""


def test_a_killed_worker_s_scratch_goes_with_the_next_one_on_its_machine_and_a_living_one_s_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def worker() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen([sys.executable, "-c", WORKER, f"{ROOT}/d"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    (killed, its), *others = worker(), worker()
    killed.kill()
    killed.communicate()
    others.append(worker())
    assert not its.exists() and all((folder / "video.mp4").exists() for _, folder in others)
    assert {each.stem for each in its.parent.iterdir()} == {folder.name for _, folder in others}
    for process, _ in others:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def videos(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and their manifest, which lie in the store too."""
    folder = tmp_path_factory.mktemp("videos")
    Command(folder)("synth", "incoming", "--videos", 3, "--minutes", 1, "--seed", 3)
    paths = sorted((folder / "incoming").glob("*.mp4"))
    (folder / "incoming/videos.jsonl").write_text("".join(json.dumps({"path": path.name}) + "\n" for path in paths))
    for path in (folder / "incoming").iterdir():
        put(f"incoming/{path.name}", path)
    return folder


def release_of(store: str, dataset: str, name: str = "test-1") -> dict[str, bytes]:
    plain = client(store)
    keys = [entry["path"] for batch in obstore.list(plain, f"{dataset}/releases/{name}") for entry in batch]
    return {key.partition("/releases/")[2]: bytes(obstore.get(plain, key).bytes()) for key in keys}


@pytest.fixture(scope="module")
def whole(store: str, videos: Path) -> dict[str, bytes]:
    """The release that an undisturbed run makes in the store."""
    (videos / "job.yaml").write_text(JOB.replace("DATASET", "whole"))
    Command(videos)("run", "job.yaml")
    return release_of(store, "whole")


@pytest.mark.slow
def test_a_second_run_in_a_store_has_nothing_to_do(store: str, videos: Path, whole: dict[str, bytes]) -> None:
    with in_front(store) as front, pytest.MonkeyPatch.context() as patch:
        use(front.url, patch)
        said = Command(videos)("run", "job.yaml")
        assert "unchanged" in said and front.answered["PUT"] <= 8, front.answered
        Command(videos)("check", f"{ROOT}/whole/releases/test-1")
        assert json.loads(Command(videos)("status", f"{ROOT}/whole", "--json"))["stages"]


@pytest.mark.slow
@pytest.mark.parametrize(("latency", "storm"), [(0.02, 0.0), (0.0, 0.3)], ids=["slow", "storm"])
def test_a_slow_store_and_one_that_refuses_a_third_make_the_same_release(
    latency: float, storm: float, store: str, videos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    dataset = f"d{latency}{storm}"
    (tmp_path / "job.yaml").write_text(JOB.replace("DATASET", dataset))
    with in_front(store, latency=latency, storm=storm) as front, pytest.MonkeyPatch.context() as patch:
        use(front.url, patch)
        Command(tmp_path)("run", "job.yaml")
        assert (front.answered["503"] > 50) == bool(storm)
    assert release_of(store, dataset) == whole


@pytest.mark.slow
def test_runs_in_a_store_that_are_killed_end_as_an_undisturbed_one(
    store: str, videos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.replace("DATASET", "killed"))
    for seconds in (8, 12, 16):
        process = Command(tmp_path).start("run", "job.yaml")
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    Command(tmp_path)("run", "job.yaml")
    assert release_of(store, "killed") == whole


@pytest.mark.slow
def test_a_takedown_in_a_store_leaves_nothing(
    store: str, videos: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    plain, here = client(store), Command(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB.replace("DATASET", "purged"))
    here("run", "job.yaml")
    url = sorted(json.loads(line)["path"] for line in (videos / "incoming/videos.jsonl").read_text().splitlines())[0]
    (source,), _ = sources_of_inputs([f"{ROOT}/incoming/{url}"])
    here("purge", f"{ROOT}/purged", source.url)
    entries = [entry["path"] for batch in obstore.list(plain, "purged") for entry in batch]
    assert not [key for key in entries if source.source_id in key]
    left = b"".join(bytes(obstore.get(plain, key).bytes()) for key in entries if "certificates" not in key)
    assert source.source_id.encode() not in left
    releases = {key.split("/")[2] for key in entries if "/releases/" in key and key.endswith("release.json")}
    for name in releases:
        here("check", f"{ROOT}/purged/releases/{name}")
    shutil.rmtree(tmp_path, ignore_errors=True)
