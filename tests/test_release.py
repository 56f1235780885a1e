import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import (
    Binding,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Record,
    Source,
    Span,
    Summary,
    Verdict,
    Video,
    content_hash,
)
from marathon_pipeline.release.plan import BUCKETS, bucket, next_revision, planned_release, split_of, stale_tasks
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import ReleaseInfo, write_release
from marathon_pipeline.taxonomy import load_taxonomy

TASKS = ("temporal_order", "object_attribute", "overall_summarization")
TAXONOMY = load_taxonomy()
SETTINGS = ReleaseSettings(title="Six short | films", licence="cc-by-4.0", shards=3, media_shards=3, val=0.3)
BINDING = Binding(annotator="measured/1", template_version=1, request="0" * 64, prompt_tokens=7)
SOURCES = [
    Source(
        source_id=f"yt_source-{number}",
        data_source="panda-70m" if number < 4 else "odd | `collection`",
        url=f"https://example.org/watch/{number}",
        licence="CC-BY",
        licence_evidence="https://example.org/licence",
        split="test" if number == 5 else None,
    )
    for number in range(6)
]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("proxy") / "proxy.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=1:duration=3"]
    subprocess.run([ffmpeg_binary(), "-v", "error", *source, "-c:v", "libx264", "-g", "1", str(path)], check=True)
    return path.read_bytes()


@pytest.fixture
def dataset(tmp_path: Path, proxy: bytes) -> Dataset:
    return build(tmp_path / "dataset", proxy)


def build(folder: Path, proxy: bytes) -> Dataset:
    dataset = Dataset(str(folder), create=True)
    dataset.write_sources(SOURCES)
    for source in SOURCES:
        add_video(dataset, source, proxy)
    dataset.ledger.flush()
    return dataset


def video_of(source: Source) -> str:
    return source.source_id.replace("source", "video")


def add_video(dataset: Dataset, source: Source, proxy: bytes) -> None:
    video_id = video_of(source)
    video = Video(
        video_id=video_id,
        source_id=source.source_id,
        start=10.0,
        end=70.0,
        file=f"/secret/{video_id}.mp4",
        sha256=hashlib.sha256(video_id.encode()).hexdigest(),
        bytes=1000,
        width=96,
        height=64,
        fps=30.0,
        codec="h264",
    )
    download = done("download", source.source_id, [video]).model_copy(update={"videos": (video_id,)})
    dataset.tables.write(Video, source.source_id, [video], {"": download})
    dataset.storage.write(media_key("proxies", video_id, ".mp4"), proxy)
    said = dict.fromkeys(
        ("temporality", "spatiality", "object", "action", "scene", "summary"), f"A thing in {video_id}."
    )
    of = {"video_id": video_id, "binding": BINDING}
    clips = [ClipCaption(clip_id=f"c{n}", start=20.0 * n, end=20.0 * n + 30, **of, **said) for n in range(2)]
    events = [Event(event_id="e0", start=0, end=50, title="All", caption="It moves.", clip_ids=("c0", "c1"), **of)]
    summary = [Summary(text="It moves all the time.", **of)]
    dataset.ledger.append(
        [
            download,
            Outcome(video_id=video_id, stage="segment", status="ok", fingerprint="f", content=f"clips of {video_id}"),
            done("caption_clips", video_id, clips),
            done("caption_events", video_id, events),
            done("summarize", video_id, summary),
        ]
    )
    dataset.tables.write(ClipCaption, video_id, clips, {})
    dataset.tables.write(Event, video_id, events, {})
    dataset.tables.write(Summary, video_id, summary, {})
    write_qa(dataset, video_id, {task: [pair(video_id, task, n) for n in range(7)] for task in TASKS})


def done(stage: str, video_id: str, rows: list, part: str = "") -> Outcome:
    return Outcome(
        video_id=video_id,
        stage=stage,
        part=part,
        status="ok",
        fingerprint="f",
        content=content_hash(rows),
        items=len(rows),
    )


