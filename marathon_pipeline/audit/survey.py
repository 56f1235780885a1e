"""The one pass over a dataset's finished videos that counts everything. Its memory holds hashes, never texts."""

import hashlib
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from marathon_pipeline.audit.measures import covered_seconds
from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.audit.statistics import (
    Duplicates,
    Evidence,
    Histogram,
    Letters,
    LongestOption,
    Repeats,
    SourceCount,
    StageEnd,
    Statistics,
    TaskCount,
    TopicCount,
    checks_of,
    share,
)
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.records import LETTERS, Outcome, QAPair, Span, Verdict, merged
from marathon_pipeline.taxonomy import TOPICS, Taxonomy
from marathon_pipeline.wording import words

Progress = Callable[[int, int], None]  # videos done, of how many

_BY_VIDEO = ("segment", "caption_clips", "caption_events", "summarize")  # in order, after `download`
_SPAN_EDGES = (0, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
_TENTHS = 10
_WHOLE = 0.9  # of a video: a pair whose evidence is more is about all of it


def survey(
    dataset: Dataset, taxonomy: Taxonomy, sampler: Sampler | None = None, progress: Progress | None = None
) -> Statistics:
    """Count a dataset as its ledger and its `qa` and `verdicts` tables tell it."""
    count = _Count(dataset, sampler)
    finished = list(dataset.finished())
    for done, video in enumerate(finished, start=1):
        count.video(video.video_id, video.source_id, frozenset(video.tasks))
        if progress is not None:
            progress(done, len(finished))
    return count.statistics(taxonomy)


class _Bins:
    def __init__(self, edges: Iterable[float]) -> None:
        self.edges = tuple(float(edge) for edge in edges)
        self.counts = [0] * len(self.edges)

    def add(self, value: float) -> None:
        self.counts[max(0, bisect_right(self.edges, value) - 1)] += 1

    def histogram(self) -> Histogram:
        return Histogram(edges=self.edges, counts=tuple(self.counts))


class _Count:
    def __init__(self, dataset: Dataset, sampler: Sampler | None) -> None:
        self._dataset, self._sampler = dataset, sampler
        self._data_source = {source_id: source.data_source for source_id, source in dataset.sources().items()}
        self.sources: set[str] = set()
        self.videos: Counter[str] = Counter()  # these three by data source
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.pairs: Counter[str] = Counter()
        self.formats: Counter[tuple[str, str]] = Counter()  # by task and format
        self.accepted: Counter[str] = Counter()  # by task
        self.problems: Counter[tuple[str, str]] = Counter()  # by task and name
        self.annotators: Counter[str] = Counter()
        self.unverified = 0
        self.letters: Counter[str] = Counter(dict.fromkeys(LETTERS, 0))
        self.longest: Counter[bool] = Counter()  # is the longest option the right one
        self.question_words = _Bins(range(0, 82, 2))
        self.answer_words = _Bins([*range(0, 100, 5), *range(100, 520, 20)])
        self.minutes, self.events = _Bins(range(61)), _Bins(range(66))
        self.span_seconds = _Bins(_SPAN_EDGES)
        self.touched = [0] * _TENTHS
        self.covered: list[float] = []
        self.repeated = Counter[str]()  # groups, pairs
        self.hashes, self.questions = array("Q"), array("Q")

    def video(self, video_id: str, source_id: str, tasks: frozenset[str]) -> None:
        tables, ledger = self._dataset.tables, self._dataset.ledger
        segment, events = ledger.get("segment", video_id), ledger.get("caption_events", video_id)
        seconds = segment.video_seconds if segment else 0.0
        verdicts = {
            verdict.qa_id: verdict for verdict in tables.read_written(Verdict, video_id) if verdict.task in tasks
        }
        pairs = [pair for pair in tables.read_written(QAPair, video_id) if pair.task in tasks]
        name = self._data_source.get(source_id, "")
        self.sources.add(source_id)
        self.videos[name] += 1
        self.seconds[name] += seconds
        self.pairs[name] += len(pairs)
        self.minutes.add(seconds / 60)
        self.events.add(events.items if events else 0)
        accepted = []
        for pair in pairs:
            self.formats[pair.task, pair.format] += 1
            self.annotators[pair.binding.annotator] += 1
            verdict = verdicts.get(pair.qa_id)
            if verdict is None:
                self.unverified += 1
                continue
            self.problems.update((pair.task, problem) for problem in verdict.problems)
            if not verdict.problems:
                accepted.append(pair)
                self._accepted(pair, seconds)
            if self._sampler is not None:
                self._sampler.add(Shown(pair, verdict, seconds))
        self._together(accepted, seconds)

    def _accepted(self, pair: QAPair, seconds: float) -> None:
        self.accepted[pair.task] += 1
        self.question_words.add(len(words(pair.question)))
        self.answer_words.add(len(words(pair.answer)))
        if pair.format == "choice":
            self.letters[pair.letter] += 1
            *_, second, longest = sorted(len(option.strip()) for option in pair.options)
            if longest > second:
                self.longest[len(pair.answer.strip()) == longest] += 1
        for span in pair.evidence:
            self.span_seconds.add(span.end - span.start)
        for tenth in _touched(pair.evidence, seconds):
            self.touched[tenth] += 1

    def _together(self, pairs: Sequence[QAPair], seconds: float) -> None:
        """What the accepted pairs of one video are as a whole."""
        groups = Counter(_hash(pair.format, pair.question, *sorted(map(_folded, pair.options))) for pair in pairs)
        repeated = [size for size in groups.values() if size > 1]
        self.repeated.update(groups=len(repeated), pairs=sum(repeated))
        contents = (
            _hash(pair.format, pair.question, pair.answer, *sorted(map(_folded, pair.options))) for pair in pairs
        )
        self.hashes.extend(sorted(set(contents)))
        self.questions.extend(_hash(pair.question) for pair in pairs)
        if seconds:
            parts = (pair.evidence for pair in pairs if covered_seconds(pair.evidence) < _WHOLE * seconds)
            spans = merged(span for evidence in parts for span in evidence)
            self.covered.append(min(1.0, covered_seconds(spans) / seconds))

    def statistics(self, taxonomy: Taxonomy) -> Statistics:
        ends = _StageEnds(self._dataset.ledger)
        tasks, stages = tuple(self._tasks(taxonomy, ends)), tuple(ends.all())
        qa, accepted = sum(task.qa for task in tasks), sum(self.accepted.values())
        letters, distinct = Letters.of(self.letters), self._duplicates()
        longest = LongestOption(
            questions=self.longest.total(),
            right=self.longest[True],
            share=share(self.longest[True], self.longest.total()),
        )
        return Statistics(
            videos=self.videos.total(),
            sources=len(self.sources),
            seconds=round(sum(self.seconds.values()), 3),
            qa=qa,
            accepted=accepted,
            unverified=self.unverified,
            annotators=dict(sorted(self.annotators.items())),
            data_sources={
                name: SourceCount(videos=videos, seconds=round(self.seconds[name], 3), qa=self.pairs[name])
                for name, videos in sorted(self.videos.items())
            },
            topics=tuple(self._topics(tasks, qa)),
            tasks=tasks,
            problems=dict(sorted(_summed(self.problems).items())),
            letters=letters,
            longest_option=longest,
            question_words=self.question_words.histogram(),
            answer_words=self.answer_words.histogram(),
            duplicates=distinct,
            evidence=Evidence(
                spans=sum(self.span_seconds.counts),
                span_seconds=self.span_seconds.histogram(),
                touched=tuple(share(count, accepted) for count in self.touched),
                covered=share(sum(self.covered), len(self.covered)),
            ),
            video_minutes=self.minutes.histogram(),
            events=self.events.histogram(),
            stages=stages,
            checks=checks_of(stages, tasks, self.unverified, letters, longest, distinct),
        )

    def _tasks(self, taxonomy: Taxonomy, ends: "_StageEnds") -> Iterator[TaskCount]:
        for task in taxonomy.tasks.values():
            asked = ends.of_task[task.task]
            yield TaskCount(
                task=task.task,
                name=task.name,
                topic=task.topic,
                open=self.formats[task.task, "open"],
                choice=self.formats[task.task, "choice"],
                wanted_open=task.per_video.open * len(asked),
                wanted_choice=task.per_video.choice * len(asked),
                accepted=self.accepted[task.task],
                problems={name: count for (of, name), count in sorted(self.problems.items()) if of == task.task},
                not_asked=_reasons(asked, "filtered"),
                failed=_reasons(asked, "failed"),
            )

    def _topics(self, tasks: Sequence[TaskCount], qa: int) -> Iterator[TopicCount]:
        for name, topic in TOPICS.items():
            count = sum(task.qa for task in tasks if task.topic == name)
            yield TopicCount(topic=name, qa=count, share=share(count, qa), published=topic.share)

    def _duplicates(self) -> Duplicates:
        import numpy as np

        accepted = sum(self.accepted.values())
        _, counts = np.unique(np.array(self.hashes, np.uint64), return_counts=True)
        several = counts[counts > 1]
        return Duplicates(
            within=Repeats(
                groups=self.repeated["groups"],
                pairs=self.repeated["pairs"],
                share=share(self.repeated["pairs"], accepted),
            ),
            across=Repeats(
                groups=len(several), pairs=int(several.sum()), share=share(int(several.sum()), len(self.hashes))
            ),
            distinct_questions=len(np.unique(np.array(self.questions, np.uint64))),
        )


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
