import json
import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from test_release import SETTINGS, SOURCES, TASKS, TAXONOMY, add_video, pair, video_of, write_qa

from marathon_pipeline import cli
from marathon_pipeline.audit.compare import Change, Comparison, compare
from marathon_pipeline.audit.page import marked, render, render_markdown
from marathon_pipeline.audit.sides import Cost, DatasetSide, Kind, Parts, Version, open_release
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import QAPair, Span, Usage
from marathon_pipeline.release.plan import revision_before
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.write import write_release

HOSTILE = "<script>alert(1)</script> | `@everyone` [x](http://evil.example) \x00 'quoted'"
NO_MEDIA = SETTINGS.model_copy(update={"media": False})


class Rows:
    """A side that was made by hand."""

    kind: Kind = "dataset"

    def __init__(self, name: str, pairs: list[tuple[Version, bool]]) -> None:
        self.name, self._pairs = name, pairs
        self.videos = frozenset(version.video_id for version, _ in pairs)
        self.tasks = frozenset(version.task for version, _ in pairs)

    def pairs(self, tasks: Collection[str], videos: Collection[str], but: Parts) -> Iterator[tuple[Version, bool]]:
        return ((v, accepted) for v, accepted in self._pairs if v.task in tasks and v.video_id in videos)

    def parts(self) -> dict[str, tuple[str, int]]:
        return {}

    def cost(self, tasks: Collection[str], videos: Collection[str]) -> dict[str, Cost]:
        return {}


def version(
    question: str, *spans: tuple[float, float], video: str = "v1", task: str = "temporal_order", answer: str = "Yes."
) -> Version:
    return Version(
        qa_id=QAPair.id_of(video, task, "open", question, (), answer),
        video_id=video,
        task=task,
        format="open",
        question=question,
        options=(),
        answer=answer,
        letter="",
        evidence=tuple(Span(start=start, end=end) for start, end in spans),
        clip_ids=("c0",),
        annotator="hand/1",
        template_version=1,
    )


def between(old: list[Version], new: list[Version]) -> tuple[Comparison, list[Change]]:
    found: list[Change] = []
    sides = (Rows(name, [(v, True) for v in rows]) for name, rows in (("old", old), ("new", new)))
    return compare(*sides, each=found.append), found


WORDS = st.lists(st.sampled_from(["what", "flies", "above", "the", "red", "kite"]), min_size=1, max_size=4).map(
    " ".join
)
VERSIONS = st.builds(
    lambda question, start, video, task, answer: version(
        question, (start, start + 10), video=video, task=task, answer=answer
    ),
    WORDS,
    st.integers(0, 20),
    st.sampled_from(["v1", "v2"]),
    st.sampled_from(["temporal_order", "scene_transition"]),
    st.sampled_from(["Yes.", "No."]),
)
SIDES = st.lists(st.tuples(VERSIONS, st.booleans()), max_size=12, unique_by=lambda each: each[0].qa_id)


@given(old=SIDES, new=SIDES, seed=st.integers(0, 3))
@settings(max_examples=60)
def test_each_pair_of_both_sides_is_counted_once(
    old: list[tuple[Version, bool]], new: list[tuple[Version, bool]], seed: int
) -> None:
    changes: list[Change] = []
    found = compare(Rows("old", old), Rows("new", new), each=changes.append)
    accepted = [{v.qa_id: v for v, accepted in side if accepted} for side in (old, new)]
    for task in found.tasks:
        own = [Counter(v.task for v in side.values())[task.task] for side in accepted]
        assert task.unchanged + task.changed + task.removed == own[0] == task.old.qa
        assert task.unchanged + task.changed + task.added == own[1] == task.new.qa
    seen = [[v.qa_id for change in changes if (v := getattr(change, name))] for name in ("old", "new")]
    assert all(len(ids) == len(set(ids)) for ids in seen)
    for change in changes:
        if change.old and change.new:
            assert all(getattr(change.old, n) == getattr(change.new, n) for n in ("video_id", "task", "format"))
            assert (change.old.qa_id, change.old.evidence) != (change.new.qa_id, change.new.evidence)
    shuffled = random.Random(seed).sample(old, len(old)), random.Random(seed + 1).sample(new, len(new))
    assert compare(Rows("old", shuffled[0]), Rows("new", shuffled[1])) == found


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (version("What flies above?", (0, 9)), version("What flies above?", (0, 9)), []),
        (version("What flies above?", (0, 9)), version("What flies above?", (50, 59)), ["changed"]),
        (version("What flies above?", (0, 9)), version("What flies high above?", (50, 59)), ["changed"]),
        (version("What flies above?", (0, 9)), version("Name the kite.", (0, 10)), ["changed"]),
        (version("What flies above?", (0, 9)), version("Name the kite.", (50, 59)), ["removed", "added"]),
        (version("What flies above?", (0, 9)), version("What flies above?", (0, 9), video="v2"), ["removed", "added"]),
    ],
)
def test_what_is_like_it_in_its_words_or_its_evidence_is_what_it_changed_to(
    old: Version, new: Version, kinds: list[str]
) -> None:
    assert sorted(change.kind for change in between([old], [new])[1]) == sorted(kinds)