def pair(video_id: str, task: str, number: int, wording: str = "Which comes first") -> QAPair:
    """The seventh pair of a task is a choice, all before it are open."""
    choice = number == 6 and task != "overall_summarization"
    options = ("red", "green", "blue", "grey") if choice else ()
    form = "choice" if choice else "open"
    question, answer = f"{wording}, case {number}?", "green"
    return QAPair(
        qa_id=QAPair.id_of(video_id, task, form, question, options, answer),
        video_id=video_id,
        task=task,
        topic=TAXONOMY.tasks[task].topic,
        format=form,
        question=question,
        options=options,
        answer=answer,
        letter="B" if choice else "",
        evidence=(Span(start=1.0, end=5.0),) if number else (),
        clip_ids=("c0",),
        binding=BINDING,
    )


def write_qa(
    dataset: Dataset, video_id: str, pairs: Mapping[str, list[QAPair]], problems: tuple[str, ...] = ()
) -> None:
    """`problems`: those of the first pair of every task."""
    rows = [pair for task in pairs.values() for pair in task]
    verdicts = {
        task: [
            Verdict(
                qa_id=pair.qa_id,
                video_id=video_id,
                task=task,
                problems=problems if n == 0 else (),
                question_words=5,
                answer_words=1,
                option_length_ratio=1.5 if pair.options else 0.0,
                evidence_seconds=4.0,
            )
            for n, pair in enumerate(own)
        ]
        for task, own in pairs.items()
    }
    dataset.tables.write(QAPair, video_id, rows, {})
    dataset.tables.write(Verdict, video_id, [v for own in verdicts.values() for v in own], {})
    for task, own in pairs.items():
        dataset.ledger.append([done("qa", video_id, own, task), done("verify", video_id, verdicts[task], task)])
    dataset.ledger.flush()


def release(dataset: Dataset, name: str, settings: ReleaseSettings = SETTINGS) -> tuple[Path, ReleaseInfo]:
    info = write_release(
        dataset, name, ReleaseRules(settings, TAXONOMY, Gates()), content={"segment": {"clip_seconds": 30.0}}
    )
    return Path(info.url), info


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(folder: Path, pattern: str = "qa/*/*.tar") -> Iterator[dict]:
    for path in sorted(folder.glob(pattern)):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.loads(tar.extractfile(member).read())


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_a_release_holds_one_complete_sample_a_pair_and_its_tables(dataset: Dataset) -> None:
    folder, info = release(dataset, "first")
    rows = list(samples(folder))
    assert len(rows) == info.qa == 6 * 3 * 7
    assert (info.tasks, info.unchanged) == (3, False)
    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert {tuple(type(value) for value in row.values()) for row in rows} == {tuple(map(type, rows[0].values()))}
    row = next(row for row in rows if row["options"])
    assert row["url"].startswith("https://example.org/watch/") and (row["start"], row["end"]) == (10.0, 70.0)
    assert (row["letter"], row["annotator"], row["template_version"]) == ("B", "measured/1", 1)
    table = duckdb.sql(f"SELECT qa_id, evidence_seconds FROM '{folder}/qa/*/*.parquet'").fetchall()
    assert {qa_id for qa_id, _ in table} == {row["qa_id"] for row in rows} and len(table) == len(rows)
    levels = duckdb.sql(f"SELECT level, count(*) FROM '{folder}/captions.parquet' GROUP BY ALL").fetchall()
    assert dict(levels) == {"clip": 12, "event": 6, "global": 6}
    assert duckdb.sql(f"SELECT count(*) FROM '{dataset.url}/tables/qa/*/*.parquet'").fetchall() == [(6 * 3 * 7,)]


