import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from marathon_pipeline.audit.cards import cards, seconds_shown
from marathon_pipeline.audit.page import gauge, render
from marathon_pipeline.audit.report import MARKDOWN_KEY, current_audit, write_audit
from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.audit.statistics import Letters, Statistics
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.journal import Answer, Journal
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.gates import Bound, Gates, load_gates
from marathon_pipeline.pipeline.purge import purge
from marathon_pipeline.records import (
    LETTERS,
    Binding,
    ClipCaption,
    Event,
    Format,
    Outcome,
    QAPair,
    Source,
    Span,
    Summary,
    Verdict,
)
from marathon_pipeline.review.deal import deal
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import load_taxonomy

HOSTILE = "<script>alert(1)</script> & \"quoted\" '</style>'"
TAXONOMY = load_taxonomy()
STANDARDS = Standards(TAXONOMY, load_gates(shipped("jobs/gates.yaml")))
BINDING = Binding(annotator="hand/1", template_version=1, request="")
OPTIONS = ("a kite", "a bird", "a plane", "a red balloon")


def qa(video: str, task: str, format: Format, question: str, *spans: tuple[float, float], letter: str = "A") -> QAPair:
    options = OPTIONS if format == "choice" else ()
    answer = OPTIONS[LETTERS.index(letter)] if options else "It goes up."
    return QAPair(
        qa_id=QAPair.id_of(video, task, format, question, options, answer),
        video_id=video,
        task=task,
        topic=TAXONOMY.tasks[task].topic,
        format=format,
        question=question,
        options=options,
        answer=answer,
        letter=letter if options else "",
        evidence=tuple(Span(start=start, end=end) for start, end in spans),
        clip_ids=("c0000",),
        binding=BINDING,
    )


def verdict(pair: QAPair, *problems: str) -> Verdict:
    return Verdict(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        problems=problems,
        question_words=1,
        answer_words=1,
        option_length_ratio=0,
        evidence_seconds=4,
    )


def outcome(video: str, stage: str, part: str = "", status: str = "ok", reason: str = "", **fields: object) -> Outcome:
    known = {"video_id": video, "stage": stage, "part": part, "status": status, "reason": reason, "fingerprint": "f"}
    return Outcome.model_validate(known | {"content": f"{video}{stage}{part}"} | fields)


