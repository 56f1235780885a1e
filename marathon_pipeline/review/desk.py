"""Who is dealt what, and who may say what.

Reviewers are blind to each other for as long as anything waits for them: till then they see nothing of what all
judgements come to, which after each of their own would tell the other's. And what one said of a pair stands once
another has judged it too, so that agreement is that of two blind judgements.
"""

from collections import Counter
from collections.abc import Iterator
from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.audit.checks import REVIEW_MEASURES
from marathon_pipeline.audit.checks import judged as held_against
from marathon_pipeline.audit.statistics import Held, Reviewed
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.removals import Removals
from marathon_pipeline.dataset.reviews import Judgement, Reviews, Role, Standing, identity
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import LETTERS, Span
from marathon_pipeline.review.deal import Deal, Dealt

_BLIND = 2  # reviewers of a pair
State = Literal[
    "open",  # waits for this reviewer's own, blind judgement
    "accept",  # said so
    "reject",
    "dispute",  # reviewers disagree, and this one may adjudicate, alone or with the other
    "ruled",  # this one adjudicated
    "full",  # two others see to it
]
_NOTHING: Counter[str] = Counter()


class Refused(Exception):
    """What a reviewer asked for may not be, said in one line."""


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True)


class Opinion(_Sent):
    reviewer: str
    verdict: str
    reason: str
    note: str


class Item(_Sent):
    """A pair as a reviewer sees it: nothing of what was measured of it."""

    qa_id: str
    video_id: str
    task: str
    name: str  # of the task
    asks: str
    format: str
    question: str
    options: dict[str, str]
    letter: str
    answer: str
    evidence: tuple[Span, ...]
    seconds: float
    shown: str
    state: State  # for this reviewer
    opinions: tuple[Opinion, ...]  # of all who judged it, where it is in dispute before them


class Gate(_Sent):
    """A gate that judgements move. `fewest`: from how many on it counts."""

    label: str
    found: str
    bound: str
    counted: int
    fewest: int
    state: Held


class Progress(_Sent):
    mine: int  # pairs that this reviewer judged
    open: int  # that wait for this reviewer
    both: int  # pairs of the deal that two have judged
    dealt: int


class Table(_Sent):
    """All that a page shows to one reviewer."""

    reviewer: str
    items: tuple[Item, ...]
    progress: Progress
    gates: tuple[Gate, ...]
    reviewed: Reviewed | None  # none, and no gates: pairs wait for this reviewer's own judgement


