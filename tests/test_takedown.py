"""Takedown: what goes, what is issued anew, what stays on the list, and that nothing else is touched."""

import gzip
import hashlib
import io
import json
import re
import shutil
import stat
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_release import (
    SETTINGS,
    SOURCES,
    TASKS,
    TAXONOMY,
    build,
    hashes,
    pair,
    proxy,
    release,
    samples,
    video_of,
    write_qa,
)
from typer.testing import CliRunner

from marathon_pipeline import publish
from marathon_pipeline.cli import app
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.dataset.traces import Names
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.licences import Licences, ModelRule, SourceRule
from marathon_pipeline.pipeline.certificate import certified, open_orders
from marathon_pipeline.pipeline.ingest import gather
from marathon_pipeline.pipeline.purge import holds_removed, purge, settle
from marathon_pipeline.records import Signals, Source, Video
from marathon_pipeline.release.plan import bucket, next_revision, split_of
from marathon_pipeline.release.reissue import reissue
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.write import ReleaseInfo, write_release

__all__ = ["proxy"]  # a fixture of test_release
GONE = SOURCES[2]
QA_OF_GONE = {pair(video_of(GONE), task, n).qa_id for task in TASKS for n in range(7)}
FRAME = "00ff00ff00ff00ff"
V2 = {"template_version": 2}


@pytest.fixture
def dataset(tmp_path: Path, filled: Path) -> Dataset:
    return Dataset(str(shutil.copytree(filled, tmp_path / "out")))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, proxy: bytes) -> Path:
    """Six videos and two releases, and beside them what other commands may once leave in a dataset."""
    dataset = build(tmp_path_factory.mktemp("filled") / "out", proxy)
    release(dataset, "demo-1")
    release(dataset, "pilot", SETTINGS.model_copy(update={"media": False, "shards": 1}))
    write, one, other = dataset.storage.write, sorted(QA_OF_GONE)[0], pair(video_of(SOURCES[0]), TASKS[0], 0).qa_id
    write("job.yaml", f"dataset: out\ninputs: [{GONE.url}, {SOURCES[0].url}]\n".encode())
    write("audit/report.html", f"<p>{video_of(GONE)}</p>".encode())
    write("notes/ann.json", json.dumps({"by": "ann", "judged": [{"qa_id": one}, {"qa_id": other}]}).encode())
    write("notes/bob.jsonl.gz", gzip.compress(b"".join(b'{"qa_id": "%s"}\n' % q.encode() for q in (one, other))))
    write(f"features/{video_of(GONE)}.safetensors", b"numbers")
    write(f"{video_of(GONE)}.mkv", b"pictures")
    write(f"{GONE.source_id}/labels.txt", b"of it")
    write("exported/all.tar", tar_of({"a.json": json.dumps({"url": GONE.url}).encode()}))
    write(f"journal/ab/{video_of(GONE)}/qa-000001.jsonl", b'{"text": "what was answered"}\n')
    (dataset.storage.partial() / f"{GONE.source_id}.0123.parts").mkdir()
    for source, frame in ((GONE, FRAME), (SOURCES[0], "1" * 16)):
        rows = [signal(video_of(source), second, hash) for second, hash in enumerate((frame, "f" * 16))]
        dataset.tables.write(Signals, video_of(source), rows, {})
    return Path(dataset.url)


def signal(video_id: str, second: int, frame: str) -> Signals:
    fields = {"video_id": video_id, "second": second, "shot": 0, "frame_hash": frame, "brightness": 0.5, "colours": {}}
    fields |= {"upper": "red", "lower": "red", "upper_share": 1.0, "lower_share": 1.0, "motion": 0.0}
    return Signals.model_validate(fields | {"motion_grid": (0.0,) * 9, "camera": "still", "things": ()})


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def readable(name: str, data: bytes) -> Iterator[bytes]:
    """All that can be read in a file, however it is packed: written apart from the search that it checks."""
    yield name.encode()
    if name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                yield from readable(member.name, tar.extractfile(member).read())
    elif name.endswith(".parquet"):
        file = pq.ParquetFile(io.BytesIO(data))
        yield str(file.schema_arrow.metadata).encode()
        yield json.dumps(file.read().to_pylist(), default=str).encode()
    elif name.endswith(".gz"):
        yield gzip.decompress(data)
    else:
        yield data


