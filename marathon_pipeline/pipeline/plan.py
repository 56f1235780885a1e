"""What would run and why: every stage's work on every video is fresh, stale, or waiting for what is upstream of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from marathon_pipeline.dataset.ledger import Known, Ledger
from marathon_pipeline.records import Outcome, QAPair, Record, Source, Video, digest
from marathon_pipeline.sources.reasons import rule_of
from marathon_pipeline.stages.stage import Replacement, Stage

NEW, RULES, INPUTS, RETRY, FORCED, REJECTED, GONE = (
    "new",
    "settings or template changed",
    "input changed",
    "retry",
    "forced",
    "rejected by gates or people",
    "original gone",
)


@dataclass(frozen=True)
class Selection:
    """Which part of a job to run. What is left empty selects everything."""

    videos: frozenset[str] = frozenset()  # ids of videos or of sources
    split: str = ""  # of the release
    tasks: frozenset[str] = frozenset()
    since: str = ""  # the first stage to run: what comes before it is taken as it stands
    until: str = ""  # the last stage to run
    force: bool = False  # also what is fresh; with `tasks`, only these tasks
    retry_failed: str | None = None  # permanent failures too: a reason, or "" for all of them
    rejected: bool = False  # also QA pairs that gates or people reject: `replace` is to name them
    replace: Mapping[str, Mapping[str, Replacement]] = field(default_factory=dict)  # by video and task
    frozen: frozenset[str] = frozenset()  # sources whose QA is left as it is once it is written

    def takes(self, *ids: str) -> bool:
        return not self.videos or not self.videos.isdisjoint(ids)

    def asked(self) -> dict[str, object]:
        """What it selects by, for a log: videos are only counted."""
        asked = {
            "videos": len(self.videos),
            "split": self.split,
            "tasks": sorted(self.tasks),
            "until": self.until,
            "force": self.force,
            "retry_failed": "all" if self.retry_failed == "" else self.retry_failed,
            "rejected": self.rejected,
        }
        return {name: value for name, value in asked.items() if value}


@dataclass
class Work:
    """One stage's work on one owner of rows: a source in `download`, else a video."""

    stage: Stage
    owner: str
    source_id: str
    stale: dict[str, str] = field(default_factory=dict)  # part: the fingerprint wanted
    why: dict[str, str] = field(default_factory=dict)  # part: why it is stale
    waiting: tuple[str, ...] = ()  # parts whose upstream is not there yet
    attempts: dict[str, int] = field(default_factory=dict)  # part: how often it failed before
    rounds: dict[str, tuple[int, int]] = field(default_factory=dict)  # part: of asking served models, see `Answers`
    replace: dict[str, Replacement] = field(default_factory=dict)  # part: the rows of it that others are written for
    kept: tuple[str, ...] = ()  # parts that would be stale, or waiting, were their QA not frozen
    redo: bool = False  # even where a file with the wanted fingerprint lies already


