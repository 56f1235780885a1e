"""Which pairs reviewers are dealt: of each stratum those with the smallest hashes, so nobody chose them."""

import hashlib
import json
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import compress, zip_longest
from operator import itemgetter
from typing import NamedTuple, get_args

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.reviewed import ReviewCount, Stratum, strata_of
from marathon_pipeline.audit.rows import OF_PEOPLE, Pairs, Verdicts
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.dataset import Dataset, Finished
from marathon_pipeline.dataset.reviews import Judged, Reviews
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.processes import in_parts
from marathon_pipeline.records import Format, QAPair

_AT_ONCE = 32  # videos to a part


class Dealt(NamedTuple):
    pair: QAPair
    seconds: float  # length of the video

    @property
    def judged(self) -> Judged:
        return Judged.of(self.pair)


class Deal(NamedTuple):
    """dealt: in an order of which every beginning is a sample too; counted: all pairs, the dealt ones watched."""

    dealt: tuple[Dealt, ...]
    counted: ReviewCount


class _Card(NamedTuple):
    """What is known of a pair while others are looked at; it is read once it is dealt."""

    rank: str
    qa_id: str
    video: Finished


def deal(
    dataset: Dataset,
    standards: Standards,
    reviews: Reviews,
    per_task: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> Deal:
    """Deal `per_task` accepted pairs of each task, open-ended and multiple choice in turn, and as many of those that
    were written in the place of rejected ones.

    What people rejected stays in the deal: the gates accepted it. Raises UserError where they accept nothing.
    """
    gates, finished = in_force(standards.gates, dataset.ledger), list(dataset.finished())
    groups = [finished[first : first + _AT_ONCE] for first in range(0, len(finished), _AT_ONCE)]
    parts = [(group, reviews.of({video.video_id for video in group})) for group in groups]
    count, kept, done = ReviewCount(reviews), _Kept(per_task), 0
    look = partial(_looked_at, dataset.tables, gates, per_task, seed)
    for group, (counted, cards) in zip(groups, in_parts(look, parts), strict=True):
        count.extend(counted)
        kept.extend(cards)
        done += len(group)
        progress(done, len(finished))
    order = []
    for number, task in enumerate(standards.taxonomy.tasks):
        for replaced in (False, True):
            formats = [kept.of[Stratum(task, format, replaced)] for format in get_args(Format)]
            own = [each for turn in zip_longest(*formats) for each in turn if each is not None]
            order += [(rank, number, each) for rank, each in enumerate(own[:per_task])]
    if not order:
        raise UserError(f"{dataset.url}: no QA pair is accepted, so there is nothing to review; run its job first")
    dealt = _read(dataset, [each for _, _, each in sorted(order, key=itemgetter(0, 1))])
    for each in dealt:
        count.watch(each.pair)
    return Deal(dealt, count)


class _Kept:
    """The cards of each stratum with the smallest ranks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.of: defaultdict[Stratum, list[_Card]] = defaultdict(list)

    def add(self, stratum: Stratum, rank: str, qa_id: str, video: Finished) -> None:
        own = self.of[stratum]
        if len(own) < self._count or rank < own[-1].rank:
            insort(own, _Card(rank, qa_id, video), key=itemgetter(0))
            del own[self._count :]

    def extend(self, other: "_Kept") -> None:
        for stratum, cards in other.of.items():
            for card in cards:
                self.add(stratum, *card)


def _looked_at(
    tables: Tables, gates: Gates, per_task: int, seed: int, part: tuple[list[Finished], Reviews]
) -> tuple[ReviewCount, _Kept]:
    """All pairs of some videos, and those of them that may be dealt."""
    videos, reviews = part
    count, kept = ReviewCount(reviews), _Kept(per_task)
    for video in videos:
        verdicts = Verdicts(tables, video, gates, more=())
        pairs = Pairs(tables, video, ("tries", *(OF_PEOPLE if video.video_id in reviews.standings else ())))
        rejected = verdicts.reasons()
        rows = (verdicts.rows.get(qa_id) for qa_id in pairs.ids)
        passed = [row is not None and not rejected[row] for row in rows]
        count.add(video.video_id, pairs, passed)
        ranks = (bytes.hex(rank) for rank in _ranks(seed, pairs.ids))
        for stratum, rank, qa_id in compress(zip(strata_of(pairs), ranks, pairs.ids, strict=True), passed):
            kept.add(stratum, rank, qa_id, video)
    return count, kept


def _ranks(seed: int, ids: Iterable[str]) -> Iterator[bytes]:
    """`digest([seed, id])`."""
    common = hashlib.sha256(f"[{seed},".encode())
    for qa_id in ids:
        hasher = common.copy()
        hasher.update(f"{json.dumps(qa_id)}]".encode())
        yield hasher.digest()


def _read(dataset: Dataset, cards: list[_Card]) -> tuple[Dealt, ...]:
    by_video: defaultdict[str, list[str]] = defaultdict(list)
    for card in cards:
        by_video[card.video.video_id].append(card.qa_id)
    pairs = {
        (video_id, pair.qa_id): pair
        for video_id, ids in by_video.items()
        for pair in dataset.tables.read_left(QAPair, video_id, "qa_id", ids)
    }
    found = ((pairs.get((card.video.video_id, card.qa_id)), card.video.seconds) for card in cards)
    return tuple(Dealt(pair, seconds) for pair, seconds in found if pair)  # else rewritten or purged since