def naming(folder: Path, *words: str) -> set[str]:
    """The files in which one of the words can be read."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if any(
            word.encode() in text
            for text in ([path.name.encode()] if path.is_dir() else readable(str(path.name), path.read_bytes()))
            for word in words
        )
    }


def verifies(folder: Path) -> dict[str, Any]:
    """A release, of which every file is the one that is listed."""
    listed: dict[str, Any] = json.loads((folder / "release.json").read_text())
    found = hashes(folder)
    found.pop("release.json")
    assert {path: file["sha256"] for path, file in listed["files"].items()} == found
    return listed


def test_a_store_that_fails_for_a_moment_is_not_taken_for_a_damaged_table(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise Failed("storage", "try again", transient=True)

    monkeypatch.setattr(Tables, "read", fails)
    with pytest.raises(Failed, match="try again"):
        purge(dataset.url, [GONE.source_id])
    assert not dataset.removals().entries


def test_a_purge_beside_a_release_that_is_written_is_carried_out_by_that(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.storage.write("job.yaml", b"dataset: out\nrelease: {name: demo}\ngates: gates.yaml\naudit: null\n")
    (tmp_path / "gates.yaml").write_text("dataset: []\n")
    monkeypatch.chdir(tmp_path)
    write = publish.write_release

    def beside(*arguments: Any, **more: Any) -> ReleaseInfo:
        info = write(*arguments, **more)
        assert purge(dataset.url, [GONE.source_id]).held
        return info

    monkeypatch.setattr(publish, "write_release", beside)
    said = publish.release_dataset(dataset.url, "late", "a test", Console())
    assert any(line.startswith("purge ") for line in said)
    assert not open_orders(dataset.storage) and certified(dataset.storage)


def test_nothing_below_the_dataset_names_a_source_that_was_purged(dataset: Dataset) -> None:
    root = Path(dataset.url)
    words = [GONE.source_id, video_of(GONE), GONE.url, FRAME, *QA_OF_GONE]
    assert len({path.split("/")[0] for path in naming(root, *words)}) >= 12
    (done,) = purge(dataset.url, [GONE.source_id]).purged
    assert naming(root, *words) == set() and not done.left
    assert naming(root, video_of(SOURCES[0])) and not (root / "features").exists()
    kept = pair(video_of(SOURCES[0]), TASKS[0], 0).qa_id
    assert json.loads((root / "notes/ann.json").read_text()) == {"by": "ann", "judged": [{"qa_id": kept}]}
    assert gzip.decompress((root / "notes/bob.jsonl.gz").read_bytes()).decode() == f'{{"qa_id": "{kept}"}}\n'
    assert "inputs:\n- https://example.org/watch/0\n" in (root / "job.yaml").read_text()


def test_releases_are_reissued_with_the_old_rows_less_the_sources_and_verify(dataset: Dataset) -> None:
    root = Path(dataset.url)
    before = {name: list(samples(root / "releases" / name)) for name in ("demo-1", "pilot")}
    bytes_before = hashes(root / "releases/demo-1")
    dataset.tables.remove(Signals, video_of(SOURCES[0]))  # what the dataset holds now plays no part
    purge(dataset.url, [video_of(GONE)])
    for name, rows in before.items():
        assert list(hashes(root / "releases" / name)) == ["withdrawn.json"]
        note = json.loads((root / "releases" / name / "withdrawn.json").read_text())
        assert note == {"why": "takedown", "certificate": "certificates/000001.json", "replaced_by": f"{name}.1"}
        listed = verifies(root / "releases" / f"{name}.1")
        left = list(samples(root / "releases" / f"{name}.1"))
        assert {row["qa_id"] for row in left} == {row["qa_id"] for row in rows} - QA_OF_GONE
        assert sum(task["qa"] for task in listed["tasks"].values()) == len(left) == len(rows) - 21
        assert listed["videos"]["videos"] == 5 and listed["captions"]["levels"] == {"clip": 10, "event": 5, "global": 5}
        assert f"takes the place of `{name}`" in (root / "releases" / f"{name}.1" / "README.md").read_text()
        for path in (root / "releases" / f"{name}.1").glob("qa/*/*.parquet"):
            tars = sorted(path.parent.glob(f"{path.stem}-*.tar"))
            in_tars = [row["qa_id"] for tar in tars for row in samples(path.parent, tar.name)]
            assert pq.read_table(path)["qa_id"].to_pylist() == in_tars
    own = split_of(GONE, SETTINGS), bucket(GONE.source_id) % 3
    others = {(split_of(s, SETTINGS), bucket(s.source_id) % 3) for s in SOURCES} - {own}
    after = {hash for path, hash in hashes(root / "releases/demo-1.1").items() if path.endswith(".tar")}
    tars_before = {hash for path, hash in bytes_before.items() if path.endswith(".tar")}
    assert len(after & tars_before) == len(others) * len(TASKS), "tars of other buckets keep their bytes"


def test_a_reissued_release_has_the_tars_that_the_next_run_would_write(dataset: Dataset) -> None:
    root = Path(dataset.url)
    purge(dataset.url, [GONE.source_id])
    fresh = Dataset(dataset.url)
    assert next_revision(fresh, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-2"
    release(fresh, "demo-2")

    def tars(folder: Path) -> dict[str, str]:
        return {path: hash for path, hash in hashes(folder).items() if path.endswith(".tar")}

    assert tars(root / "releases/demo-1.1") == tars(root / "releases/demo-2")
    media = json.loads((root / "releases/demo-2/release.json").read_text())["media"]
    assert tars(root / "media/v2") == tars(root / "media" / media)
    assert next_revision(fresh, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-2"
    with pytest.raises(UserError, match=r"release demo-1 was withdrawn \(takedown\); demo-1.1 took its place"):
        release(fresh, "demo-1")


def enlarge(release: Path) -> int:
    """Give a release 8,000 captions of 5 kB, and 1,000 questions of 50 kB in one tar; returns the bytes of both."""
    own = f"qa/{TASKS[0]}/{split_of(GONE, SETTINGS)}"
    for path, column, rows, size in (
        ("captions.parquet", "text", 8_000, 5_000),
        (f"{own}.parquet", "answer", 1_000, 9),
    ):
        table = pq.read_table(release / path)
        texts, at = pa.array(["x" * size] * len(table)), table.schema.get_field_index(column)
        with pq.ParquetWriter(release / path, table.schema, compression="zstd") as file:
            for _ in range(rows // len(table)):
                file.write_table(table.set_column(at, table.schema.field(at), texts))
    listed = json.loads((release / "release.json").read_text())
    tar = listed["files"][f"{own}-000000.tar"]
    tar["rows"] = pq.read_metadata(release / f"{own}.parquet").num_rows
    (release / f"{own}-000000.tar").write_bytes(tar_of({f"{n}.json": b"x" * 50_000 for n in range(tar["rows"])}))
    tar["bytes"] = (release / f"{own}-000000.tar").stat().st_size
    (release / "release.json").write_text(json.dumps(listed))
    return 8_000 * 5_000 + int(tar["bytes"])


def test_a_release_is_reissued_in_a_fraction_of_the_memory_that_its_rows_take(dataset: Dataset) -> None:
    shutil.rmtree(Path(dataset.url) / "releases/demo-1")
    size = enlarge(Path(dataset.url) / "releases/pilot")
    before, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    tracemalloc.start()
    try:
        reissue(dataset, [GONE.source_id], "certificates/000001.json")
        peak = tracemalloc.get_traced_memory()[1] + counted.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert peak < size / 2
    (left,) = Path(dataset.url).glob(f"releases/pilot.1/qa/{TASKS[0]}/{split_of(GONE, SETTINGS)}.parquet")
    with tarfile.open(left.with_name(f"{left.stem}-000000.tar")) as tar:
        assert 0 < len(tar.getnames()) == pq.read_metadata(left).num_rows < 1_000


def test_the_media_are_issued_anew_with_the_other_shards_as_they_were(dataset: Dataset) -> None:
    media = Path(dataset.url) / "media"
    before = hashes(media / "v1")
    purge(dataset.url, [GONE.source_id])
    assert list(hashes(media / "v1")) == ["withdrawn.json"]
    listed = json.loads((media / "v2/media.json").read_text())["shards"]
    after = {path: hash for path, hash in hashes(media / "v2").items() if path.endswith(".tar")}
    assert {name: shard["sha256"] for name, shard in listed.items()} == after
    kept = {hash for path, hash in before.items() if path.endswith(".tar")} & set(after.values())
    assert len(kept) >= len(after) - 1
    assert {row["video_id"] for row in samples(media, "v2/*.tar")} == {video_of(s) for s in SOURCES if s != GONE}
    assert json.loads((Path(dataset.url) / "releases/demo-1.1/release.json").read_text())["media"] == "v2"


@pytest.mark.slow
def test_a_second_takedown_replaces_the_revision_and_the_last_one_leaves_none(dataset: Dataset) -> None:
    root = Path(dataset.url)
    purge(dataset.url, [GONE.source_id])
    purge(dataset.url, [SOURCES[0].source_id])
    assert json.loads((root / "releases/demo-1.1/withdrawn.json").read_text())["replaced_by"] == "demo-1.2"
    verifies(root / "releases/demo-1.2")
    purge(dataset.url, [source.source_id for source in SOURCES])
    assert json.loads((root / "releases/demo-1.2/withdrawn.json").read_text())["replaced_by"] == ""
    assert list((root / "releases").glob("*/release.json")) == list((root / "media").glob("*/*.tar")) == []


def test_what_a_reissued_release_says_of_itself_is_counted_anew(dataset: Dataset) -> None:
    again = [pair(video_of(GONE), TASKS[0], n) for n in range(7)]
    again = [p.model_copy(update={"tries": 1, "binding": p.binding.model_copy(update=V2)}) for p in again]
    kept = [pair(video_of(GONE), task, n) for task in TASKS[1:] for n in range(7)]
    own = {task: [p for p in (*again, *kept) if p.task == task] for task in TASKS}
    write_qa(dataset, video_of(GONE), own)
    every = {"captions": True, "qa": True, "evidence": "stated"}
    rules = (SourceRule(data_source="odd*", evidence="no"), SourceRule(media=True, **every))
    licences = Licences(sources=rules, models=(ModelRule(model="*", **every),))
    write_release(dataset, "ruled", ReleaseRules(SETTINGS, TAXONOMY, Gates(), licences))
    split = split_of(GONE, SETTINGS)

    def said(name: str) -> tuple[list[int], dict[str, list[int]], int]:
        listed = json.loads(dataset.storage.read(f"releases/{name}/release.json"))
        task = listed["tasks"][TASKS[0]]
        return [each["videos"] for each in listed["licences"]["sources"]], task["split_versions"], task["replaced"]

    videos, versions, replaced = said("ruled")
    assert (videos, replaced) == ([2, 4], 7) and 2 in versions[split]
    purge(dataset.url, [GONE.source_id])
    videos, versions, replaced = said("ruled.1")
    assert (videos, replaced) == ([2, 3], 0) and set(map(tuple, versions.values())) == {(1,)}
    card = dataset.storage.read("releases/ruled.1/README.md").decode()
    assert "2 more are left out altogether" in card


def test_what_was_never_here_takes_nothing_with_it(dataset: Dataset) -> None:
    before = state(Path(dataset.url))
    (done,) = purge(dataset.url, ["https://example.org/never-seen"]).purged
    assert before.items() <= state(Path(dataset.url)).items()
    certificate = json.loads(dataset.storage.read(done.order.certificate))
    assert certificate["found"] is None and certificate["searched"] is None, "nothing was looked for"
    assert "no file was searched" in "".join(done.lines()) and purge(dataset.url, []).purged == ()


def test_a_channel_that_no_source_states_is_told_so_and_kept_out_from_then_on(dataset: Dataset) -> None:
    told = {0: {"channel": " Ann's  Films"}, 1: {"uploader": " "}}
    dataset.write_sources(s.model_copy(update={"metadata": json.dumps(told.get(n, {}))}) for n, s in enumerate(SOURCES))
    before = state(Path(dataset.url))
    ran = CliRunner().invoke(app, ["purge", dataset.url, "channel:Bob"])
    assert ran.exit_code == 1 and "certificates/000001.json: nothing was here to remove, and no file was" in ran.output
    assert "channel Bob: no source here states that channel; 5 of 6 sources state none; what" in ran.output
    assert before.items() <= state(Path(dataset.url)).items()
    removals = Dataset(dataset.url).removals()
    assert removals.takes(Source(source_id="new", url="https://example.org/new", metadata='{"uploader": "BOB "}'))
    ran = CliRunner().invoke(app, ["purge", dataset.url, "channel:ann's films"])
    assert ran.exit_code == 0 and "channel ann's films: 1 source here states that channel; 5 of 6 sources" in ran.output
    assert SOURCES[0].source_id not in Dataset(dataset.url).sources()


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("purging/000001.json", 0.5),
        pytest.param("certificates/000001.json", 0.5, marks=pytest.mark.slow),
        ("releases/before/withdrawn.json", 0.5),
        ("releases/demo-1/videos.parquet", 0.5),
        pytest.param("releases/demo-1/captions.parquet", 0.5, marks=pytest.mark.slow),
        ("media/v1/{}.tar", 0.5),
        pytest.param("media/v1/{}.tar", 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_file_that_was_cut_off_is_named_and_put_back_the_purge_ends(dataset: Dataset, key: str, left: float) -> None:
    key = key.format(f"{split_of(GONE, SETTINGS)}-000000")
    path = Path(dataset.url) / key
    whole = path.read_bytes() if path.exists() else b""
    dataset.storage.write(key, whole[: int(len(whole) * left)])
    with pytest.raises(UserError, match=rf"{re.escape(key)} .*put it back from a copy") as error:
        purge(dataset.url, [GONE.source_id])
    assert "\n" not in str(error.value)
    dataset.storage.write(key, whole) if whole else dataset.storage.remove(key)
    fresh = Dataset(dataset.url)
    with fresh.lease():
        assert [done.left for done in settle(fresh)] == [()]


class Killed(Exception):
    pass


def state(root: Path) -> dict[str, object]:
    """All files but the lease; of the ledger, its lines."""
    files = {path: hash for path, hash in hashes(root).items() if not path.startswith(("lease/", "ledger/"))}
    return files | {"ledger": sorted(line for path in (root / "ledger").iterdir() for line in path.open())}


_SHARES = [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]


@pytest.mark.parametrize("share", [s if s == 0.6 else pytest.param(s, marks=pytest.mark.slow) for s in _SHARES])
def test_killed_anywhere_and_called_again_it_ends_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    dataset.storage.write("removals.key", b"5" * 64)
    copy = shutil.copytree(dataset.url, tmp_path / "copy")
    done: list[str] = []
    stop = 10**9
    for name in ("write", "write_file", "copy", "remove"):
        before = getattr(Storage, name)

        def counted(self: Storage, key: str, *more: object, before: Any = before) -> object:
            if len(done) >= stop and not key.startswith("lease/"):
                raise Killed
            done.append(key)
            return before(self, key, *more)

        monkeypatch.setattr(Storage, name, counted)
    monkeypatch.setattr(Storage, "remove_all", lambda self, keys: [self.remove(key) for key in keys])
    purge(dataset.url, [GONE.source_id])
    stop = int(len(done) * share)
    done.clear()
    with pytest.raises(Killed):
        purge(str(copy), [GONE.source_id])
    stop = 10**9
    again = Dataset(str(copy))
    with again.lease():
        settle(again)
    assert state(copy) == state(Path(dataset.url))


def test_the_list_holds_keyed_hashes_that_differ_between_datasets(dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset(str(tmp_path / "other"), create=True)
    other.removals().add(GONE.source_id, url=GONE.url)
    purge(dataset.url, [GONE.source_id])
    (here,), (there,) = (Dataset(url).storage.keys("removals") for url in (dataset.url, other.url))
    assert here != there
    plain = (GONE.source_id, video_of(GONE), GONE.url)
    known = {hashlib.sha256(text.encode()).hexdigest() for text in plain} | set(plain)
    assert not naming(Path(dataset.url), *known)
    assert stat.S_IMODE((Path(dataset.url) / "removals.key").stat().st_mode) == 0o600
    assert all(Dataset(url).removals().takes(GONE) for url in (dataset.url, other.url))
    (Path(dataset.url) / "removals.key").unlink()
    with pytest.raises(UserError, match=r"removals.key is gone.*put it back"):
        Dataset(dataset.url).removals()


def test_what_was_purged_is_refused_by_every_name_that_it_goes_by(dataset: Dataset, tmp_path: Path) -> None:
    purge(dataset.url, [f"https://EXAMPLE.org:443/watch/{GONE.source_id[-1]}?utm_source=a#b"])
    removals = Dataset(dataset.url).removals()
    sha256 = hashlib.sha256(video_of(GONE).encode()).hexdigest()
    for other in (
        Source(source_id=GONE.source_id, url="https://elsewhere.org/"),
        Source(source_id="other", url=GONE.url),
        Source(source_id="other", path="/file", sha256=sha256),
        Source(source_id=video_of(GONE)),
    ):
        assert removals.takes(other)
    assert not removals.takes(SOURCES[0])
    manifest = tmp_path / "again.jsonl"
    manifest.write_text(f'{{"url": "{GONE.url}", "id": "new"}}\n{{"url": "https://example.org/fine"}}\n')
    gathered = gather(Dataset(dataset.url), [str(manifest)])
    assert [source.source_id for source in gathered.purged] == ["new"] and "new" not in gathered.sources
    checked = CliRunner().invoke(app, ["manifest", "check", str(manifest), "--removals", dataset.url])
    assert checked.exit_code == 2 and f"{GONE.url}: was purged" in checked.output


def test_a_list_of_removals_as_it_was_before_keys_is_read_and_rewritten(dataset: Dataset) -> None:
    entry = {"source_id": GONE.source_id, "url": hashlib.sha256(GONE.url.encode()).hexdigest(), "contents": ["c" * 64]}
    dataset.storage.write(f"removals/{GONE.source_id}.json", json.dumps(entry).encode())
    dataset.storage.write("removals/yt_damaged.json", b"{")
    for _ in range(2):
        removals = Dataset(dataset.url).removals()
        assert removals.takes(GONE) and removals.takes(Source(source_id="x", url=GONE.url))
        assert removals.takes(Source(source_id="x", sha256="c" * 64)) and removals.takes(Source(source_id="yt_damaged"))
        fresh = Dataset(dataset.url)
        with fresh.lease():
            settle(fresh)
    assert not naming(Path(dataset.url), GONE.source_id, "yt_damaged", "c" * 64)
    assert (Path(dataset.url) / "releases/demo-1.1").is_dir(), "releases that were made before held it"


def test_channels_lists_and_other_datasets_name_sources(dataset: Dataset, tmp_path: Path) -> None:
    told = {0: {"channel": "Ann's films"}, 1: {"uploader": "bob"}, 3: {"channel_id": "UC123"}}
    sources = [s.model_copy(update={"metadata": json.dumps(told.get(n, {}))}) for n, s in enumerate(SOURCES)]
    dataset.write_sources(sources)
    (tmp_path / "list.txt").write_text(f"# by letter\nchannel:bob\n\n{SOURCES[4].url}  # and this\n")
    other = Dataset(str(tmp_path / "other"), create=True)
    other.removals().add("elsewhere", url=SOURCES[5].url)
    listed = ["--file", str(tmp_path / "list.txt"), "--removals", other.url]
    ran = CliRunner().invoke(app, ["purge", dataset.url, "Ann's films", "UC123", *listed])
    assert {line.split()[1].strip(",") for line in ran.output.splitlines() if line.startswith("removed")} == {
        SOURCES[n].source_id for n in (0, 1, 3, 4, 5)
    }
    later = Source(source_id="new", url="https://example.org/new", metadata='{"uploader": "bob"}')
    assert Dataset(dataset.url).removals().takes(later), "a channel's next videos are kept out too"
    assert naming(Path(dataset.url), "Ann's", "UC123") == set()
    purge(dataset.url, ["https://example.org/never-seen"])
    assert Dataset(dataset.url).removals().takes(Source(source_id="x", url="https://example.org/never-seen"))
    with pytest.raises(UserError, match="typo: no source, video, URL or channel"):
        purge(dataset.url, [GONE.source_id, "typo"])
    assert GONE.source_id in Dataset(dataset.url).sources()
    with pytest.raises(UserError, match="--file absent: cannot be read"):
        app(["purge", dataset.url, "--file", "absent"], standalone_mode=False)


def test_a_channel_that_only_the_site_named_is_found_and_kept_out(dataset: Dataset) -> None:
    def of_ann(source: Source) -> None:
        rows = dataset.tables.read(Video, source.source_id)
        named = [row.model_copy(update={"channels": ("UC1", "Ann's Films")}) for row in rows]
        dataset.tables.write(Video, source.source_id, named, {})

    of_ann(GONE)
    purged = purge(dataset.url, ["channel:ann's films"])
    assert purged.asked == (GONE.source_id,) and (purged.channels[0].found, purged.channels[0].silent) == (1, 5)
    assert naming(Path(dataset.url), GONE.source_id, "Ann's") == set()
    later = SOURCES[0]
    assert not holds_removed(dataset, later, dataset.removals())
    of_ann(later)
    assert holds_removed(dataset, later, dataset.removals()) and dataset.removals().takes(later)
    other = Dataset(f"{dataset.url}-other", create=True)
    other.removals().add_channel("UC1")
    of_ann(SOURCES[1])
    assert purge(dataset.url, [], [other.url]).asked == tuple(each.source_id for each in SOURCES[:2])


def test_a_certificate_says_what_was_removed_and_where_it_was_looked_for(dataset: Dataset) -> None:
    (done,) = purge(dataset.url, [GONE.source_id]).purged
    certificate = json.loads(dataset.storage.read(done.order.certificate))
    assert certificate["removed"]["rows"]["qa"] == 21 and certificate["removed"]["files"]["tables/signals"] == 1
    assert certificate["releases"] == {"demo-1": "demo-1.1", "pilot": "pilot.1"} and certificate["media"] == {
        "v1": "v2"
    }
    looked_for = {name: certificate["searched"][name] for name in ("ids", "urls", "contents", "frames", "questions")}
    assert looked_for == {"ids": 2, "urls": 1, "contents": 1, "frames": 1, "questions": 21}
    assert certificate["searched"]["files"]["releases"] == len(dataset.storage.keys("releases"))
    assert certificate["found"] == 0 and len(certificate["outside"]) == 8
    assert any("broke off" in each and "7 days" in each for each in certificate["outside"])
    assert certificate["searched"]["unread"] == {}
    assert certificate["sources"] == [Dataset(dataset.url).removals().entry(GONE.source_id)]
    assert purge(dataset.url, [GONE.source_id]).purged == (), "once is enough"


def test_what_was_done_to_files_that_are_nobodys_is_told_and_certified_without_what_they_are_called(
    dataset: Dataset,
) -> None:
    for number in range(9):
        line = b'{"video": "%s"}\n' % video_of(GONE if number < 7 else SOURCES[0]).encode()
        dataset.storage.write(f"logs/run/{number:06d}.jsonl", b"{}\n" + line)
    dataset.storage.write("analysis.duckdb", b"DUCK" + GONE.url.encode())
    dataset.storage.write(f"notes/about-{GONE.source_id}.md", GONE.url.encode())
    ran = CliRunner().invoke(app, ["purge", dataset.url, GONE.source_id])
    certificate = dataset.storage.read("certificates/000001.json").decode()
    others = {
        "scrubbed": {"logs/": 7, "notes/ann.json": 1, "notes/bob.jsonl.gz": 1},
        "removed": {"analysis.duckdb": 1, "audit/report.html": 1, "exported/all.tar": 1, "notes/": 1},
    }
    assert json.loads(certificate)["others"] == others and GONE.source_id not in certificate
    assert {line for line in ran.output.splitlines() if line.startswith("also ")} == {
        f"also {fate} {place}" + (f" ({files} file{'s' if files > 1 else ''})" if place.endswith("/") else "")
        for fate, places in others.items()
        for place, files in places.items()
    }


def test_what_cannot_be_searched_is_named_in_the_certificate_and_nothing_private_with_it(dataset: Dataset) -> None:
    unread = [
        "notes/old.7z",
        "notes/cut.jsonl.gz",
        f"held/of_{GONE.source_id}_and.7z",
        f"of_{GONE.source_id}_and/a.7z",
        f"of_{GONE.source_id}_and.7z",
        *(f"many/{n}" for n in range(9)),
    ]
    for key in unread:
        dataset.storage.write(key, b"7z\xbc\xaf\x27\x1c\x00\x04")
    ran = CliRunner().invoke(app, ["purge", dataset.url, GONE.source_id])
    assert ran.exit_code == 0 and "not searched, for it cannot be opened: many/ (9 files)" in ran.output
    certificate = dataset.storage.read("certificates/000001.json").decode()
    assert json.loads(certificate)["searched"]["unread"] == {
        "./": 2,
        "held/": 1,
        "many/": 9,
        "notes/cut.jsonl.gz": 1,
        "notes/old.7z": 1,
    }
    assert GONE.source_id not in certificate and all(map(dataset.storage.exists, unread))


def test_what_the_search_still_finds_is_named_and_there_is_no_certificate(dataset: Dataset) -> None:
    """A question about one video that names another is not the other's to take away."""
    where = dataset.tables.key(Signals, video_of(SOURCES[1]))
    dataset.tables.write(Signals, video_of(SOURCES[1]), [signal(video_of(SOURCES[1]), 0, "a" * 16)], {})
    table = pq.read_table(Path(dataset.url) / where)
    pq.write_table(table.replace_schema_metadata({"said": f"compare {video_of(GONE)}."}), Path(dataset.url) / where)
    found = CliRunner().invoke(app, ["purge", dataset.url, GONE.source_id])
    assert (
        found.exit_code == 1 and f"still named in {where}" in found.output and not dataset.storage.keys("certificates")
    )
    dataset.storage.remove(where)
    fresh = Dataset(dataset.url)
    with fresh.lease():
        assert [done.left for done in settle(fresh)] == [()]
    assert dataset.storage.keys("certificates") == ["certificates/000001.json"]