def test_release_json_lists_every_file_and_says_nothing_of_clocks_hosts_or_paths(dataset: Dataset) -> None:
    folder, info = release(dataset, "first")
    listed = json.loads((folder / "release.json").read_text())
    found = hashes(folder)
    found.pop("release.json")
    assert {path: file["sha256"] for path, file in listed["files"].items()} == found
    assert sum(file["bytes"] for file in listed["files"].values()) == info.bytes
    assert listed["settings"]["content"] == {"segment": {"clip_seconds": 30.0}}
    assert listed["templates"]["tasks"]["temporal_order"] == TAXONOMY.tasks["temporal_order"].rendered_rules()
    for path in folder.rglob("*"):
        assert path.is_dir() or (dataset.url.encode() not in path.read_bytes() and b"/secret" not in path.read_bytes())


@pytest.mark.parametrize("left", [0, 500])
def test_a_proxy_that_was_cut_off_is_named_and_enters_no_release(dataset: Dataset, proxy: bytes, left: int) -> None:
    dataset.storage.write(key := media_key("proxies", video_of(SOURCES[0]), ".mp4"), proxy[:left])
    with pytest.raises(UserError, match=rf"{re.escape(key)} is damaged; .* --force --video {video_of(SOURCES[0])}"):
        release(dataset, "one")
    dataset.storage.write(key, proxy)
    release(dataset, "one")


def test_a_media_shard_that_was_cut_off_is_written_anew(dataset: Dataset) -> None:
    release(dataset, "one")
    name = next(key for key in dataset.storage.keys("media/v1") if key.endswith(".tar"))
    whole = dataset.storage.read(name)
    dataset.storage.write(name, whole[:100])
    release(dataset, "two")
    assert dataset.storage.read(name.replace("/v1/", "/v2/")) == whole


@pytest.mark.parametrize("record", [Video, ClipCaption, Event, Summary, QAPair, Verdict])
def test_a_table_file_that_is_gone_is_named_and_not_released_without(dataset: Dataset, record: type[Record]) -> None:
    owner = SOURCES[0].source_id if record is Video else video_of(SOURCES[0])
    dataset.tables.remove(record, owner)
    missing = rf"{re.escape(dataset.tables.key(record, owner))} is missing: .* --force --video {owner}"
    with pytest.raises(Failed, match=missing):
        release(dataset, "one")


def test_the_same_rows_give_the_same_bytes_in_another_place(tmp_path: Path, proxy: bytes) -> None:
    first, second = (build(tmp_path / name, proxy) for name in ("one", "two"))
    assert hashes(release(first, "r")[0]) == hashes(release(second, "r")[0])
    assert hashes(tmp_path / "one" / "media") == hashes(tmp_path / "two" / "media")


def test_a_copied_release_has_the_bytes_of_one_written_afresh(dataset: Dataset, tmp_path: Path, proxy: bytes) -> None:
    release(dataset, "before")
    copied, _ = release(dataset, "again")
    fresh, _ = release(build(tmp_path / "fresh", proxy), "again")
    assert hashes(copied) == hashes(fresh)