class Planner:
    """Compares what the stages would write with what the ledger says is there. Reads nothing else."""

    def __init__(self, stages: Sequence[Stage], ledger: Ledger, selection: Selection) -> None:
        names = [stage.name for stage in stages]
        self.stages = tuple(stages[: names.index(selection.until) + 1] if selection.until in names else stages)
        self._ledger, self._selection = ledger, selection
        self._given = frozenset(names[: names.index(selection.since)] if selection.since else ())
        self._writer = {record: stage for stage in stages for record in stage.writes}
        self._rules = {
            (stage.name, part): digest([stage.version, stage.settings(part)])[:16]
            for stage in stages
            for part in stage.parts
        }
        self._attempted: set[tuple[str, str, str]] = set()

    def attempted(self, outcome: Outcome) -> None:
        """This run has tried it: neither `force` nor a failure makes it stale again before the next run."""
        if outcome.status == "failed" or self._selection.force or self._selection.replace:  # the others are fresh
            self._attempted.add((outcome.stage, outcome.video_id, outcome.part))

    def of_source(self, source: Source) -> Work:
        """The work on the source itself, which tells what videos it holds."""
        work = Work(self.stages[0], source.source_id, source.source_id)
        origin = source.url or source.sha256
        read = [source.source_id, origin, [span.model_dump() for span in source.segments]]
        self._judge(work, "", digest([*read, *([source.opt_out] if source.opt_out else [])]))
        return work

    def again(self, work: Work) -> Work:
        """A source to be fetched again, because what was fetched is gone and is needed."""
        known = self._ledger.known(work.stage.name, work.owner)
        if known is not None:
            work.stale, work.why, work.redo = {"": known.fingerprint}, {"": GONE}, True
        return work

    def of_video(self, video_id: str, source_id: str) -> list[Work]:
        """The work of every later stage on a video, in order, as far as the stage where the video ended."""
        works: list[Work] = []
        open_parts: set[tuple[str, str]] = set()  # (stage, part) that is stale or waiting
        for stage in self.stages[1:]:
            work, waiting, reached = Work(stage, video_id, source_id), [], False
            for part in stage.parts:
                if not self._selects(part):
                    continue
                above = [self._above(record, part, video_id, source_id) for record in stage.reads]
                if any((name, its_part) in open_parts for name, its_part, _ in above):
                    if self._is_frozen(work, self._ledger.known(stage.name, video_id, part)):
                        work.kept += (part,)
                    else:
                        waiting.append(part)
                elif all(outcome is not None and outcome.status == "ok" for _, _, outcome in above):
                    contents = (outcome.content for _, _, outcome in above if outcome is not None)
                    self._judge(work, part, _inputs(tuple(contents)))
                else:
                    continue
                reached = True
            if not reached:
                break
            work.waiting = tuple(waiting)
            open_parts |= {(stage.name, part) for part in (*work.stale, *waiting)}
            works.append(work)
        return works

    def videos_of(self, source_id: str) -> tuple[str, ...]:
        """The videos that a source is known to hold, as far as they are selected."""
        outcome = self._ledger.known(self.stages[0].name, source_id)
        videos = outcome.videos if outcome and outcome.status == "ok" else ()
        return tuple(video_id for video_id in videos if self._selection.takes(video_id, source_id))

    def _above(self, record: type[Record], part: str, video_id: str, source_id: str) -> tuple[str, str, Known | None]:
        """Who wrote the rows that a part reads, and how that ended."""
        writer = self._writer[record]
        its_part = part if part in writer.parts else ""
        owner = source_id if record is Video else video_id
        return writer.name, its_part, self._ledger.known(writer.name, owner, its_part)

    def _judge(self, work: Work, part: str, inputs: str) -> None:
        """Enter the part into the work if it is stale."""
        if work.stage.name in self._given or (work.stage.name, work.owner, part) in self._attempted:
            return
        wanted = f"{self._rules[work.stage.name, part]}-{inputs[:16]}"
        known = self._ledger.known(work.stage.name, work.owner, part)
        replacement = self._selection.replace.get(work.owner, {}).get(part) if QAPair in work.stage.writes else None
        why = self._why(known, wanted, part) or (REJECTED if replacement else "")
        if why and self._is_frozen(work, known):
            work.kept += (part,)
        elif why:
            before = self._ledger.get(work.stage.name, work.owner, part) if known else None
            work.stale[part], work.why[part] = wanted, why
            work.attempts[part] = before.attempts if before and why == RETRY else 0
            work.rounds[part] = _rounds(before, why)
            work.redo = work.redo or why in (FORCED, REJECTED)
            if replacement and why == REJECTED:
                work.replace[part] = replacement

    def _is_frozen(self, work: Work, known: Known | None) -> bool:
        frozen = work.source_id in self._selection.frozen and QAPair in work.stage.writes
        return frozen and known is not None and known.status != "failed"

    def _why(self, known: Known | None, wanted: str, part: str) -> str:
        if known is None:
            return NEW
        if known.fingerprint != wanted:
            return RULES if known.fingerprint.partition("-")[0] != wanted.partition("-")[0] else INPUTS
        if known.status == "failed" and (known.transient or self._retries(known)):
            return RETRY
        return FORCED if self._selection.force and (part or not self._selection.tasks) else ""

    def _retries(self, known: Known) -> bool:
        """Whether a permanent failure is asked for again: what a site says is gone only by its own name."""
        asked = self._selection.retry_failed
        return asked == known.reason or (asked == "" and rule_of(known.reason, known.transient) != "never")

    def _selects(self, part: str) -> bool:
        return not part or not self._selection.tasks or part in self._selection.tasks


@lru_cache(8)
def _inputs(contents: tuple[str, ...]) -> str:
    """The same for all tasks of a video, mostly."""
    return digest(contents)


def _rounds(known: Outcome | None, why: str) -> tuple[int, int]:
    if known is None or why not in (RETRY, FORCED, REJECTED):
        return 0, 0
    first, last = known.rounds
    if why != RETRY:
        return last + 1, last + 1
    return first, last if known.transient else last + 1


def whole_plan(planner: Planner, sources: Sequence[Source], selection: Selection) -> Iterator[Work]:
    """Every stage's work on every selected source and video."""
    for source in sources:
        work = planner.of_source(source)
        videos = planner.videos_of(source.source_id)
        if videos or not selection.videos or selection.takes(source.source_id):
            yield work
        if not work.stale:
            for video_id in videos:
                yield from planner.of_video(video_id, source.source_id)