def finished(video: str, seconds: float, events: int, parts: dict[str, str]) -> list[Outcome]:
    """The outcomes of a video that came to its end; `parts`: why a task was not asked, or nothing where it was."""
    return [
        outcome(video, "download", videos=(video,)),
        outcome(video, "segment", video_seconds=seconds),
        outcome(video, "caption_clips"),
        outcome(video, "caption_events", items=events),
        outcome(video, "summarize"),
        *(outcome(video, "qa", part, "filtered" if why else "ok", why) for part, why in parts.items()),
        *(outcome(video, "verify", part) for part, why in parts.items() if not why),
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two finished videos, one too short, one that failed; three tasks."""
    made = Dataset(str(tmp_path_factory.mktemp("audit") / "dataset"), create=True)
    made.write_sources(
        Source(source_id=name, path=f"/{name}", data_source="birds") for name in ("v1", "v2", "v3", "v4")
    )
    first = [
        qa("v1", "object_recognition", "choice", "What flies?", (0, 4), letter="A"),
        qa("v1", "object_recognition", "choice", "what  FLIES", (50, 59), letter="B"),
        qa("v1", "object_recognition", "choice", "What lands?", (0, 9), letter="D"),
        qa("v1", "object_recognition", "open", HOSTILE, (10, 20), (30, 40)),
        qa("v1", "temporal_order", "open", "Which clip is first?", (0, 60)),
    ]
    second = [
        qa("v2", "object_recognition", "choice", "What lands?", (90, 120), letter="D"),
        qa("v2", "object_recognition", "open", "Unseen by the verifier", (0, 4)),
        qa("v2", "scene_recognition", "open", "Of a task that is not verified", (0, 4)),
    ]
    problems = {first[4].qa_id: ("pipeline_word",)}
    for video, pairs in (("v1", first), ("v2", second)):
        made.tables.write(QAPair, video, pairs, {})
        verdicts = [verdict(pair, *problems.get(pair.qa_id, ())) for pair in pairs if "verif" not in pair.question]
        made.tables.write(Verdict, video, verdicts, {})
    caption = ClipCaption(
        video_id="v1", clip_id="c0000", start=0, end=30, temporality="It rises.", spatiality="Above.", object=HOSTILE,
        action="Flying.", scene="Sky.", summary="A kite flies.", binding=BINDING,
    )  # fmt: skip
    made.tables.write(ClipCaption, "v1", [caption], {})
    made.tables.write(ClipCaption, "v2", [], {})
    for video in ("v1", "v2"):
        made.tables.write(Event, video, [], {})
    made.ledger.append(
        [
            *finished("v1", 60, 4, {"object_recognition": "", "temporal_order": ""}),
            *finished("v2", 120, 9, {"object_recognition": "", "temporal_order": "too_few_events"}),
            outcome("v2", "qa", "scene_recognition", "failed", "server", transient=True),
            outcome("v3", "download", videos=("v3",)),
            outcome("v3", "segment", status="filtered", reason="duration"),
            outcome("v3", "qa", "temporal_order"),  # of an earlier run, whose settings let it through
            outcome("v4", "download", status="failed", reason="removed"),
        ]
    )
    made.ledger.flush()
    _write_proxy(made, "v1", 60)
    return made


def _write_proxy(dataset: Dataset, video: str, seconds: int) -> None:
    path = Path(dataset.url) / media_key("proxies", video, ".mp4")
    path.parent.mkdir(parents=True)
    picture = f"testsrc=size=320x180:rate=1:duration={seconds}"
    command = [
        ffmpeg_binary(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        picture,
        "-pix_fmt",
        "yuv420p",
        "-g",
        "1",
        str(path),
    ]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def statistics(dataset: Dataset) -> Statistics:
    return survey(dataset, STANDARDS)


def test_the_headline_counts_what_is_verified_of_finished_videos(statistics: Statistics) -> None:
    assert (statistics.videos, statistics.sources, statistics.seconds) == (2, 2, 180)
    assert (statistics.qa, statistics.accepted, statistics.unverified) == (7, 5, 1)
    assert statistics.annotators == {"hand/1": 7}
    assert statistics.problems == {"pipeline_word": 1}
    assert {name: (s.videos, s.seconds, s.qa) for name, s in statistics.data_sources.items()} == {"birds": (2, 180, 7)}


def test_a_task_is_counted_beside_what_its_template_asks(statistics: Statistics) -> None:
    tasks = {task.task: task for task in statistics.tasks}
    assert list(tasks) == list(TAXONOMY.tasks)
    found = tasks["object_recognition"]
    wanted = TAXONOMY.tasks["object_recognition"].per_video
    assert (found.open, found.choice, found.accepted, found.problems) == (2, 4, 5, {})
    assert (found.wanted_open, found.wanted_choice) == (2 * wanted.open, 2 * wanted.choice)
    assert tasks["temporal_order"].not_asked == {"too_few_events": 1}
    assert tasks["temporal_order"].problems == {"pipeline_word": 1}
    assert tasks["scene_recognition"].failed == {"server": 1}


def test_topic_shares_stand_beside_the_published_ones(statistics: Statistics) -> None:
    topics = {topic.topic: topic for topic in statistics.topics}
    assert (topics["object"].qa, topics["object"].share, topics["object"].published) == (6, 0.857143, 0.302)
    assert sum(topic.published for topic in topics.values()) == pytest.approx(1)


def test_distributions_are_those_of_accepted_pairs(statistics: Statistics) -> None:
    assert statistics.letters.counts == {"A": 1, "B": 1, "C": 0, "D": 2}
    assert (statistics.longest_option.questions, statistics.longest_option.right) == (4, 2)
    assert sum(statistics.question_words.counts) == sum(statistics.answer_words.counts) == 5
    assert statistics.evidence.spans == 6
    assert sum(statistics.video_minutes.counts) == sum(statistics.events.counts) == 2
    assert (statistics.events.counts[4], statistics.events.counts[9]) == (1, 1)


def test_evidence_is_placed_in_the_tenths_it_reaches_into(statistics: Statistics) -> None:
    # v1 (60 s): 0-4, 50-59, 0-9, 10-20 with 30-40; v2 (120 s): 90-120
    counts = (2, 2, 1, 1, 0, 1, 1, 1, 2, 2)
    assert statistics.evidence.touched == tuple(count / 5 for count in counts)
    assert statistics.evidence.covered == pytest.approx(((9 + 10 + 10 + 9) / 60 + 30 / 120) / 2, abs=1e-6)


def test_repeats_are_found_within_a_video_and_across_videos(statistics: Statistics) -> None:
    within, across = statistics.duplicates.within, statistics.duplicates.across
    assert (within.groups, within.pairs, within.share) == (1, 2, 0.4)  # `What flies?` twice, with two answers
    assert (across.groups, across.pairs, across.share) == (1, 2, 0.4)  # `What lands?` in both
    assert statistics.duplicates.distinct_questions == 3


def test_whatever_enters_a_stage_leaves_it_or_waits(statistics: Statistics) -> None:
    ends = {stage.stage: stage for stage in statistics.stages}
    assert list(ends) == ["download", "segment", "caption_clips", "caption_events", "summarize", "qa", "verify"]
    for end in ends.values():
        assert end.entered == end.ok + sum(end.filtered.values()) + sum(end.failed.values()) + end.waiting
    assert (ends["download"].entered, ends["download"].failed) == (4, {"removed": 1})
    assert (ends["segment"].entered, ends["segment"].filtered) == (3, {"duration": 1})
    assert (ends["qa"].entered, ends["qa"].ok, ends["qa"].waiting) == (6, 3, 1)  # v1 was not asked one task
    assert (ends["verify"].entered, ends["verify"].ok) == (3, 3)


def test_checks_say_what_is_broken(statistics: Statistics) -> None:
    checks = {check.name: check for check in statistics.checks}
    broken = {name for name, check in checks.items() if check.broken}
    everything = {"waiting", "unverified", "accepted", "empty_tasks", "repeated_questions", "across_videos"}
    assert broken == everything | {"caption_gaps"}
    assert not any(check.by for check in statistics.checks)  # no group counts enough
    assert (checks["waiting"].value, checks["waiting"].bound) == (1, "at most 0")
    assert (checks["accepted"].found, checks["accepted"].bound) == ("71.4 %", "at least 90 %")
    assert (checks["letter_share"].state, checks["letter_share"].why) == ("not judged", "too few: 4 of 50")


def captioned(folder: Path, captions: Sequence[str], events: Sequence[tuple[float, float]]) -> Dataset:
    """A finished video with a caption every 20 seconds."""
    made = Dataset(str(folder), create=True)
    made.write_sources([Source(source_id="v", url="https://videos.example.org/v.mp4")])
    fields = {"temporality": "", "spatiality": "", "object": "", "action": "", "scene": "", "binding": BINDING}
    clips = [
        ClipCaption(video_id="v", clip_id=f"c{n:04d}", start=20.0 * n, end=20.0 * n + 30, summary=text, **fields)
        for n, text in enumerate(captions)
        if text
    ]
    parts = [
        Event(video_id="v", event_id=str(n), start=start, end=end, title="T", caption="C", clip_ids=(), binding=BINDING)
        for n, (start, end) in enumerate(events)
    ]
    made.tables.write(ClipCaption, "v", clips, {})
    made.tables.write(Event, "v", parts, {})
    made.tables.write(QAPair, "v", [], {})
    made.tables.write(Verdict, "v", [], {})
    made.ledger.append(finished("v", 20.0 * len(captions) + 10, len(parts), {"temporal_order": ""}))
    return made


@pytest.mark.parametrize(
    ("captions", "events", "gaps", "commonest"),
    [
        ("abcdefghij", [(0, 100), (100, 210)], 0, 0.1),
        ("abcde ghij", [(0, 100), (100, 210)], 0, 1 / 9),  # one lost: ten seconds
        ("abc   ghij", [(0, 100), (100, 210)], 1, 1 / 7),
        ("abcdefghij", [(0, 100), (130, 210)], 1, 0.1),
        ("aabaacaada", [(0, 210)], 0, 0.7),
    ],
)
def test_captions_that_leave_gaps_or_say_one_thing_are_counted(
    captions: str, events: list[tuple[float, float]], gaps: int, commonest: float, tmp_path: Path
) -> None:
    found = survey(captioned(tmp_path / "out", [text.strip() for text in captions], events), STANDARDS)
    checks = {check.name: check.value for check in found.checks}
    said = found.commonest_caption
    assert (said.clips, checks["commonest_clips"]) == (round(commonest * len(captions.replace(" ", ""))),) * 2
    assert said.clips == captions.count(said.summary)
    assert (checks["caption_gaps"], checks["commonest_caption"]) == (gaps, pytest.approx(commonest, abs=1e-6))


@pytest.mark.parametrize(
    ("named", "count"),
    [({"v": "lvbench"}, 1), ({"https://videos.example.org/v.mp4": "lvbench"}, 1), ({"w": "lvbench"}, 0)],
)
def test_a_source_that_a_benchmark_names_is_counted(named: dict[str, str], count: int, tmp_path: Path) -> None:
    made = captioned(tmp_path / "out", ["a"], [(0, 30)])
    standards = Standards(TAXONOMY, STANDARDS.gates, named, {"lvbench": 103, "mlvu": 7})
    found = survey(made, standards)
    check = next(check for check in found.checks if check.name == "benchmark_videos")
    assert (check.value, check.broken, found.benchmarks) == (count, bool(count), {"lvbench": 1} if count else {})
    assert found.benchmark_lists == {"lvbench": 103, "mlvu": 7}
    page = (Path(made.url) / write_audit(made, standards).html_key).read_text()
    assert f"<code>lvbench</code> lists 103 videos, {count} of them here; <code>mlvu</code> lists 7 videos, 0" in page


def test_a_gate_that_judged_nothing_is_not_said_to_hold(tmp_path: Path) -> None:
    made = captioned(tmp_path / "out", ["a"], [(0, 30)])
    three = [
        {"measure": "benchmark_videos", "most": 0},
        {"measure": "commonest_caption", "most": 0.05, "fewest": 200},
        {"measure": "waiting", "most": 9},
    ]
    info = write_audit(made, Standards(TAXONOMY, Gates.model_validate({"dataset": three})))
    states = [(check.state, check.why) for check in info.statistics.checks]
    assert states == [("not judged", "no list given"), ("not judged", "too few: 1 of 200"), ("holds", "")]
    page, text = ((Path(made.url) / key).read_text() for key in (info.html_key, MARKDOWN_KEY))
    assert page.count("✓ holds") == 1 and page.count("not judged<span") == 2
    assert "All 1 gates hold, 2 not judged." in page and "All 1 gates hold, 2 not judged." in text
    assert "Not judged: `benchmark_videos` (no list given), `commonest_caption` (too few: 1 of 200)." in text
    found = json.loads((Path(made.url) / info.json_key).read_text())["statistics"]["checks"][0]
    assert (found["state"], found["why"], found["found"]) == ("not judged", "no list given", "nothing judged")


def test_the_result_does_not_depend_on_the_number_of_processes(dataset: Dataset, tmp_path: Path) -> None:
    many = Dataset(str(shutil.copytree(dataset.url, tmp_path / "many")))
    pairs, verdicts = many.tables.read(QAPair, "v1"), many.tables.read(Verdict, "v1")
    for name in (f"w{number:03d}" for number in range(70)):  # three parts
        many.tables.write(QAPair, name, pairs, {})
        many.tables.write(Verdict, name, verdicts, {})
        many.tables.write(ClipCaption, name, [], {})
        many.tables.write(Event, name, [], {})
        many.ledger.append(finished(name, 0.1 * len(name), 4, {"object_recognition": "", "temporal_order": ""}))
    many.ledger.flush()
    samplers = Sampler(2), Sampler(2)
    alone, together = (survey(many, STANDARDS, each, processes=n) for n, each in zip((1, 2), samplers, strict=True))
    assert alone == together and alone.videos == 72
    assert samplers[0].of_task("object_recognition") == samplers[1].of_task("object_recognition")
    assert samplers[0].rejected() == samplers[1].rejected()


def test_what_was_written_stands_beside_the_plan_and_the_published_topics(dataset: Dataset) -> None:
    names = ("delivered", "off_topic", "few_events", "mean_events")
    rows = [{"measure": name, "least": 0} for name in names] + [{"measure": "delivered", "by": "format", "least": 0}]
    gates = Gates.model_validate({"dataset": rows})
    found = survey(dataset, Standards(TAXONOMY, gates))
    values = {check.label: check.value for check in found.checks}
    wanted = 2 * 6 + 2 * 6 + 1 * 6  # two videos reached two tasks, one a third: three open, three choice
    assert values["delivered"] == pytest.approx(7 / wanted, abs=1e-6)
    assert values["delivered of format choice"] == pytest.approx(4 / (wanted / 2), abs=1e-6)
    assert values["off_topic"] == pytest.approx(4 / 7, abs=1e-6)  # six of object, where 0.302 of seven are two
    assert (values["mean_events"], values["few_events"]) == (6.5, 0)


def test_a_share_that_is_accepted_is_told_with_its_interval(statistics: Statistics) -> None:
    task = next(task for task in statistics.tasks if task.task == "object_recognition")
    topic = next(topic for topic in statistics.topics if topic.topic == "object")
    assert task.interval == topic.interval == pytest.approx((0.4365, 0.9699), abs=1e-3)  # five of six
    assert topic.accepted == 5


@pytest.mark.parametrize(
    ("caption", "summary", "lost"),
    [
        ("A woman carries a red bucket into the barn and feeds two horses.", "A woman feeds the horses in a barn.", 0),
        ("Someone does something.", "A woman feeds the horses in a barn.", 1),
        ("A woman carries a red bucket into the barn and feeds two horses.", "Several things come to pass.", 1),
    ],
)
def test_a_video_whose_captions_do_not_keep_what_the_clips_say_is_counted(
    caption: str, summary: str, lost: int, tmp_path: Path
) -> None:
    made = captioned(
        tmp_path / "out", ["A woman carries a bucket to the horses in the barn and feeds them."], [(0, 30)]
    )
    (event,) = made.tables.read(Event, "v")
    told = event.model_copy(update={"caption": caption, "clip_ids": ("c0000",)})
    made.tables.write(Event, "v", [told], {})
    made.tables.write(Summary, "v", [Summary(video_id="v", text=summary, binding=BINDING)], {})
    assert survey(made, STANDARDS).survival.low == lost


@pytest.mark.parametrize(("chi", "p"), [(7.8147, 0.05), (16.2662, 0.001), (2.366, 0.5)])
def test_the_letter_test_agrees_with_the_printed_table_for_three_degrees_of_freedom(chi: float, p: float) -> None:
    base = 1_000_000  # two letters `off` from even, so that 2 * off^2 / base is the wanted chi-square
    off = round((chi * base / 2) ** 0.5)
    letters = Letters.of({"A": base + off, "B": base - off, "C": base, "D": base})
    assert letters.p == pytest.approx(p, rel=2e-3)


def test_an_empty_dataset_has_a_report(tmp_path: Path) -> None:
    empty = Dataset(str(tmp_path / "empty"), create=True)
    info = write_audit(empty, STANDARDS)
    assert (info.statistics.qa, info.statistics.letters.p) == (0, 1)
    assert "0 questions about 0 videos" in empty.storage.read(info.html_key).decode()


def test_the_sample_does_not_depend_on_the_order_of_the_pairs() -> None:
    pairs = [qa("v1", "object_recognition", f, f"{n}?", (0, 4)) for n in range(20) for f in ("open", "choice")]
    shown = [Shown(pair, verdict(pair), (), 60) for pair in pairs]
    one, other = Sampler(3), Sampler(3)
    for each in shown:
        one.add(each)
    for each in reversed(shown):
        other.add(each)
    assert one.of_task("object_recognition") == other.of_task("object_recognition")
    assert [each.pair.format for each in one.of_task("object_recognition")] == ["open", "choice", "open"]


def test_pictures_are_spread_over_the_evidence() -> None:
    def shown(*spans: tuple[float, float]) -> list[int]:
        return seconds_shown([Span(start=start, end=end) for start, end in spans], 4)

    assert shown((0, 40)) == [5, 15, 25, 35]
    assert shown((10, 12)) == [10, 11]
    assert shown((60, 62), (0, 4)) == [1, 3, 60, 61]
    assert len(shown(*((n, n + 1) for n in range(0, 100, 10)))) == 4
    assert shown() == []


def test_the_same_dataset_gives_the_same_bytes_and_is_then_current(dataset: Dataset) -> None:
    info = write_audit(dataset, STANDARDS)
    first = dataset.storage.read(info.html_key), dataset.storage.read(info.json_key)
    assert current_audit(dataset, STANDARDS)
    assert not current_audit(dataset, STANDARDS, sample_per_task=5)
    write_audit(Dataset(dataset.url), STANDARDS)
    assert (dataset.storage.read(info.html_key), dataset.storage.read(info.json_key)) == first
    assert Statistics.model_validate(json.loads(first[1])["statistics"]) == info.statistics


def test_new_work_or_a_damaged_report_makes_it_stale(tmp_path: Path) -> None:
    small = Dataset(str(tmp_path / "small"), create=True)
    assert not current_audit(small, STANDARDS)
    info = write_audit(small, STANDARDS)
    assert current_audit(small, STANDARDS)
    small.ledger.append([outcome("v9", "download")])
    assert not current_audit(small, STANDARDS)
    write_audit(small, STANDARDS)
    small.storage.write(info.json_key, b"{")
    assert not current_audit(small, STANDARDS)


def at_the_end(act: Callable[[], object]) -> Callable[[int, int], None]:
    """A watcher of a survey that does something, once, between what it counts and what it shows."""
    waiting = [act]

    def progress(done: int, total: int) -> None:
        if done == total and waiting:
            waiting.pop()()

    return progress


def test_what_a_run_rewrites_beside_an_audit_or_a_review_is_left_out(dataset: Dataset, tmp_path: Path) -> None:
    for number, left in enumerate(([qa("v1", "temporal_order", "open", "Which comes first?", (0, 60))], None)):
        copy = Dataset(str(shutil.copytree(dataset.url, tmp_path / str(number))))

        def rewrite(copy: Dataset = copy, left: list[QAPair] | None = left) -> None:
            if left is None:
                copy.tables.remove(QAPair, "v1")
            else:
                copy.tables.write_tasks(QAPair, "v1", ["object_recognition"], left, {})

        dealt = deal(copy, STANDARDS, copy.reviews(), 9, 0, at_the_end(rewrite)).dealt
        assert dealt and not {each.pair.question for each in dealt} & {"What flies?", HOSTILE}
        copy.tables.write(QAPair, "v1", dataset.tables.read(QAPair, "v1"), {})
        page = copy.storage.read(write_audit(copy, STANDARDS, progress=at_the_end(rewrite)).html_key).decode()
        assert "What flies?" not in page and "What lands?" in page


@pytest.mark.parametrize("carried_out", [True, False])
def test_what_is_purged_beside_an_audit_is_in_none_of_its_files(
    dataset: Dataset, tmp_path: Path, carried_out: bool
) -> None:
    copy = Dataset(str(shutil.copytree(dataset.url, tmp_path / "copy")))
    ask = partial(purge, copy.url, ["v1"]) if carried_out else partial(copy.removals().add, "v1")
    info = write_audit(copy, STANDARDS, progress=at_the_end(ask))
    files = "".join(copy.storage.read(key).decode() for key in copy.storage.keys("audit"))
    assert "What lands?" in files and "What flies?" not in files and "data:image/jpeg" not in files
    assert (info.statistics.videos, info.statistics.qa) == (1, 2)


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_escapes_texts_names_no_path_and_refers_to_nothing_outside_itself(dataset: Dataset) -> None:
    page = dataset.storage.read(write_audit(dataset, STANDARDS).html_key).decode()
    parser = _References()
    parser.feed(page)
    assert parser.tags.count("script") == 1
    assert parser.found and all(reference.startswith(("data:", "#")) for reference in parser.found)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert not re.search(r"https?://|@import|url\(", page)
    assert dataset.url not in page and "/v1" not in page


@pytest.fixture(scope="module")
def chromium() -> str:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.skip("no Chromium on PATH")
    return binary


def dom(chromium: str, page: Path, profile: Path, fragment: str = "", *flags: str) -> tuple[str, str]:
    """The page as a browser without a network leaves it, and what it wrote to its console."""
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--proxy-server=127.0.0.1:9",
        "--enable-logging=stderr", "--virtual-time-budget=3000", f"--user-data-dir={profile}", *flags, "--dump-dom",
        f"{page.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def shown_articles(text: str) -> list[str]:
    return [tag for tag in re.findall(r"<article[^>]*>", text) if "hidden" not in tag]


def test_the_page_tells_what_is_nearly_the_same_and_what_captions_keep(dataset: Dataset) -> None:
    page = (Path(dataset.url) / write_audit(dataset, STANDARDS).html_key).read_text()
    assert "Nearly question, options and answer" in page and "on average 6.5" in page
    assert "What events keep of clips" in page and "What the global caption keeps of events" in page
    assert "What is measured here is form" in page


def test_a_browser_opens_the_page_without_an_error_and_its_filter_works(
    dataset: Dataset, chromium: str, tmp_path: Path
) -> None:
    page = Path(dataset.url) / write_audit(dataset, STANDARDS).html_key
    text, console = dom(chromium, page, tmp_path / "profile")
    assert console == ""
    assert text.count("data:image/jpeg;base64,") >= 8
    assert text.count("<svg") >= 8
    assert len(shown_articles(text)) == 4 and "4 of 4 shown" in text
    wanted = {
        "#kind=random&format=choice": ["choice"],
        "#kind=doubtful&format=choice": ["choice", "choice"],
        "#task=object_recognition&format=open": ["open"],
        "#kind=rejected&reason=pipeline_word": ["open"],
        "#verdict=rejected": ["open"],
        "#q=which%20FIRST": ["open"],
        "#q=nowhere": [],
    }
    frames = "".join(f'<iframe src="{page.as_uri()}{html.escape(fragment)}"></iframe>' for fragment in wanted)
    probe = """<script>all = (where, what) => [...where.querySelectorAll(what)];
    addEventListener("load", () => document.documentElement.dataset.shown = all(document, "iframe").map(frame =>
    all(frame.contentDocument, "article:not([hidden])").map(each => each.dataset.format)).join(";"))</script>"""
    (tmp_path / "all.html").write_text(frames + probe)  # one start of the browser for all addresses
    text, _ = dom(chromium, tmp_path / "all.html", tmp_path / "profile", "", "--allow-file-access-from-files")
    (shown,) = re.findall('data-shown="(.*?)"', text)
    found = [each.split(",") if each else [] for each in shown.split(";")]
    assert dict(zip(wanted, found, strict=True)) == wanted


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)])
def test_an_address_opens_the_pair_that_it_names_and_the_page_fits_desk_and_phone_by_day_and_night(
    width: int, dark: bool, dataset: Dataset, chromium: str, tmp_path: Path
) -> None:
    page = (Path(dataset.url) / write_audit(dataset, STANDARDS).html_key).read_text()
    wanted = re.findall('<article id="pair-(.*?)"', page)[1]
    probe = """<script>root = document.documentElement; setTimeout(() => root.dataset.measured = [
    root.scrollWidth - innerWidth, scrollY > 1000, getComputedStyle(document.body).backgroundColor], 500)</script>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{probe}</body>"))
    flags = (f"--window-size={width},900", f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    address = f"#verdict=accepted&pair={wanted}"
    text, console = dom(chromium, tmp_path / "page.html", tmp_path / "profile", address, *flags)
    assert re.findall('<details data-pair="(.*?)" open', text) == [wanted]
    assert (len(shown_articles(text)), console) == (3, "")
    measured = re.search('data-measured="(.*?),(.*?),(.*?)"', text)
    assert measured and int(measured[1]) <= 0 and measured[2] == "true"
    assert (sum(map(int, re.findall(r"\d+", measured[3])[:3])) < 3 * 128) == dark


def test_a_served_pair_shows_its_prompt_shortened_in_the_middle(dataset: Dataset) -> None:
    asked = {"part": "temporal_order", "unit": "u", "model": "m", "id": "1", "finish": "stop", "text": "{}"}
    answer = Answer(request="r" * 64, shared="s", prompt=f"Ask of {HOSTILE}", **asked)
    Journal(dataset.storage, "qa", "v3").add([(answer, "Captions: " + "blue " * 2000)])
    assert len(Journal(dataset.storage, "qa", "v3").prompts()["r" * 64]) > 10_000
    pair = qa("v3", "temporal_order", "open", "Which?", (0, 4))
    pair = pair.model_copy(update={"binding": BINDING.model_copy(update={"request": "r" * 64})})
    sampler = Sampler(1)
    sampler.add(Shown(pair, verdict(pair), (), 60))
    card = cards(dataset, TAXONOMY, STANDARDS.gates, sampler)[0]
    assert card.prompt.startswith("Captions: blue") and card.prompt.endswith(HOSTILE)
    assert "characters …" in card.prompt and len(card.prompt) < 5_000
    page = render(survey(dataset, STANDARDS), [card], TAXONOMY)
    assert "The prompt that wrote it" in page and "<script>alert" not in page


def test_doubtful_pairs_are_those_nearest_to_a_bound_and_those_with_the_largest_numbers() -> None:
    bounds = {"evidence_seconds": Bound(least=2, most=100)}
    sampler = Sampler(2, bounds)
    pairs = [qa("v1", "object_recognition", "open", f"{n}?", (0, 4)) for n in range(9)]
    seconds = (50, 3, 99, 2, 60, 40, 30, 20, 70)
    for number, (pair, covered) in enumerate(zip(pairs, seconds, strict=True)):
        measured = {"evidence_seconds": covered, "question_words": number}
        sampler.add(
            Shown(pair, verdict(pair).model_copy(update=measured), ("pipeline_word",) if number == 8 else (), 120)
        )
    found = [(pairs.index(shown.pair), name) for shown, name in sampler.doubtful()]
    near = [number for number, name in found if name == "evidence_seconds"]
    assert near[0] == 3 and near[1] in (1, 2) and [n for n, name in found if name == "question_words"] == [7, 6]
    assert 8 not in [number for number, _ in found]  # it is rejected, which says enough


def test_what_a_judge_finds_grounded_is_not_doubtful_and_what_it_does_not_is_where_it_rejects_nobody() -> None:
    for bounds in ({"grounded_right": Bound(least=1)}, {}):
        sampler = Sampler(2, bounds)
        pairs = [qa("v1", "object_recognition", "choice", f"{n}?", (0, 4)) for n in range(6)]
        for pair, right in zip(pairs, (1.0, 0.0, None, 1.0, 0.0, 1.0), strict=True):
            sampler.add(Shown(pair, verdict(pair).model_copy(update={"grounded_right": right}), (), 120))
        doubtful = {pairs.index(shown.pair) for shown, name in sampler.doubtful() if name == "grounded_right"}
        assert doubtful == {1, 4}


def test_a_gauge_shows_how_far_a_value_is_from_its_bound(statistics: Statistics) -> None:
    checks = {check.name: check for check in statistics.checks}
    accepted, waiting = gauge(checks["accepted"]), gauge(checks["waiting"])
    assert accepted.allowed == (0.9, 1) and accepted.value == pytest.approx(5 / 7, abs=1e-4)
    assert waiting.allowed == (0, 0) and waiting.value == 1


def test_the_summary_for_a_pull_request_is_short_and_names_the_broken_gates(dataset: Dataset) -> None:
    write_audit(dataset, STANDARDS)
    summary = dataset.storage.read(MARKDOWN_KEY).decode()
    assert summary.startswith("### Audit: 7 QA pairs of 2 videos, 71.4 % accepted")
    assert "| `accepted` | 71.4 % | at least 90 % |" in summary and "| Object Recognition | 6 | 83.3 % |" in summary
    assert len(summary) < 4_000 and "{" not in summary