def test_who_asks_for_a_withdrawn_release_is_told_what_took_its_place(dataset: Dataset, tmp_path: Path) -> None:
    purge(dataset.url, [GONE.source_id])
    old, new = (f"{dataset.url}/releases/{name}" for name in ("demo-1", "demo-1.1"))
    exported = ["export", old, "--format", "llava-next", "-o", str(tmp_path / "exported")]
    for command in (["check", old], ["diff", old, new], ["audit", dataset.url, "--against", old], exported):
        with pytest.raises(UserError, match=r"releases/demo-1: withdrawn \(takedown\), replaced by demo-1\.1; give"):
            app(command, standalone_mode=False)
    purge(dataset.url, [source.source_id for source in SOURCES])
    with pytest.raises(UserError, match=r"releases/demo-1\.1: withdrawn \(takedown\), nothing took its place"):
        app(["check", new], standalone_mode=False)


def test_ids_that_are_words_or_names_of_folders_take_nothing_else_with_them(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "out"), create=True)
    words = ("away", "v1", "qa", "tables", "report", "job", "dataset", "ledger")
    kept = Source(source_id="yt_abcdefghij", url="https://example.org/away/v1/qa")
    dataset.write_sources([*(Source(source_id=word, url=f"https://example.org/{word}") for word in words), kept])
    for key in ("tables/qa/00/yt_abcdefghij.parquet", "media/v1/x.txt", "audit/report.md", "job.yaml"):
        dataset.storage.write(key, b"they go away to qa a report")
    dataset.storage.write("notes/a.jsonl", b'{"video_id": "away"}\n{"said": "away"}\n{"videos": ["z", "v1"]}\n')
    dataset.storage.write("notes/b.json", b'{"answer": "away", "of": [{"source": "qa", "n": 1}, {"source": "z"}]}')
    (done,) = purge(dataset.url, words).purged
    assert not done.left and Dataset(dataset.url).sources() == {kept.source_id: kept}
    assert dataset.storage.read("notes/a.jsonl") == b'{"said": "away"}\n'
    assert json.loads(dataset.storage.read("notes/b.json")) == {"answer": "away", "of": [{"source": "z"}]}
    assert dataset.storage.exists("tables/qa/00/yt_abcdefghij.parquet") and dataset.storage.exists("job.yaml")