def test_no_source_is_in_two_splits_and_the_manifests_split_counts(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first")
    splits: dict[str, set[str]] = {}
    for row in samples(folder):
        splits.setdefault(row["source_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert splits["yt_source-5"] == {"test"}
    assert len(set.union(*splits.values())) == 3
    media = {row["video_id"]: row["split"] for row in samples(Path(dataset.url), "media/v1/*.tar")}
    assert media == {row["video_id"]: row["split"] for row in samples(folder)}


@given(st.text(min_size=1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_val_share_takes_no_source_out_of_test_or_val(id: str, test: float, val: float, more: float) -> None:
    assert 0 <= bucket(id) < BUCKETS
    source = Source(source_id=id)
    before = split_of(source, ReleaseSettings(test=test, val=val))
    if before != "train":
        assert split_of(source, ReleaseSettings(test=test, val=max(val, more))) == before


def test_a_pair_with_a_problem_is_left_out_and_counted(dataset: Dataset) -> None:
    video_id = video_of(SOURCES[0])
    pairs = {task: [pair(video_id, task, n) for n in range(7)] for task in TASKS}
    write_qa(dataset, video_id, pairs, problems=("answer_in_question", "too_long"))
    folder, info = release(dataset, "first")
    assert info.qa == 6 * 3 * 7 - 3
    assert not {row["qa_id"] for row in samples(folder)} & {own[0].qa_id for own in pairs.values()}
    tasks = json.loads((folder / "release.json").read_text())["tasks"]
    assert all(task["left_out"] == {"answer_in_question": 1, "too_long": 1} for task in tasks.values())


def test_a_video_that_failed_later_or_was_taken_down_is_not_released(dataset: Dataset) -> None:
    dataset.ledger.append([Outcome(video_id=video_of(SOURCES[0]), stage="segment", status="failed", fingerprint="f")])
    dataset.removals().add(SOURCES[1].source_id)
    folder, _ = release(dataset, "first")
    assert {row["source_id"] for row in samples(folder)} == {source.source_id for source in SOURCES[2:]}


def test_shards_are_numbered_without_a_gap_and_none_is_empty(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first", SETTINGS.model_copy(update={"shards": 500, "media_shards": 500}))
    listed = json.loads((folder / "release.json").read_text())
    for task in TASKS:
        for split, count in listed["tasks"][task]["shards"].items():
            names = sorted(path.name for path in folder.glob(f"qa/{task}/{split}-*.tar"))
            assert names == [f"{split}-{number:06d}.tar" for number in range(count)]
    assert all(file["rows"] > 0 for path, file in listed["files"].items() if path.endswith(".tar"))


def test_keys_are_unique_over_the_release_and_hold_no_dot(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first")
    keys = []
    for path in folder.glob("qa/*/*.tar"):
        with tarfile.open(path) as tar:
            keys += [name.removesuffix(".json") for name in tar.getnames()]
    assert len(set(keys)) == len(keys) and not any("." in key or key.startswith("-") for key in keys)


def test_one_tasks_change_leaves_the_tars_of_all_others_as_they_are(dataset: Dataset) -> None:
    before, _ = release(dataset, "before")
    video_id = video_of(SOURCES[2])
    pairs = {task: [pair(video_id, task, n) for n in range(7)] for task in TASKS}
    pairs["temporal_order"] = [pair(video_id, "temporal_order", n, "What is seen before") for n in range(7)]
    write_qa(dataset, video_id, pairs)
    assert stale_tasks(dataset, "none", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == set(TASKS)
    after, _ = release(dataset, "after")
    different = changed(hashes(before), hashes(after))
    assert {path.split("/")[1] for path in different if path.startswith("qa/")} == {"temporal_order"}
    assert not different & {"videos.parquet", "captions.parquet"}
    assert not (Path(dataset.url) / "media" / "v2").exists()


def test_taking_a_video_out_changes_only_the_tars_of_its_bucket(dataset: Dataset) -> None:
    before, _ = release(dataset, "before")
    by_bucket: dict[tuple[str, int], list[Source]] = {}
    for source in SOURCES:
        by_bucket.setdefault((split_of(source, SETTINGS), bucket(source.source_id) % 3), []).append(source)
    gone = next(sources for sources in by_bucket.values() if len(sources) > 1)[0]
    dataset.ledger.forget(video_of(gone))
    dataset.ledger.forget(gone.source_id)
    dataset.ledger.flush()
    after, _ = release(dataset, "after")
    tars = {path for path in changed(hashes(before), hashes(after)) if path.endswith(".tar")}
    assert len(tars) == len(TASKS) and len({path.rpartition("/")[2] for path in tars}) == 1
    media = Path(dataset.url) / "media"
    assert {path for path in changed(hashes(media / "v1"), hashes(media / "v2")) if path.endswith(".tar")} == {
        path.rpartition("/")[2] for path in tars
    }


def test_taking_the_only_video_of_a_shard_out_moves_the_later_shards_down_unchanged(dataset: Dataset) -> None:
    settings = SETTINGS.model_copy(update={"shards": 500, "val": 0.0})
    before, _ = release(dataset, "before", settings)
    gone = min(SOURCES[:5], key=lambda source: bucket(source.source_id) % 500)
    dataset.ledger.forget(video_of(gone))
    after, _ = release(dataset, "after", settings)
    old, new = ({h for path, h in hashes(folder).items() if path.endswith(".tar")} for folder in (before, after))
    assert new < old and len(old - new) == len(TASKS)


def test_a_release_is_unchanged_when_asked_for_again_and_never_replaced(dataset: Dataset) -> None:
    folder, first = release(dataset, "first")
    before = hashes(folder)
    _, again = release(dataset, "first")
    assert again == ReleaseInfo(**{**first.__dict__, "unchanged": True})
    dataset.write_sources([source.model_copy(update={"licence": "CC0"}) for source in SOURCES])
    with pytest.raises(UserError, match=r"other content.*choose another name"):
        release(dataset, "first")
    assert hashes(folder) == before


def test_an_unfinished_release_is_written_again_without_what_it_left(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first")
    before = hashes(folder)
    (folder / "release.json").unlink()
    (folder / "qa" / "temporal_order" / "train-000007.tar").write_bytes(b"half")
    (Path(dataset.url) / "media" / "v1" / "media.json").unlink()
    _, info = release(dataset, "first")
    assert not info.unchanged and hashes(folder) == before


def test_a_damaged_file_of_an_earlier_release_is_not_copied(dataset: Dataset) -> None:
    folder, _ = release(dataset, "before")
    before = hashes(folder / "qa")
    (folder / "qa" / "temporal_order" / "train.parquet").unlink()
    assert hashes(release(dataset, "after")[0] / "qa") == before


def test_revisions_are_numbered_and_a_current_one_is_kept(dataset: Dataset) -> None:
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-1"
    release(dataset, "demo-1")
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-1"
    assert stale_tasks(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == set()
    video_id = video_of(SOURCES[3])
    write_qa(dataset, video_id, {TASKS[1]: [pair(video_id, TASKS[1], n, "What colour is it") for n in range(7)]})
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-2"
    assert stale_tasks(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == {TASKS[1]}


def test_a_split_that_is_frozen_stands_on_the_card_of_a_new_revision(dataset: Dataset) -> None:
    release(dataset, "demo-1")
    rules = ReleaseRules(SETTINGS, TAXONOMY, Gates(), frozen=("test",))
    assert next_revision(dataset, "demo", rules) == "demo-2"
    url = write_release(dataset, "demo-2", rules).url
    assert "test is frozen: their questions stay" in (Path(url) / "README.md").read_text()
    assert next_revision(dataset, "demo", rules) == "demo-2"


def test_the_card_says_how_many_sources_opted_out_and_a_new_one_makes_a_new_revision(dataset: Dataset) -> None:
    folder, before = release(dataset, "demo-1")
    assert "not to be used" not in (folder / "README.md").read_text()
    opted = {"video_id": "yt_gone", "stage": "download", "reason": "opted_out", "fingerprint": ""}
    dataset.ledger.append([Outcome.model_validate(opted | {"status": "filtered", "message": "mail of May"})])
    assert next_revision(dataset, "demo", ReleaseRules(SETTINGS, TAXONOMY, Gates())) == "demo-2"
    folder, after = release(dataset, "demo-2")
    assert "that they are not to be used: 1." in (folder / "README.md").read_text()
    assert (json.loads((folder / "release.json").read_text())["opted_out"], after.qa) == (1, before.qa)


def test_what_a_release_would_hold_is_told_without_the_tables(dataset: Dataset) -> None:
    before = planned_release(dataset, ReleaseRules(SETTINGS, TAXONOMY, Gates())).parts
    for key in dataset.storage.keys("tables"):
        dataset.storage.remove(key)
    assert planned_release(Dataset(dataset.url), ReleaseRules(SETTINGS, TAXONOMY, Gates())).parts == before
    assert set(before) == {*(f"qa/{task}" for task in TASKS), "videos", "captions", "media", "card"}


def test_without_anything_to_release_a_person_is_told_what_to_do(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"no video is finished.*run its job"):
        release(Dataset(str(tmp_path / "empty"), create=True), "first")
    with pytest.raises(UserError, match="release name"):
        release(dataset, "../first")
    dataset.storage.remove(media_key("proxies", video_of(SOURCES[0]), ".mp4"))
    with pytest.raises(UserError, match=r"is missing.*media: false"):
        release(dataset, "first")
    assert release(dataset, "first", SETTINGS.model_copy(update={"media": False}))[1].qa == 6 * 3 * 7


def test_webdataset_opens_the_shards_with_several_workers(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first")
    shards = json.loads((folder / "release.json").read_text())["tasks"]["temporal_order"]["shards"]["train"]
    assert shards > 1
    opened = webdataset.WebDataset(
        f"{folder}/qa/temporal_order/train-{{000000..{shards - 1:06d}}}.tar", shardshuffle=False
    ).decode()
    found = [sample["json"]["qa_id"] for sample in opened]
    assert found == [row["qa_id"] for row in samples(folder, "qa/temporal_order/train-*.tar")]
    assert [sample["__key__"] for sample in opened] == found
    assert found == pq.read_table(folder / "qa" / "temporal_order" / "train.parquet")["qa_id"].to_pylist()


def test_the_code_of_the_card_runs_and_datasets_and_croissant_read_the_release(
    dataset: Dataset, tmp_path: Path
) -> None:
    folder, _ = release(dataset, "first")
    card = (folder / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 4
    checks = """
from datasets import Video, get_dataset_config_names
tasks = ["temporal_order", "object_attribute", "overall_summarization"]
assert get_dataset_config_names(folder) == ["default", *tasks, "videos", "captions"]
everything = load_dataset(folder)
assert sum(split.num_rows for split in everything.values()) == 6 * 3 * 7, everything
assert set(everything) == {"train", "val", "test"}
assert load_dataset(folder, "captions")["train"].num_rows == 24
for task in tasks:
    tars = {split: f"qa/{task}/{split}-*.tar" for split in ("train", "val", "test")}
    loaded = load_dataset("webdataset", data_files=tars)
    assert sum(split.num_rows for split in loaded.values()) == 6 * 7
media = load_dataset("webdataset", data_files="../../media/v1/train-*.tar")["train"]
assert media.cast_column("mp4", Video(decode=False))[0]["mp4"]["bytes"][4:8] == b"ftyp"
import mlcroissant
described = mlcroissant.Dataset(jsonld="croissant.json")
assert not described.metadata.ctx.issues.errors, described.metadata.ctx.issues.report()
for name, rows in (("videos", 6), ("captions", 24), ("qa", 6 * 3 * 7)):
    records = list(described.records(name))
    assert len(records) == rows
assert {tuple(span.items()) for record in records for span in record["qa/evidence"]} == {
    (("qa/evidence/start", 1.0), ("qa/evidence/end", 5.0))
}
"""
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment |= {"CROISSANT_CACHE": str(tmp_path / "croissant"), "TMPDIR": str(tmp_path)}
    program = "\n".join([*blocks, checks])
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_card_says_who_wrote_it_and_what_strangers_wrote_cannot_break_it(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first")
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    assert head["task_categories"] == ["visual-question-answering", "video-text-to-text"]
    assert "derived from image measurements, without a language model" in card
    assert "| odd \\| \\`collection\\` | CC-BY | https://example.org/licence | 2 |" in card
    tables = [line for line in card.splitlines() if line.startswith("| panda") or line.startswith("| odd")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in tables)


def test_a_release_without_media_names_urls_only(dataset: Dataset) -> None:
    folder, _ = release(dataset, "first", SETTINGS.model_copy(update={"media": False}))
    assert not (Path(dataset.url) / "media").exists()
    assert json.loads((folder / "release.json").read_text())["media"] == ""
    assert "holds no videos" in (folder / "README.md").read_text()
