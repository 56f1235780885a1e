"""What changed from one dataset or release to another, QA pair by QA pair.

A pair is *unchanged* where both sides have it with the same words, letter, evidence and clips, whoever wrote it. Of the
others, those of the same video, task and format are held against each other, and the likest two at a time are one that
*changed*: at least half of the words of their questions are the same, or at least half of their evidence (both as
intersection over union). What finds no partner was *removed* or *added*.
"""

import sqlite3
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal

from marathon_pipeline.audit.measures import covered_seconds
from marathon_pipeline.audit.sides import Cost, DatasetSide, Kind, Parts, Side, Version
from marathon_pipeline.audit.statistics import share
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Record, Span, digest
from marathon_pipeline.wording import words

ChangeKind = Literal["changed", "added", "removed"]

_ALIKE = 0.5
_CACHE_KIB = 65_536  # of the rows that are sorted; the rest waits on the disk
_ROOM = "free some of its disk, or set SQLITE_TMPDIR to another folder"
_ROWS = "CREATE TABLE pairs (task, video, format, id, new, content, text, PRIMARY KEY (task, video, format, id, new))"


class Change(Record):
    """`old`: none where the pair was added; `new`: none where it was removed."""

    old: Version | None
    new: Version | None

    @property
    def kind(self) -> ChangeKind:
        if self.old is None:
            return "added"
        return "removed" if self.new is None else "changed"

    @property
    def shown(self) -> Version:
        """The new one where there is one."""
        version = self.new or self.old
        assert version
        return version


class TaskSide(Record):
    """One side's QA of a task that may be released, what of it may not, and what all of it has cost, where known."""

    qa: int
    rejected: int
    cost: Cost | None

    @property
    def accepted(self) -> float:
        return share(self.qa, self.qa + self.rejected)


class TaskChange(Record):
    """unchanged + changed + removed is the old side's QA, unchanged + changed + added the new side's."""

    task: str
    unchanged: int
    changed: int
    added: int
    removed: int
    old: TaskSide
    new: TaskSide

    @property
    def differs(self) -> bool:
        return bool(self.changed or self.added or self.removed)


class Compared(Record):
    """A side, and how many of its videos the other one does not have."""

    name: str
    kind: Kind
    videos: int
    own: int


class Comparison(Record):
    """`within_new`: the old side's other videos and tasks were left out. `sample`: some of each kind and task."""

    old: Compared
    new: Compared
    within_new: bool
    tasks: tuple[TaskChange, ...]
    sample: tuple[Change, ...]

    def __str__(self) -> str:
        """`12 added, 3 removed, 40 changed in 1 task`."""
        counts = [(sum(getattr(task, kind) for task in self.tasks), kind) for kind in ("added", "removed", "changed")]
        if not any(count for count, _ in counts):
            return "no pair differs"
        tasks = sum(task.differs for task in self.tasks)
        return ", ".join(f"{n:,} {kind}" for n, kind in counts) + f" in {tasks} task{'' if tasks == 1 else 's'}"


def compare(
    old: Side,
    new: Side,
    *,
    within_new: bool = False,
    keep: int = 2,
    each: Callable[[Change], None] = lambda change: None,
) -> Comparison:
    """Counts by task, and `keep` changes of each task and kind, those with the smallest hashes.

    within_new: leave the old side's other videos and tasks out, as where the new one is a pilot. each: is told every
    change. Raises UserError and Failed where a side cannot be read, UserError where the temporary folder is full.
    """
    videos, tasks = (new.videos, new.tasks) if within_new else (old.videos | new.videos, old.tasks | new.tasks)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    before, now = old.parts(), new.parts()
    same = {task: before[task][1] for task in before if before[task] == now.get(task)}
    for task, count in same.items():
        counts[task]["unchanged"] = count
    alike: Parts = {}
    if isinstance(old, DatasetSide) and isinstance(new, DatasetSide):
        alike = new.alike(old, tasks, videos)
        for task, accepted in new.tally(alike):
            counts[task].update(["unchanged"] if accepted else ["rejected 0", "rejected 1"])
    kept: defaultdict[tuple[str, ChangeKind], list[tuple[str, Change]]] = defaultdict(list)
    rows = sqlite3.connect("")  # a file without a name, gone with the connection
    try:
        rows.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        rows.execute(_ROWS + " WITHOUT ROWID")
        for number, side in enumerate((old, new)):
            rows.executemany(
                "INSERT OR IGNORE INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?)",
                _rows(side.pairs(tasks - same.keys(), videos, alike), number, counts),
            )
        for task, found in _differences(rows):
            counts[task][found if isinstance(found, str) else found.kind] += 1
            if isinstance(found, Change):
                each(found)
                own = kept[task, found.kind]
                insort(own, (found.shown.qa_id, found), key=itemgetter(0))
                del own[keep:]
    except sqlite3.OperationalError as error:
        raise UserError(f"what is compared cannot be kept in the temporary folder ({error}); {_ROOM}") from None
    finally:
        rows.close()
    costs = [side.cost(tasks, videos) for side in (old, new)]
    return Comparison(
        old=_compared(old, new),
        new=_compared(new, old),
        within_new=within_new,
        tasks=tuple(_task(task, counts[task], *(cost.get(task) for cost in costs)) for task in sorted(tasks)),
        sample=tuple(change for _, own in sorted(kept.items()) for _, change in own),
    )