IDS = st.text("abcXYZ019_-", min_size=6, max_size=20).filter(lambda id: any(c in "019_-" for c in id))


@given(IDS, st.text(), st.text())
def test_an_id_is_found_as_a_whole_and_never_inside_another_one(id: str, before: str, behind: str) -> None:
    names = Names([id])
    assert names.in_text(f"{before} {id}, {behind}".encode())
    assert names.in_text(f"{before}/{id}_00010000-00020000.mp4{behind}".encode())
    assert not names.in_text(f"x{id} {id}y -{id}".encode())


@given(
    st.sampled_from(["https://", "http://www.", "//", "ftp://"]), st.sampled_from(["", "#t", '"', " ", "&x=1", ", "])
)
def test_a_url_is_found_in_every_spelling_and_is_not_another_one(scheme: str, behind: str) -> None:
    names = Names((), ["https://www.example.org/watch/1", "https://www.youtube.com/watch?v=abcdefghijk"])
    assert names.in_text(f"see {scheme}example.org/watch/1{behind}".encode())
    assert not names.in_text(f"see {scheme}example.org/watch/12 {scheme}example.org/watch/1/more".encode())
    assert names.in_text(b"https://youtu.be/abcdefghijk?t=3") and not names.in_text(b"youtu.be/abcdefghijkl")
