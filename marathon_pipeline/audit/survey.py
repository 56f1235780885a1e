"""The survey of a whole dataset: everything is counted in one pass over its finished videos, by several processes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.checks import Cell, grouped, judged, letters_of, summed
from marathon_pipeline.audit.count import TENTHS, Count
from marathon_pipeline.audit.ends import Ends, reasons
from marathon_pipeline.audit.judge import heard
from marathon_pipeline.audit.near import Near, Signatures
from marathon_pipeline.audit.sample import Sampler
from marathon_pipeline.audit.statistics import (
    CommonestCaption,
    Duplicates,
    Evidence,
    JudgeReport,
    LongestOption,
    Repeats,
    SourceCount,
    Statistics,
    Survival,
    TaskCount,
    TopicCount,
    TryCount,
    interval,
    share,
)
from marathon_pipeline.dataset.dataset import Dataset, Finished
from marathon_pipeline.dataset.reviews import Reviews
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import Gates
from marathon_pipeline.processes import in_parts
from marathon_pipeline.records import ClipCaption, Source
from marathon_pipeline.taxonomy import TOPICS, Taxonomy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]  # videos done, of how many

_AT_ONCE = 32  # videos to a part: parts are added up in order, so that no sum depends on how many processes there are


class _Part(NamedTuple):
    """Videos, each with the collection that it comes from, and what people said of their pairs."""

    videos: Sequence[tuple[Finished, str]]
    reviews: Reviews


@dataclass(frozen=True)
class Standards:
    """What a dataset is held against.

    `benchmarks`: the one that names a source, by the source's id and by its URL; `lists`: how many each names.
    """

    taxonomy: Taxonomy
    gates: Gates
    benchmarks: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, int] = field(default_factory=dict)


def survey(
    dataset: Dataset,
    standards: Standards,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
) -> Statistics:
    """Count a dataset as its ledger and its tables tell it, and hold it against the gates.

    processes: as many as there are cores, unless given. Raises Failed where a table cannot be read.
    """
    known = dataset.sources()
    videos = [
        (video, known[video.source_id].data_source if video.source_id in known else "") for video in dataset.finished()
    ]
    gates, reviews = in_force(standards.gates, dataset.ledger), dataset.reviews()
    parts = []
    for first in range(0, len(videos), _AT_ONCE):
        own = videos[first : first + _AT_ONCE]
        parts.append(_Part(own, reviews.of({video.video_id for video, _ in own})))
    sampler = sampler or Sampler(0)
    total = Count(gates, sampler, reviews)
    for count in in_parts(partial(_count, dataset.tables, gates, sampler.count), parts, processes):
        total.extend(count)
        if progress is not None:
            progress(total.videos.total(), len(videos))
    sampler.read(dataset.tables)
    heard_of = heard(standards.gates, total.cells, standards.taxonomy, dataset.ledger)
    commonest = _commonest(total, [video.video_id for video, _ in videos], dataset.tables)
    return _statistics(total, Ends(dataset.ledger), replace(standards, gates=gates), known, heard_of, commonest)


def _count(tables: Tables, gates: Gates, sample: int, part: _Part) -> Count:
    count = Count(gates, Sampler(sample, gates.items.bounds), part.reviews)
    for video, data_source in part.videos:
        count.video(tables, video, data_source)
    return count


def _statistics(
    count: Count,
    ends: Ends,
    standards: Standards,
    known: Mapping[str, Source],
    judge: JudgeReport | None,
    commonest: CommonestCaption,
) -> Statistics:
    taxonomy = standards.taxonomy
    across, near = _across(count)
    _planned(count, ends, taxonomy)
    tasks, stages = tuple(_tasks(count, ends, taxonomy)), tuple(ends.stages())
    topics = tuple(_topics(tasks))
    by_source = grouped(count.cells, "source", taxonomy)
    total = summed(count.cells.values())
    named, reviewed = _named_by_benchmarks(count.sources, known, standards.benchmarks), count.reviews.statistics()
    whole = count.whole + Counter(
        waiting=sum(stage.waiting for stage in stages),
        empty_tasks=sum(1 for task in tasks if task.qa and not task.accepted),
        off_topic=_off_topic(topics),
        commonest=commonest.clips,
        sources=len(count.sources),
        looked_up=len(count.sources) if standards.lists else 0,  # in the lists of benchmarks
        benchmark=named.total(),
    )
    return Statistics(
        videos=whole["videos"],
        sources=whole["sources"],
        seconds=round(sum(count.seconds.values()), 3),
        qa=total["qa"],
        accepted=total["accepted"],
        unverified=total["unverified"],
        tries=tuple(
            TryCount(tries=int(tries), qa=counts["qa"], accepted=counts["accepted"])
            for tries, counts in sorted(grouped(count.cells, "tries", taxonomy).items())
            if counts["qa"]
        ),
        annotators=dict(sorted(count.annotators.items())),
        benchmarks=dict(sorted(named.items())),
        benchmark_lists=dict(sorted(standards.lists.items())),
        data_sources={
            name: SourceCount(
                videos=videos, seconds=round(count.seconds[name], 3), qa=by_source.get(name, Counter())["qa"]
            )
            for name, videos in sorted(count.videos.items())
        },
        topics=topics,
        tasks=tasks,
        problems=dict(sorted(_summed(count.problems).items())),
        letters=letters_of(total),
        longest_option=LongestOption(
            questions=total["longest"],
            right=total["longest_right"],
            share=share(total["longest_right"], total["longest"]),
        ),
        question_words=count.question_words.histogram(),
        answer_words=count.answer_words.histogram(),
        duplicates=Duplicates(
            within=_repeats(whole["repeated_groups"], total["repeated"], total["accepted"]),
            across=_repeats(across, total["across"], total["distinct"]),
            distinct_questions=_distinct(count.questions),
            near_within=_repeats(near.groups_within, total["near_within"], total["accepted"]),
            near_across=_repeats(near.groups_across, total["near_across"], total["accepted"]),
        ),
        evidence=Evidence(
            spans=sum(count.span_seconds.counts),
            span_seconds=count.span_seconds.histogram(),
            touched=tuple(share(count.touched[tenth], total["accepted"]) for tenth in range(TENTHS)),
            covered=share(sum(count.covered), len(count.covered)),
        ),
        video_minutes=count.minutes.histogram(),
        events=count.events.histogram(),
        mean_events=share(whole["events"], whole["videos"]),
        commonest_caption=commonest,
        survival=Survival(
            by_events=count.kept_by_events.histogram(),
            by_summary=count.kept_by_summary.histogram(),
            low=whole["lossy"],
        ),
        stages=stages,
        reviewed=reviewed,
        checks=judged(standards.gates, count.cells, whole, taxonomy, reviewed.strata),
        judge=judge,
    )


def _across(count: Count) -> tuple[int, Near]:
    """Add to the cells what can be told of their pairs once all are known.

    Returns how many groups of equal pairs stand in several videos, and what is nearly the same.
    """
    import numpy as np

    def by_cell(places: Sequence[int], counted: "NDArray[np.bool_]") -> list[int]:
        found = np.bincount(np.array(places, np.uint32)[counted], minlength=len(count.numbers))
        return [int(each) for each in found]

    near, count.signatures = count.signatures.near(), Signatures()  # nothing takes more memory than they do
    _, group, sizes = np.unique(np.array(count.hashes, np.uint64), return_inverse=True, return_counts=True)
    across, guessed_and_hit = by_cell(count.places, sizes[group] > 1), count.usual.counts()
    near_within, near_across = (by_cell(count.signed, found) for found in (near.within, near.across))
    for cell, number in count.numbers.items():
        count.cells[cell].update(
            across=across[number],
            near_within=near_within[number],
            near_across=near_across[number],
            usual=guessed_and_hit[0][number],
            usual_right=guessed_and_hit[1][number],
        )
    return int((sizes > 1).sum()), near


def _planned(count: Count, ends: Ends, taxonomy: Taxonomy) -> None:
    """Add to the cells what the templates ask for of the videos that reached their task."""
    for task in taxonomy.tasks.values():
        videos = ends.of_task.get(task.task, Counter()).total()
        for format, wanted in task.per_video:
            count.cells[Cell(task.task, format, "", 0)]["wanted"] += wanted * videos


def _named_by_benchmarks(
    sources: Iterable[str], known: Mapping[str, Source], benchmarks: Mapping[str, str]
) -> Counter[str]:
    """Sources that a benchmark names by their id or address, by benchmark."""
    found = (known[source_id] for source_id in sources if source_id in known)
    names = (benchmarks.get(each.source_id) or benchmarks.get(each.url) for each in found)
    return Counter(name for name in names if name)


def _commonest(count: Count, videos: Sequence[str], tables: Tables) -> CommonestCaption:
    """The caption that most clips bear. videos: in the order in which they were counted."""
    import numpy as np

    hashes = np.array(count.captions, np.uint64)
    if not len(hashes):
        return CommonestCaption(summary="", clips=0)
    _, first, sizes = np.unique(hashes, return_index=True, return_counts=True)
    at, ends = int(first[sizes.argmax()]), np.cumsum(np.array(count.clips))
    video = int(np.searchsorted(ends, at, side="right"))
    summaries = tables.columns(ClipCaption, videos[video], ("summary",))["summary"].to_pylist()
    return CommonestCaption(summary=summaries[at - int(ends[video])], clips=int(sizes.max()))  # counted from its end


def _distinct(hashes: Sequence[int]) -> int:
    import numpy as np

    return len(np.unique(np.array(hashes, np.uint64)))


def _tasks(count: Count, ends: Ends, taxonomy: Taxonomy) -> Iterator[TaskCount]:
    found = grouped(count.cells, "task", taxonomy)
    by_format: defaultdict[tuple[str, str], int] = defaultdict(int)
    for cell, counts in count.cells.items():
        by_format[cell.task, cell.format] += counts["qa"]
    for task in taxonomy.tasks.values():
        asked, counts = ends.of_task.get(task.task, Counter()), found.get(task.task, Counter())
        yield TaskCount(
            task=task.task,
            name=task.name,
            topic=task.topic,
            open=by_format[task.task, "open"],
            choice=by_format[task.task, "choice"],
            wanted_open=task.per_video.open * asked.total(),
            wanted_choice=task.per_video.choice * asked.total(),
            accepted=counts["accepted"],
            interval=interval(counts["accepted"], counts["qa"]),
            problems={name: each for (of, name), each in sorted(count.problems.items()) if of == task.task},
            not_asked=reasons(asked, "filtered"),
            failed=reasons(asked, "failed"),
        )


def _topics(tasks: Sequence[TaskCount]) -> Iterator[TopicCount]:
    total = sum(task.qa for task in tasks)
    for name, topic in TOPICS.items():
        own = [task for task in tasks if task.topic == name]
        qa, accepted = sum(task.qa for task in own), sum(task.accepted for task in own)
        yield TopicCount(
            topic=name,
            qa=qa,
            share=share(qa, total),
            published=topic.share,
            accepted=accepted,
            interval=interval(accepted, qa),
        )


def _off_topic(topics: Sequence[TopicCount]) -> int:
    """How many pairs would have to be of another topic for the published shares: their total variation distance."""
    total = sum(topic.qa for topic in topics)
    return round(sum(abs(topic.qa - topic.published * total) for topic in topics) / 2)


def _repeats(groups: int, pairs: int, of: int) -> Repeats:
    return Repeats(groups=groups, pairs=pairs, share=share(pairs, of))


def _summed(by_task: Counter[tuple[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (_, name), count in by_task.items():
        total[name] += count
    return total