def _compared(side: Side, other: Side) -> Compared:
    return Compared(name=side.name, kind=side.kind, videos=len(side.videos), own=len(side.videos - other.videos))


def _task(task: str, counts: Counter[str], old: Cost | None, new: Cost | None) -> TaskChange:
    both = counts["unchanged"] + counts["changed"]
    return TaskChange(
        task=task,
        unchanged=counts["unchanged"],
        changed=counts["changed"],
        added=counts["added"],
        removed=counts["removed"],
        old=TaskSide(qa=both + counts["removed"], rejected=counts["rejected 0"], cost=old),
        new=TaskSide(qa=both + counts["added"], rejected=counts["rejected 1"], cost=new),
    )


def _rows(
    pairs: Iterator[tuple[Version, bool]], number: int, counts: defaultdict[str, Counter[str]]
) -> Iterator[tuple[str | int, ...]]:
    for pair, accepted in pairs:
        if not accepted:
            counts[pair.task][f"rejected {number}"] += 1
            continue
        content = digest([pair.letter, [[span.start, span.end] for span in pair.evidence], pair.clip_ids])
        yield pair.task, pair.video_id, pair.format, pair.qa_id, number, content, pair.model_dump_json()


def _differences(rows: sqlite3.Connection) -> Iterator[tuple[str, Change | Literal["unchanged"]]]:
    """All that is in the rows, with its task."""
    found = rows.execute("SELECT task, video, format, id, new, content, text FROM pairs ORDER BY 1, 2, 3, 4, 5")
    for (task, _, _), group in groupby(found, key=itemgetter(0, 1, 2)):
        sides: tuple[list[Version], list[Version]] = ([], [])
        for _, same in groupby(group, key=itemgetter(3)):
            versions = list(same)
            if len(versions) == 2 and versions[0][5] == versions[1][5]:
                yield task, "unchanged"
                continue
            for version in versions:
                sides[version[4]].append(Version.model_validate_json(version[6]))
        for change in matched(*sides):
            yield task, change


def matched(old: Sequence[Version], new: Sequence[Version]) -> Iterator[Change]:
    """Of one video, task and format: the likest two of them first, then the likest of what is left; each once."""
    likeness = [
        (-score, after.qa_id, before.qa_id, before, after)
        for before in old
        for after in new
        if (score := _likeness(before, after))
    ]
    taken: set[tuple[int, str]] = set()
    for _, _, _, before, after in sorted(likeness, key=itemgetter(0, 1, 2)):
        if (0, before.qa_id) not in taken and (1, after.qa_id) not in taken:
            taken |= {(0, before.qa_id), (1, after.qa_id)}
            yield Change(old=before, new=after)
    yield from (Change(old=before, new=None) for before in old if (0, before.qa_id) not in taken)
    yield from (Change(old=None, new=after) for after in new if (1, after.qa_id) not in taken)


def _likeness(one: Version, other: Version) -> float:
    """0: they are two pairs, and not one that changed."""
    if one.qa_id == other.qa_id:
        return 3.0
    asked, asks = frozenset(words(one.question)), frozenset(words(other.question))
    of_words = len(asked & asks) / max(1, len(asked | asks))
    of_evidence = _overlap(one.evidence, other.evidence)
    return of_words + of_evidence if max(of_words, of_evidence) >= _ALIKE else 0.0


def _overlap(one: Sequence[Span], other: Sequence[Span]) -> float:
    union = covered_seconds([*one, *other])
    return (covered_seconds(one) + covered_seconds(other) - union) / union if union > 0 else 0.0
