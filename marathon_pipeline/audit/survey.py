"""The one pass over a dataset's finished videos that counts everything. Its memory holds hashes, never texts."""

import hashlib
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.checks import Cell, grouped, judged, letters_of, summed
from marathon_pipeline.audit.guessers import Usual, longest, most_central
from marathon_pipeline.audit.judge import counts_of, heard
from marathon_pipeline.audit.measures import covered_seconds
from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.audit.statistics import (
    Duplicates,
    Evidence,
    Histogram,
    LongestOption,
    Repeats,
    SourceCount,
    StageEnd,
    Statistics,
    TaskCount,
    TopicCount,
    share,
)
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    LETTERS,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Span,
    Verdict,
    merged,
)
from marathon_pipeline.taxonomy import TOPICS, Taxonomy
from marathon_pipeline.wording import words

Progress = Callable[[int, int], None]  # videos done, of how many

_BY_VIDEO = ("segment", "caption_clips", "caption_events", "summarize")  # in order, after `download`
_SPAN_EDGES = (0, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_TENTHS = 10
_GAP = 0.1  # of a video
_WHOLE = 0.9  # of a video: a pair whose evidence is more is about all of it


@dataclass(frozen=True)
class Standards:
    """What a dataset is held against. `benchmarks`: the one that names a source, by the source's id and by its URL."""

    taxonomy: Taxonomy
    gates: Gates
    benchmarks: Mapping[str, str] = field(default_factory=dict)


def survey(
    dataset: Dataset,
    standards: Standards,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Count a dataset as its ledger and its tables tell it, and hold it against the gates."""
    count = _Count(dataset, standards, sampler)
    finished = list(dataset.finished())
    for done, video in enumerate(finished, start=1):
        count.video(video.video_id, video.source_id, frozenset(video.tasks))
        if progress is not None:
            progress(done, len(finished))
    return count.statistics()


class _Bins:
    def __init__(self, edges: Iterable[float]) -> None:
        self.edges = tuple(float(edge) for edge in edges)
        self.counts = [0] * len(self.edges)

    def add(self, value: float) -> None:
        self.counts[max(0, bisect_right(self.edges, value) - 1)] += 1

    def histogram(self) -> Histogram:
        return Histogram(edges=self.edges, counts=tuple(self.counts))


class _Count:
    def __init__(self, dataset: Dataset, standards: Standards, sampler: Sampler | None) -> None:
        self._dataset, self._sampler = dataset, sampler
        self._taxonomy, self._benchmarks = standards.taxonomy, standards.benchmarks
        self._asked, self._gates = standards.gates, in_force(standards.gates, dataset.ledger)
        self._known = dataset.sources()
        self.sources: set[str] = set()
        self.videos: Counter[str] = Counter()  # these two by data source
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.cells: defaultdict[Cell, Counter[str]] = defaultdict(Counter)
        self.problems: Counter[tuple[str, str]] = Counter()  # by task and name
        self.annotators: Counter[str] = Counter()
        self.question_words = _Bins(range(0, 82, 2))
        self.answer_words = _Bins([*range(0, 100, 5), *range(100, 520, 20)])
        self.minutes, self.events = _Bins(range(61)), _Bins(range(66))
        self.span_seconds = _Bins(_SPAN_EDGES)
        self.touched = [0] * _TENTHS
        self.covered: list[float] = []
        self.repeated = 0  # groups
        self.numbers: dict[Cell, int] = {}
        self.hashes, self.questions = array("Q"), array("Q")
        self.places = array("I")  # of each hash: which cell, in the order of their coming
        self.usual = Usual()
        self.captions = array("Q")  # hashes of those of clips
        self.gappy = 0  # videos

    def video(self, video_id: str, source_id: str, tasks: frozenset[str]) -> None:
        tables, ledger = self._dataset.tables, self._dataset.ledger
        segment, events = ledger.get("segment", video_id), ledger.get("caption_events", video_id)
        seconds = segment.video_seconds if segment else 0.0
        verdicts = {
            verdict.qa_id: verdict for verdict in tables.read_written(Verdict, video_id) if verdict.task in tasks
        }
        pairs = [pair for pair in tables.read_written(QAPair, video_id) if pair.task in tasks]
        name = self._known[source_id].data_source if source_id in self._known else ""
        self.sources.add(source_id)
        self.videos[name] += 1
        self.seconds[name] += seconds
        self.minutes.add(seconds / 60)
        self.events.add(events.items if events else 0)
        self._hierarchy(video_id, seconds)
        accepted = []
        for pair in pairs:
            cell = Cell(pair.task, pair.format, name, pair.binding.template_version)
            counts = self.cells[cell]
            counts["qa"] += 1
            self.annotators[pair.binding.annotator] += 1
            verdict = verdicts.get(pair.qa_id)
            if verdict is None:
                counts["unverified"] += 1
                continue
            counts.update(counts_of(verdict))
            reasons = self._gates.reasons(verdict)
            self.problems.update((pair.task, reason) for reason in reasons)
            if not reasons:
                accepted.append((pair, cell))
                self._accepted(pair, cell, seconds)
            if self._sampler is not None:
                self._sampler.add(Shown(pair, verdict, reasons, seconds))
        self._together(accepted, seconds)

    def _number(self, cell: Cell) -> int:
        return self.numbers.setdefault(cell, len(self.numbers))

    def _hierarchy(self, video_id: str, seconds: float) -> None:
        """Whether the captions of a video tell all of it, and what they say."""
        captions = list(self._dataset.tables.read_written(ClipCaption, video_id))
        events = self._dataset.tables.read_written(Event, video_id)
        self.captions.extend(_hash(*(str(getattr(caption, name)) for name in CAPTION_FIELDS)) for caption in captions)
        levels = ([Span(start=row.start, end=row.end) for row in rows] for rows in (captions, events))
        self.gappy += any(covered_seconds(spans) < (1 - _GAP) * seconds for spans in levels)

    def _accepted(self, pair: QAPair, cell: Cell, seconds: float) -> None:
        counts = self.cells[cell]
        counts["accepted"] += 1
        self.question_words.add(len(words(pair.question)))
        self.answer_words.add(len(words(pair.answer)))
        if len(pair.options) == len(LETTERS) and pair.letter in LETTERS:
            counts[pair.letter] += 1
            right = LETTERS.index(pair.letter)
            for name, guess in (("longest", longest(pair.options)), ("central", most_central(pair.options))):
                if guess is not None:
                    counts[name] += 1
                    counts[f"{name}_right"] += guess == right
            self.usual.add(self._number(cell), [_hash(pair.task, option) for option in pair.options], right)
        for span in pair.evidence:
            self.span_seconds.add(span.end - span.start)
        for tenth in _touched(pair.evidence, seconds):
            self.touched[tenth] += 1

    def _together(self, accepted: Sequence[tuple[QAPair, Cell]], seconds: float) -> None:
        """What the accepted pairs of one video are as a whole."""
        options = [sorted(map(_folded, pair.options)) for pair, _ in accepted]
        asked = [_hash(pair.format, pair.question, *own) for (pair, _), own in zip(accepted, options, strict=True)]
        groups, seen = Counter(asked), set[int]()
        self.repeated += sum(size > 1 for size in groups.values())
        for (pair, cell), own, question in zip(accepted, options, asked, strict=True):
            counts = self.cells[cell]
            counts["repeated"] += groups[question] > 1
            whole = _hash(pair.format, pair.question, pair.answer, *own)
            self.questions.append(_hash(pair.question))
            if whole not in seen:
                seen.add(whole)
                counts["distinct"] += 1
                self.hashes.append(whole)
                self.places.append(self._number(cell))
        if seconds:
            parts = (pair.evidence for pair, _ in accepted if covered_seconds(pair.evidence) < _WHOLE * seconds)
            spans = merged(span for evidence in parts for span in evidence)
            self.covered.append(min(1.0, covered_seconds(spans) / seconds))

    def statistics(self) -> Statistics:
        ends, groups = _StageEnds(self._dataset.ledger), self._across()
        tasks, stages = tuple(self._tasks(ends)), tuple(ends.all())
        total = summed(self.cells.values())
        by_source = grouped(self.cells, "source", self._taxonomy)
        named = self._named_by_benchmarks()
        whole = Counter(
            waiting=sum(stage.waiting for stage in stages),
            empty_tasks=sum(1 for task in tasks if task.qa and not task.accepted),
            videos=self.videos.total(),
            gappy=self.gappy,
            captions=len(self.captions),
            commonest=self._commonest_caption(),
            sources=len(self.sources),
            benchmark=named.total(),
        )
        return Statistics(
            videos=self.videos.total(),
            sources=len(self.sources),
            seconds=round(sum(self.seconds.values()), 3),
            qa=total["qa"],
            accepted=total["accepted"],
            unverified=total["unverified"],
            annotators=dict(sorted(self.annotators.items())),
            benchmarks=dict(sorted(named.items())),
            data_sources={
                name: SourceCount(
                    videos=videos, seconds=round(self.seconds[name], 3), qa=by_source.get(name, Counter())["qa"]
                )
                for name, videos in sorted(self.videos.items())
            },
            topics=tuple(self._topics(tasks, total["qa"])),
            tasks=tasks,
            problems=dict(sorted(_summed(self.problems).items())),
            letters=letters_of(total),
            longest_option=LongestOption(
                questions=total["longest"],
                right=total["longest_right"],
                share=share(total["longest_right"], total["longest"]),
            ),
            question_words=self.question_words.histogram(),
            answer_words=self.answer_words.histogram(),
            duplicates=Duplicates(
                within=_repeats(self.repeated, total["repeated"], total["accepted"]),
                across=_repeats(groups, total["across"], total["distinct"]),
                distinct_questions=self._distinct_questions(),
            ),
            evidence=Evidence(
                spans=sum(self.span_seconds.counts),
                span_seconds=self.span_seconds.histogram(),
                touched=tuple(share(count, total["accepted"]) for count in self.touched),
                covered=share(sum(self.covered), len(self.covered)),
            ),
            video_minutes=self.minutes.histogram(),
            events=self.events.histogram(),
            stages=stages,
            checks=judged(self._gates, self.cells, whole, self._taxonomy),
            judge=heard(self._asked, self.cells, self._taxonomy, self._dataset.ledger),
        )

    def _across(self) -> int:
        """Count what can be told of a cell's pairs once all are known; returns how many groups stand in several."""
        import numpy as np

        _, group, counts = np.unique(np.array(self.hashes, np.uint64), return_inverse=True, return_counts=True)
        repeated = np.bincount(np.array(self.places, np.uint32)[counts[group] > 1], minlength=len(self.numbers))
        guessed, hit = self.usual.counts()
        for cell, number in self.numbers.items():
            self.cells[cell].update(across=int(repeated[number]), usual=guessed[number], usual_right=hit[number])
        return int((counts > 1).sum())

    def _named_by_benchmarks(self) -> Counter[str]:
        """Sources that a benchmark names by their id or address, by benchmark."""
        known = (self._known[source_id] for source_id in self.sources if source_id in self._known)
        names = (self._benchmarks.get(each.source_id) or self._benchmarks.get(each.url) for each in known)
        return Counter(name for name in names if name)

    def _commonest_caption(self) -> int:
        import numpy as np

        return int(np.unique(np.array(self.captions, np.uint64), return_counts=True)[1].max(initial=0))

    def _distinct_questions(self) -> int:
        import numpy as np

        return len(np.unique(np.array(self.questions, np.uint64)))

    def _tasks(self, ends: "_StageEnds") -> Iterator[TaskCount]:
        found = grouped(self.cells, "task", self._taxonomy)
        for task in self._taxonomy.tasks.values():
            asked, of_format = ends.of_task[task.task], self._formats(task.task)
            yield TaskCount(
                task=task.task,
                name=task.name,
                topic=task.topic,
                open=of_format["open"],
                choice=of_format["choice"],
                wanted_open=task.per_video.open * len(asked),
                wanted_choice=task.per_video.choice * len(asked),
                accepted=found.get(task.task, Counter())["accepted"],
                problems={name: count for (of, name), count in sorted(self.problems.items()) if of == task.task},
                not_asked=_reasons(asked, "filtered"),
                failed=_reasons(asked, "failed"),
            )

    def _formats(self, task: str) -> Counter[str]:
        """QA pairs by format."""
        counts = Counter[str]()
        for cell, of_cell in self.cells.items():
            counts[cell.format] += of_cell["qa"] * (cell.task == task)
        return counts

    def _topics(self, tasks: Sequence[TaskCount], qa: int) -> Iterator[TopicCount]:
        for name, topic in TOPICS.items():
            count = sum(task.qa for task in tasks if task.topic == name)
            yield TopicCount(topic=name, qa=count, share=share(count, qa), published=topic.share)


class _StageEnds:
    """How everything that entered a stage ended there. What a later edit cut off upstream has not entered."""

    def __init__(self, ledger: Ledger) -> None:
        found: defaultdict[str, dict[tuple[str, str], Outcome]] = defaultdict(dict)
        for outcome in ledger:
            found[outcome.stage][outcome.video_id, outcome.part] = outcome
        downloads = found["download"]
        entered = {(video, "") for o in downloads.values() if o.status == "ok" for video in o.videos}
        self._ends = [("download", len(downloads), list(downloads.values()))]
        for stage in _BY_VIDEO:
            entered = self._pass(stage, entered, found[stage])
        tasks = sorted({part for _, part in found["qa"]})
        entered = self._pass("qa", {(video, task) for video, _ in entered for task in tasks}, found["qa"])
        self._pass("verify", entered, found["verify"])
        self.of_task: defaultdict[str, list[Outcome]] = defaultdict(list)  # of writing its QA, one a video
        for outcome in self._ends[-2][2]:
            self.of_task[outcome.part].append(outcome)

    def _pass(
        self, stage: str, entered: set[tuple[str, str]], outcomes: dict[tuple[str, str], Outcome]
    ) -> set[tuple[str, str]]:
        """Returns what the stage let through."""
        ended = {key: outcomes[key] for key in entered if key in outcomes}
        self._ends.append((stage, len(entered), list(ended.values())))
        return {key for key, outcome in ended.items() if outcome.status == "ok"}

    def all(self) -> Iterator[StageEnd]:
        for stage, entered, outcomes in self._ends:
            yield StageEnd(
                stage=stage,
                entered=entered,
                ok=sum(outcome.status == "ok" for outcome in outcomes),
                filtered=_reasons(outcomes, "filtered"),
                failed=_reasons(outcomes, "failed"),
                waiting=entered - len(outcomes),
            )


def _reasons(outcomes: Iterable[Outcome], status: str) -> dict[str, int]:
    return dict(sorted(Counter(outcome.reason for outcome in outcomes if outcome.status == status).items()))


def _repeats(groups: int, pairs: int, of: int) -> Repeats:
    return Repeats(groups=groups, pairs=pairs, share=share(pairs, of))


def _summed(by_task: Counter[tuple[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, name), count in by_task.items():
        total[name] += count
    return total


def _touched(evidence: Iterable[Span], seconds: float) -> set[int]:
    """The tenths of a video that evidence reaches into."""
    if not seconds:
        return set()
    return {
        tenth
        for tenth in range(_TENTHS)
        for span in evidence
        if span.start < (tenth + 1) * seconds / _TENTHS and span.end > tenth * seconds / _TENTHS
    }


def _folded(text: str) -> str:
    return " ".join(words(text))


def _hash(*texts: str) -> int:
    folded = "\n".join(_folded(text) for text in texts)
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "big")