class Desk:
    """Raises Refused for what may not be. Several threads may ask at once."""

    def __init__(self, deal: Deal, reviews: Reviews, removals: Removals, standards: Standards) -> None:
        self._dealt = {each.pair.qa_id: each for each in deal.dealt}
        self._count, self._reviews, self._removals, self._standards = deal.counted, reviews, removals, standards
        self._gates = [gate for gate in standards.gates.dataset if gate.measure in REVIEW_MEASURES]
        self._lock = Lock()

    def videos(self) -> frozenset[str]:
        return frozenset(each.pair.video_id for each in self._dealt.values())

    def table(self, reviewer: str) -> Table:
        """What stands before a reviewer now, judgements from elsewhere included."""
        with self._lock:
            self._refresh()
            return self._table(reviewer)

    def judge(self, reviewer: str, qa_id: str, shown: str, verdict: str, reason: str, note: str) -> Table:
        """Keep what a reviewer says of a pair; `withdrawn` takes it back. Returns the table as it is then."""
        with self._lock:
            self._refresh()
            dealt = self._dealt.get(qa_id)
            if dealt is None or dealt.judged.shown != shown:
                raise Refused("this pair is not dealt, or is no longer as it was shown: load the page again")
            pair = dealt.pair
            try:
                judgement = Judgement(
                    video_id=pair.video_id,
                    **dealt.judged._asdict(),
                    reviewer=reviewer,
                    role=self._role(dealt, reviewer, verdict),
                    verdict=verdict,
                    reason=reason,
                    note=note,
                )
            except ValidationError as error:
                raise Refused(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
            self._reviews.add(judgement)
            return self._table(reviewer)

    def _refresh(self) -> None:
        """See what was judged since, and drop what was purged: of that no trace may be written any more."""
        self._reviews.refresh()
        self._removals.refresh()
        purged = {video_id for video_id in self.videos() if self._removals.holds("id", video_id)}
        self._dealt = {id: dealt for id, dealt in self._dealt.items() if dealt.pair.video_id not in purged}

    def _role(self, dealt: Dealt, reviewer: str, verdict: str) -> Role:
        state = self._states(reviewer)[dealt.pair.qa_id]
        if state == "full":
            raise Refused("two others see to this pair")
        if state == "ruled" or (state == "dispute" and verdict != "withdrawn"):
            return "adjudicate"
        if state != "open" and len(self._standing(dealt).reviews) >= _BLIND:
            raise Refused(
                "another person has judged this pair too, so what you said of it stands; where you disagree, it is "
                "adjudicated once nothing waits for you"
            )
        return "review"

    def _standing(self, dealt: Dealt) -> Standing:
        return self._reviews.standings.get(dealt.pair.video_id, {}).get(dealt.judged, Standing())

    def _states(self, reviewer: str) -> dict[str, State]:
        """Who disputes a pair is told so once no pair waits for their own judgement."""
        who = identity(reviewer)
        standings = {qa_id: self._standing(dealt) for qa_id, dealt in self._dealt.items()}
        waits = any(_waits_for(who, standing) for standing in standings.values())
        return {qa_id: _state(who, standing, waits) for qa_id, standing in standings.items()}

    def _table(self, reviewer: str) -> Table:
        states = self._states(reviewer)
        items = tuple(self._item(dealt, states[qa_id]) for qa_id, dealt in self._dealt.items())
        standings = [self._standing(dealt) for dealt in self._dealt.values()]
        who = identity(reviewer)
        progress = Progress(
            mine=sum(any(each.who == who for each in standing.reviews) for standing in standings),
            open=sum(state == "open" for state in states.values()),
            both=sum(len(standing.reviews) >= _BLIND for standing in standings),
            dealt=len(items),
        )
        reviewed = None if progress.open else self._count.statistics()
        gates = tuple(self._held(reviewed)) if reviewed else ()
        return Table(reviewer=reviewer, items=items, progress=progress, gates=gates, reviewed=reviewed)

    def _held(self, reviewed: Reviewed) -> Iterator[Gate]:
        for gate in self._gates:
            alone = Gates(dataset=(gate,))
            for check in held_against(alone, {}, _NOTHING, self._standards.taxonomy, reviewed.strata):
                known = check.model_dump(include={"found", "bound", "counted", "state"})
                yield Gate(label=check.label, fewest=gate.fewest, **known)

    def _item(self, dealt: Dealt, state: State) -> Item:
        pair, task = dealt.pair, self._standards.taxonomy.tasks[dealt.pair.task]
        told: tuple[Opinion, ...] = ()
        if state in ("dispute", "ruled"):
            standing = self._standing(dealt)
            told = tuple(
                Opinion(reviewer=each.reviewer, verdict=each.verdict, reason=each.reason, note=each.note)
                for each in (*standing.reviews, *standing.adjudications)
            )
        return Item(
            **pair.model_dump(include={"qa_id", "video_id", "task", "format", "question", "letter", "answer"}),
            name=task.name,
            asks=task.asks,
            options=dict(zip(LETTERS, pair.options, strict=False)),
            evidence=pair.evidence,
            seconds=dealt.seconds,
            shown=dealt.judged.shown,
            state=state,
            opinions=told,
        )


def _waits_for(who: str, standing: Standing) -> bool:
    return len(standing.reviews) < _BLIND and all(each.who != who for each in standing.reviews)


def _state(who: str, standing: Standing, waits: bool) -> State:
    """waits: whether any pair waits for this reviewer's own judgement."""
    if _waits_for(who, standing):
        return "open"
    own = next((each for each in standing.reviews if each.who == who), None)
    if any(each.who == who for each in standing.adjudications):
        return "ruled"
    if standing.disputed and standing.ruling is None and not (own and waits):
        return "dispute"
    if own is None:
        return "full"
    return "accept" if own.verdict == "accept" else "reject"
