"""Storage, tables, ledger and lease of a dataset."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.dataset import lease, parquet
from marathon_pipeline.dataset.dataset import Dataset, media_key, original_key
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.dataset.storage import PARTS_DAYS, Storage
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import (
    Binding,
    Clip,
    Event,
    Outcome,
    Packed,
    QAPair,
    Source,
    Span,
    Usage,
    content_hash,
)

BINDING = Binding(annotator="measured/1", template_version=1, request="r")
seconds = st.floats(0, 1e5, allow_nan=False).map(lambda x: round(x, 3))
spans = st.tuples(seconds, seconds).map(lambda pair: Span(start=min(pair), end=max(pair)))
texts = st.text(max_size=40)
pairs = st.builds(
    QAPair,
    qa_id=texts,
    video_id=st.just("v"),
    task=texts,
    topic=texts,
    format=st.sampled_from(["open", "choice"]),
    question=texts,
    options=st.lists(texts, max_size=4).map(tuple),
    answer=texts,
    letter=st.sampled_from(["", "A", "D"]),
    evidence=st.lists(spans, max_size=3).map(tuple),
    clip_ids=st.lists(texts, max_size=3).map(tuple),
    binding=st.just(BINDING),
)


def outcome(video: str = "v", stage: str = "segment", part: str = "", **fields: object) -> Outcome:
    return Outcome.model_validate(
        {"video_id": video, "stage": stage, "part": part, "status": "ok", "fingerprint": "f"} | fields
    )


@given(st.lists(pairs, max_size=5))
def test_packed_rows_come_back_as_they_went_in(rows: list[QAPair]) -> None:
    packed = Packed(rows)
    assert (list(packed), len(packed), packed[1:]) == (rows, len(rows), rows[1:])
    assert content_hash(packed) == content_hash(rows)
    assert parquet.encode(QAPair, packed) == parquet.encode(QAPair, rows)


@given(st.lists(pairs, max_size=5))
def test_rows_come_back_from_parquet_as_they_went_in(rows: list[QAPair]) -> None:
    assert parquet.decode(QAPair, parquet.encode(QAPair, rows)) == rows


@given(st.lists(pairs, max_size=8))
def test_columns_are_those_of_the_rows(rows: list[QAPair]) -> None:
    found = parquet.columns(QAPair, parquet.encode(QAPair, rows), ("options", "tries", "binding.template_version"))
    assert found["options"].to_pylist() == [list(row.options) for row in rows]
    assert found["tries"].to_pylist() == [row.tries for row in rows]
    assert found["binding.template_version"].to_pylist() == [row.binding.template_version for row in rows]


def test_a_column_has_its_default_in_a_file_from_before_it_came_and_one_without_values_is_damage() -> None:
    row = Source(source_id="yt_1", split="val")
    table = pq.read_table(pa.BufferReader(parquet.encode(Source, [row])))
    file = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["licence", "url"]).append_column("url", pa.array([None], pa.string())), file)
    data = file.getvalue().to_pybytes()
    found = parquet.columns(Source, data, ("licence", "split"))
    assert (found["licence"].to_pylist(), found["split"].to_pylist()) == ([""], ["val"])
    for column in ("url", "source_id"):
        without = data if column == "url" else parquet.encode(Span, [Span(start=0, end=1)])
        with pytest.raises(parquet.Damaged, match=column):
            parquet.columns(Source, without, (column,))


@given(st.lists(pairs, max_size=6), st.lists(pairs, max_size=3))
def test_rows_of_some_tasks_in_the_place_of_others_give_the_bytes_of_a_file_written_whole(
    before: list[QAPair], new: list[QAPair]
) -> None:
    tasks = {pair.task for pair in new}
    whole = sorted([*(pair for pair in before if pair.task not in tasks), *new], key=lambda pair: pair.task)
    file = parquet.encode(QAPair, before)
    wanted = parquet.encode(QAPair, whole, {"a": "b"})
    assert parquet.with_tasks(QAPair, file, tasks, new, lambda known: {**known, "a": "b"}) == wanted


@given(st.lists(pairs, max_size=3))
def test_the_same_rows_give_the_same_bytes(rows: list[QAPair]) -> None:
    assert parquet.encode(QAPair, rows, {"k": "v"}) == parquet.encode(QAPair, list(rows), {"k": "v"})


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
def test_reading_a_table_starts_no_thread_that_could_abort_the_process_at_its_end(tmp_path: Path) -> None:
    source = Source(source_id="s", url="https://a.example/v.mp4", segments=(Span(start=1, end=2),))
    (tmp_path / "t.parquet").write_bytes(parquet.encode(Source, [source] * 1000, {"k": "v"}))
    program = (
        "import os, sys; from marathon_pipeline.dataset import parquet; from marathon_pipeline.records import Source\n"
        "data, before = open(sys.argv[1], 'rb').read(), len(os.listdir('/proc/self/task'))\n"
        "assert len(parquet.decode(Source, data)) == 1000 and parquet.metadata_of(data)['k'] == 'v'\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert subprocess.check_output([sys.executable, "-c", program, tmp_path / "t.parquet"]) == b"0\n"


def test_a_content_hash_ignores_who_wrote_a_row_and_heeds_what_it_says() -> None:
    event = Event(video_id="v", event_id="e", start=0, end=1, title="t", caption="c", clip_ids=("c0",), binding=BINDING)
    later = event.model_copy(update={"binding": BINDING.model_copy(update={"prompt_tokens": 7})})
    other = event.model_copy(update={"caption": "d"})
    assert content_hash([event]) == content_hash([later]) != content_hash([other])


def test_a_source_without_a_split_survives_parquet() -> None:
    source = Source(source_id="s", url="https://a.example/v.mp4", segments=(Span(start=1, end=2),))
    assert parquet.decode(Source, parquet.encode(Source, [source])) == [source]


def test_duckdb_reads_a_table_as_it_lies(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "d"), create=True)
    for video in ("a", "b"):
        clip = Clip(
            video_id=video, clip_id="c0000", start=0, end=30, shots=(Span(start=0, end=30),), frame_hashes=("0",)
        )
        dataset.tables.write(Clip, video, [clip], {"": outcome(video)})
    rows = duckdb.sql(f"select video_id, shots[1].\"end\" from '{tmp_path}/d/tables/clips/*/*.parquet' order by 1")
    assert rows.fetchall() == [("a", 30.0), ("b", 30.0)]


def test_a_table_file_tells_the_outcomes_that_wrote_it(tmp_path: Path) -> None:
    tables = Tables(Storage(str(tmp_path)))
    stamp = {"t1": outcome(part="t1", items=3), "t2": outcome(part="t2", status="filtered", reason="no_return")}
    tables.write(QAPair, "v", [], stamp)
    assert tables.stamp(QAPair, "v", ("t1", "t2", "t3")) == stamp and tables.stamp(QAPair, "v", ["t2"]).keys() == {"t2"}
    assert list(tables.stamps(QAPair)) == list(stamp.values())
    new = {"t1": outcome(part="t1", items=4)}
    tables.write_tasks(QAPair, "v", ["t1"], [], new)
    assert tables.stamp(QAPair, "v", stamp) == stamp | new
    tables.write_tasks(QAPair, "v", ["t1"], [], {})  # it failed
    assert tables.stamp(QAPair, "v", stamp).keys() == {"t2"}


def test_a_changed_byte_in_a_table_is_damage_and_no_other_text() -> None:
    source = Source(source_id="s", url="https://a.example/a-name-like-no-other.mp4")
    data = parquet.encode(Source, [source])
    changed = data.replace(b"a-name-like-no-other", b"a-name-like-an-other")
    assert changed != data
    with pytest.raises(parquet.Damaged):
        parquet.decode(Source, changed)


def test_a_damaged_table_file_counts_as_not_written(tmp_path: Path) -> None:
    tables = Tables(Storage(str(tmp_path)))
    tables.write(QAPair, "v", [], {"": outcome()})
    (tmp_path / Tables.key(QAPair, "v")).write_bytes(b"PAR1 not really")
    assert tables.stamp(QAPair, "v", [""]) == {}


def test_the_later_line_of_the_ledger_counts(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    ledger.append([outcome(status="failed", reason="truncated"), outcome("w")])
    ledger.flush()
    ledger.append([outcome(content="new")])
    ledger.flush()
    again = Ledger(storage)
    assert again.get("segment", "v") == outcome(content="new")
    assert len(again) == 2


def test_a_torn_ledger_line_loses_only_itself(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("ledger/00000001.jsonl", outcome("a").model_dump_json().encode() + b'\n{"video_id": "b", "sta')
    assert [o.video_id for o in Ledger(storage)] == ["a"]


def test_a_forgotten_video_stays_forgotten_through_compaction(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    for number in range(70):
        ledger.append([outcome(f"v{number}")])
        ledger.flush()
    ledger.forget("v3")
    ledger.flush()
    ledger.compact()
    assert len(storage.keys("ledger")) == 1
    ledger.append([outcome("later")])
    ledger.flush()
    again = Ledger(storage)
    assert again.get("segment", "v3") is None
    assert len(again) == 70


outcomes_of_all_kinds = st.builds(
    Outcome,
    video_id=st.sampled_from(["a", "b", "c"]),
    stage=st.sampled_from(["download", "segment", "qa"]),
    part=st.sampled_from(["", "t1"]),
    status=st.sampled_from(["ok", "filtered", "failed"]),
    reason=texts,
    message=texts,
    transient=st.booleans(),
    attempts=st.integers(0, 9),
    seconds=seconds,
    fingerprint=texts,
    content=texts,
    items=st.integers(0, 99),
    videos=st.lists(texts, max_size=3).map(tuple),
    lost=st.dictionaries(texts, st.integers(0, 9), max_size=2),
    tallies=st.dictionaries(texts, st.integers(0, 9), max_size=2),
    usage=st.lists(st.builds(Usage, model=texts, requests=st.integers(0, 9), seconds=seconds), max_size=2).map(tuple),
    rounds=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)


@given(st.lists(outcomes_of_all_kinds, max_size=12), st.lists(outcomes_of_all_kinds, max_size=6), st.booleans())
def test_what_is_kept_by_the_column_is_what_lines_say(
    before: list[Outcome], after: list[Outcome], reopened: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger, plain = Ledger(Storage(folder)), Ledger(Storage(f"{folder}/plain"))
        snapshot(ledger, before)
        for each in (ledger, plain):
            each.append(after if each is ledger else [*before, *after])
            each.flush()
        found = Ledger(Storage(folder)) if reopened else ledger
        assert list(found) == list(plain)
        assert list(found.of_stage("qa")) == list(plain.of_stage("qa"))
        assert len(found) == len(plain)
        for each in plain:
            assert found.get(each.stage, each.video_id, each.part) == each
            known = found.known(each.stage, each.video_id, each.part)
            assert known is not None
            assert (known.status, known.content, tuple(known.videos)) == (each.status, each.content, each.videos)
        names = ("stage", "video_id", "part", "lost", "rounds")
        assert sorted(map(repr, found.rows(*names))) == sorted(map(repr, plain.rows(*names)))


def snapshot(ledger: Ledger, outcomes: list[Outcome]) -> None:
    """Have it keep these by the column, as if they were many."""
    ledger.append(outcomes)
    ledger.flush()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marathon_pipeline.dataset.ledger._LINES", 0)
        ledger.compact()


def test_a_ledger_of_many_lines_becomes_one_file_that_duckdb_reads(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    ledger.append(outcome(f"v{number}", usage=[Usage(model="m", requests=2)]) for number in range(3000))
    ledger.flush()
    ledger.compact()
    assert [Path(key).suffix for key in storage.keys("ledger")] == [".parquet"]
    ledger.append([outcome("v7", status="failed", reason="gone")])
    ledger.flush()
    assert [Path(key).suffix for key in storage.keys("ledger")] == [".parquet", ".jsonl"]
    again = Ledger(storage)
    assert (len(again), getattr(again.get("segment", "v7"), "reason", "")) == (3000, "gone")
    found = duckdb.sql(f"select status, count(*), sum(usage[1].requests) from '{tmp_path}/ledger/*.parquet' group by 1")
    assert found.fetchall() == [("ok", 3000, 6000)]


def test_a_killed_compaction_loses_nothing_and_the_next_one_clears_up(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    ledger.append([outcome("a"), outcome("b")])
    ledger.flush()
    behind = storage.read("ledger/00000001.jsonl")
    snapshot(ledger, [outcome("a", content="new")])
    storage.write("ledger/00000001.jsonl", behind)  # killed before it was removed
    again = Ledger(storage)
    assert [(o.video_id, o.content) for o in again] == [("b", ""), ("a", "new")]
    snapshot(again, [outcome("c")])
    assert storage.keys("ledger") == ["ledger/00000005.parquet"]


def test_what_is_forgotten_is_in_no_file_of_the_ledger(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    snapshot(ledger, [outcome("stays"), outcome("goes"), outcome("goes", stage="download")])
    ledger.append([outcome("stays", part="t"), outcome("goes", part="t")])
    ledger.flush()
    ledger.forget("goes")
    assert {o.video_id for o in ledger} == {o.video_id for o in Ledger(storage)} == {"stays"}
    (key,) = storage.keys("ledger")
    assert b"goes" not in storage.read(key)


def test_a_damaged_snapshot_is_said_in_one_line(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    snapshot(Ledger(storage), [outcome(f"v{number}", fingerprint=f"f{number}") for number in range(500)])
    (key,) = storage.keys("ledger")
    data = bytearray(storage.read(key))
    for at in range(4, len(data) // 2):
        data[at] ^= 0xFF
    storage.write(key, bytes(data))
    with pytest.raises(UserError, match=rf"{key} is damaged .*; remove it and run the job again"):
        list(Ledger(storage))


def test_segments_of_a_run_of_weeks_are_joined_and_few(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    ledger = Ledger(storage)
    for number in range(1000):
        ledger.append([outcome(f"v{number}")])
        ledger.flush()
    assert len(storage.keys("ledger")) < 80
    assert [o.video_id for o in Ledger(storage)] == [f"v{number}" for number in range(1000)]


def test_a_run_that_was_overtaken_while_a_store_let_it_wait_writes_over_nothing(tmp_path: Path) -> None:
    Ledger(Storage(str(tmp_path))).flush()
    one, other = Ledger(Storage(str(tmp_path))), Ledger(Storage(str(tmp_path)))
    for ledger, video in ((other, "theirs"), (one, "late")):
        ledger.append([Outcome(video_id=video, stage="segment", status="ok", fingerprint="f")])
        ledger.flush()
    assert {outcome.video_id for outcome in Ledger(Storage(str(tmp_path)))} == {"theirs", "late"}


def test_a_lease_refuses_a_second_run_and_names_the_first(tmp_path: Path) -> None:
    code = (
        "import sys, time; from marathon_pipeline.dataset.dataset import Dataset\n"
        "with Dataset(sys.argv[1], create=True).lease(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"), Dataset(str(tmp_path)).lease():
            pass
    finally:
        holder.kill()
        holder.wait()
    with Dataset(str(tmp_path)).lease():  # a holder of this machine that is dead holds nothing
        pass


NOBODY = 2**22 + 1  # no process has this number


def held(dataset: Dataset, **more: object) -> None:
    """By somebody elsewhere, whose heartbeat was just now."""
    holder = {"host": "elsewhere", "pid": NOBODY, "process_started": 0, "since": "then", "alive": time.time()} | more
    dataset.storage.write("lease/00000004.json", json.dumps(holder).encode())


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_EXPIRES_SECONDS", 0.6)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.02)


def test_a_lease_of_another_machine_ends_when_its_heartbeat_stops(tmp_path: Path, short_lease: None) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    held(dataset)
    with pytest.raises(UserError, match="elsewhere"), dataset.lease():
        pass
    held(dataset, alive=time.time() - 120)
    with dataset.lease():
        assert dataset.storage.keys("lease") == ["lease/00000005.json"]


def test_a_living_holder_in_a_container_that_has_this_host_s_name_is_not_dead(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    held(dataset, host=socket.gethostname(), processes="another-boot 4026531836")
    with pytest.raises(UserError, match=f"process {NOBODY}"), dataset.lease():
        pass
    held(dataset, host=socket.gethostname())  # as before: its name is all that is known
    with dataset.lease():
        pass


@pytest.mark.parametrize("wrong_by", [-3600.0, 3600.0])
def test_a_living_holder_whose_clock_is_wrong_is_not_dead(tmp_path: Path, short_lease: None, wrong_by: float) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    held(dataset, alive=time.time() + wrong_by)
    beat = threading.Timer(0.2, lambda: held(dataset, alive=time.time() + wrong_by))
    beat.start()
    with pytest.raises(UserError, match="elsewhere"), dataset.lease():
        pass
    beat.join()
    with dataset.lease():  # its heart stands still, whatever its clock says
        assert dataset.storage.keys("lease") == ["lease/00000005.json"]


def test_a_heart_beats_on_after_a_beat_that_ended_in_an_error_of_any_kind(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    with dataset.lease() as held:
        held.tell({"what no JSON has": object()}, at_once=True)
        while held._wake.is_set():
            time.sleep(0.01)
        time.sleep(0.1)
        held.tell({"sources": 7}, at_once=True)
        end = time.monotonic() + 5
        while (holder := lease.holder_of(dataset.storage)) and not holder.note and time.monotonic() < end:
            time.sleep(0.01)
        assert holder and holder.note == {"sources": 7}


def test_who_was_overtaken_while_it_watched_a_dead_holder_is_refused(tmp_path: Path, short_lease: None) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    held(dataset, alive=0.0)
    taken = threading.Timer(0.1, lambda: dataset.storage.remove("lease/00000004.json"))
    taken.start()
    with pytest.raises(UserError, match="just begun"), dataset.lease():
        pass
    taken.join()


def test_a_lease_that_was_so_slow_to_be_written_that_others_came_and_went_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    held(dataset, released=True)
    create = Storage.create

    def late(storage: Storage, key: str, data: bytes) -> bool:
        storage.write("lease/00000006.json", b"{}")  # the second to come meanwhile, who removed what the first one left
        return create(storage, key, data)

    monkeypatch.setattr(Storage, "create", late)
    with pytest.raises(UserError, match="just begun"), dataset.lease():
        pass
    assert "lease/00000005.json" not in dataset.storage.keys("lease")


def test_a_holder_that_was_overtaken_notices(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    with dataset.lease() as lease:
        lease.check()
        dataset.storage.write("lease/00000009.json", b"{}")
        with pytest.raises(UserError, match="took over"):
            lease.check()


def test_a_dataset_of_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 99, this version reads format 1"):
        Dataset(str(tmp_path))


def test_opening_no_dataset_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset there"):
        Dataset(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_create_is_for_the_first_writer_only(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert storage.create("k", b"1") and not storage.create("k", b"2")
    assert storage.read("k") == b"1"


def test_an_original_is_found_whatever_its_extension(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    key = media_key("originals", "yt_a", ".webm")
    storage.write(key, b"x")
    storage.write(media_key("originals", "yt_ab", ".mp4"), b"x")
    assert original_key(storage, "yt_a") == key
    assert original_key(storage, "yt_b") is None


def test_parts_of_downloads_do_not_stay_for_ever_on_the_machines_of_a_store_s_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    long_ago = time.time() - (PARTS_DAYS + 1) * 86_400

    def left(url: str) -> set[str]:
        folder = Storage(url).partial()
        for name in ("old.parts", "gone_on_with.parts", "new.parts"):
            (folder / name).mkdir()
            (folder / name / "video.mp4.part").touch()
        for old in ("old.parts/video.mp4.part", "old.parts", "gone_on_with.parts"):
            os.utime(folder / old, (long_ago, long_ago))
        Storage(url).drop_old_parts()
        return {path.name for path in folder.iterdir()}

    assert left("memory:///d") == {"gone_on_with.parts", "new.parts"}
    assert len(left(str(tmp_path / "d"))) == 3, (
        "the next run goes on with them, whenever that is, and a purge finds them"
    )