def test_the_likest_two_find_each_other_first() -> None:
    old = [version("What flies above the trees?", (0, 9)), version("What lands near the red kite?", (0, 9))]
    new = [version("What lands near the blue kite?", (0, 9)), version("What flies above the houses?", (0, 9))]
    pairs = {(c.old and c.old.question, c.new and c.new.question) for c in between(old, new)[1]}
    assert pairs == {(old[0].question, new[1].question), (old[1].question, new[0].question)}


def test_a_pilot_is_held_against_its_own_videos_and_tasks() -> None:
    whole = Rows("whole", [(version("A?", video=f"v{n}"), True) for n in range(9)])
    pilot = Rows("pilot", [(version("A?", video="v3"), True), (version("B?", video="v3"), False)])
    found = compare(whole, pilot, within_new=True)
    assert str(found) == "no pair differs"
    assert (found.old.own, found.new.own, found.tasks[0].unchanged, found.tasks[0].new.accepted) == (8, 0, 1, 0.5)
    assert str(compare(whole, pilot)) == "0 added, 8 removed, 0 changed in 1 task"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two releases of two videos, and a third one not yet released; one task was written anew in between."""
    made = Dataset(str(tmp_path_factory.mktemp("compare") / "mine"), create=True)
    made.write_sources(SOURCES)
    for source in SOURCES[:2]:
        add_video(made, source, b"")
    write_release(made, "r-1", ReleaseRules(NO_MEDIA, TAXONOMY, Gates()))
    video = video_of(SOURCES[0])
    qa = {task: [pair(video, task, n) for n in range(7)] for task in TASKS}
    write_qa(made, video, qa | {"temporal_order": [pair(video, "temporal_order", n, HOSTILE) for n in range(5)]})
    write_release(made, "r-2", ReleaseRules(NO_MEDIA, TAXONOMY, Gates()))
    return made


def test_a_comparison_of_releases_reads_only_the_tasks_that_differ(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (open_release(f"{dataset.url}/releases/{name}") for name in ("r-1", "r-2"))
    assert old and new
    read: list[str] = []
    rows = type(old)._rows
    monkeypatch.setattr(
        type(old), "_rows", lambda self, path, columns: (read.append(path), rows(self, path, columns))[1]
    )
    found = compare(old, new)
    assert {path.split("/")[1] for path in read} == {"temporal_order"}
    counts = {task.task: task for task in found.tasks}
    assert counts["temporal_order"].unchanged == 7  # of the other video
    assert counts["temporal_order"].old.qa - counts["temporal_order"].new.qa == 2
    assert not counts["object_attribute"].differs and counts["object_attribute"].unchanged == 14


def test_a_dataset_is_compared_by_what_its_gates_let_through_and_tells_its_cost(dataset: Dataset) -> None:
    release = open_release(f"{dataset.url}/releases/r-2")
    assert release
    side = DatasetSide(dataset, Gates())
    assert str(compare(release, side)) == "no pair differs"
    strict = DatasetSide(dataset, Gates.model_validate({"items": {"bounds": {"question_words": {"most": 0}}}}))
    found = {task.task: task for task in compare(side, strict).tasks}
    assert all(task.removed == task.old.qa == task.new.rejected for task in found.values())
    assert found["temporal_order"].old.cost is not None


def test_of_two_datasets_only_the_tasks_that_their_ledgers_tell_apart_are_read_whole(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset.url, tmp_path / "copy")
    copy, video = Dataset(str(tmp_path / "copy")), video_of(SOURCES[0])
    qa = {task: [pair(video, task, n, HOSTILE if task == "temporal_order" else "") for n in range(5)] for task in TASKS}
    qa["object_attribute"] = qa["object_attribute"][:4]
    write_qa(copy, video, qa, ("pipeline_word",))
    old, new = DatasetSide(dataset, Gates()), DatasetSide(Dataset(copy.url), Gates())
    read: set[str] = set()
    rows = type(copy.tables).read_some
    monkeypatch.setattr(
        type(copy.tables), "read_some", lambda *each: (read.update((each[2], *each[4])), rows(*each))[1]
    )
    found = compare(old, new)
    assert read == {video, *TASKS} and found.old.videos == 2  # nothing of the other one
    monkeypatch.setattr(DatasetSide, "alike", lambda *each: {})
    assert compare(old, new) == found
    assert str(found) != "no pair differs" and str(compare(old, old)) == "no pair differs"


def test_cost_is_that_of_the_compared_videos_and_tasks(tmp_path: Path) -> None:
    made = Dataset(str(tmp_path / "mine"), create=True)
    usage = (Usage(model="m", requests=2, prompt_tokens=10, completion_tokens=5),)
    for number in range(2):
        add_video(made, SOURCES[number], b"")
    videos = [video_of(source) for source in SOURCES[:2]]
    for stage in ("qa", "verify"):
        for video in videos:
            outcome = made.ledger.get(stage, video, "temporal_order")
            assert outcome
            made.ledger.append([outcome.model_copy(update={"usage": usage, "seconds": 1.5})])
    made.ledger.flush()
    cost = DatasetSide(made, Gates()).cost({"temporal_order", "scene_transition"}, {videos[0]})
    assert cost == {"temporal_order": Cost(requests=4, tokens=30, seconds=3.0)}


def test_an_earlier_revision_is_one_of_the_same_name_with_a_lower_number(dataset: Dataset) -> None:
    found = {name: revision_before(dataset, name) for name in ("r-1", "r-2", "r-12", "s-3", "r", "r-x")}
    assert {name: each and each.name for name, each in found.items()} == {
        "r-1": None, "r-2": "r-1", "r-12": "r-2", "s-3": None, "r": None, "r-x": None,
    }  # fmt: skip


def test_a_release_that_is_not_whole_is_said_in_one_line(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(f"{dataset.url}/releases/r-1", tmp_path / "r")
    table = next(tmp_path.glob("r/qa/temporal_order/*.parquet"))
    rows = pq.read_table(table)
    kinds = rows.set_column(rows.column_names.index("format"), "format", [["neither"] * len(rows)])
    pq.write_table(kinds, table)
    strange, whole = open_release(str(tmp_path / "r")), open_release(f"{dataset.url}/releases/r-2")
    assert strange and whole
    with pytest.raises(
        UserError, match=r"parquet cannot be read \(format: Input should be 'open' or 'choice'\); fetch"
    ):
        compare(strange, whole)
    table.write_bytes(table.read_bytes()[:-9])
    broken = open_release(str(tmp_path / "r"))
    assert broken
    with pytest.raises(UserError, match=r"parquet cannot be read .* fetch the release again"):
        compare(broken, whole)
    table.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        compare(broken, whole)
    assert open_release(str(tmp_path / "nowhere")) is None and not (tmp_path / "nowhere").exists()


def test_a_temporary_folder_that_is_full_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(name: str) -> sqlite3.Connection:
        connection = connect(name)
        connection.execute("PRAGMA max_page_count = 4")
        return connection

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", small)
    many = [version(f"What is {n}?", (n, n + 1)) for n in range(200)]
    with pytest.raises(UserError, match=r"temporary folder \(database or disk is full\); free some"):
        between(many, many)


def test_a_release_of_strangers_cannot_steer_the_terminal(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(f"{dataset.url}/releases/r-1", tmp_path / "r")
    file = tmp_path / "r/release.json"
    told = json.loads(file.read_text()) | {"name": "\x1b[2J"}
    hostile = "[red]\x1b[31m"
    folder = (tmp_path / "r/qa/object_attribute").rename(tmp_path / f"r/qa/{hostile}")
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index("task"), "task", [[hostile] * len(table)]), path)
    for part in ("parts", "tasks", "files"):
        told[part] = {key.replace("object_attribute", hostile): value for key, value in told[part].items()}
    file.write_text(json.dumps(told))
    cli.diff(f"{dataset.url}/releases/r-2", str(tmp_path / "r"))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[red]\\x1b[31m" in shown and "release \\x1b[2J" in shown


@given(old=st.text(max_size=60), new=st.text(max_size=60))
def test_marks_leave_every_word_of_a_text_where_it_was(old: str, new: str) -> None:
    runs = marked(old, new)
    assert " ".join(run for _, run in runs) == " ".join(old.split())
    assert all(same for same, _ in runs) or old.split() != new.split()


def test_strange_texts_are_shown_and_do_nothing_on_the_page_and_stay_out_of_the_summary(dataset: Dataset) -> None:
    old, new = (open_release(f"{dataset.url}/releases/{name}") for name in ("r-1", "r-2"))
    assert old and new
    found = compare(old, new)
    hostile = found.model_copy(update={"old": found.old.model_copy(update={"name": HOSTILE})})
    statistics = survey(dataset, Standards(TAXONOMY, Gates()))
    page = render(statistics, [], TAXONOMY, hostile)
    assert page.count("<script") == 0 and "&lt;script&gt;" in page
    summary = render_markdown(statistics, TAXONOMY, hostile)
    outside_of_code = re.sub("`[^`]*`", "", summary)
    assert not re.search("script|http|everyone", outside_of_code) and "everyone" in summary
    assert render(statistics, [], TAXONOMY, hostile) == page


def test_diff_tells_what_differs_and_refuses_what_is_neither(built: Path) -> None:
    marathon = Command(built)
    assert "no pair differs" in marathon("diff", "out", "out/releases/test-1")
    said = marathon("audit", "out", "--against", "nowhere", code=2)
    assert said.startswith("marathon: nowhere: no dataset and no release there") and said.count("\n") == 1
    assert not (built / "nowhere").exists()
