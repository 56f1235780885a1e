"""Which pairs reviewers are dealt: of each task and format those with the smallest hashes, so nobody chose them."""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from operator import itemgetter
from typing import NamedTuple, get_args

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.reviewed import ReviewCount
from marathon_pipeline.audit.rows import Pairs, Verdicts
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.dataset import Dataset, Finished
from marathon_pipeline.dataset.reviews import Judged, Reviews
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Format, QAPair, digest

_OF_PAIR = ("letter", "evidence")  # what else is judged of a pair


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
    """Deal `per_task` accepted pairs of each task, open-ended and multiple choice in turn.

    What people rejected stays in the deal: the gates accepted it. Raises UserError where they accept nothing.
    """
    count, gates = ReviewCount(reviews), in_force(standards.gates, dataset.ledger)
    kept: defaultdict[tuple[str, Format], list[_Card]] = defaultdict(list)
    finished = list(dataset.finished())
    for done, video in enumerate(finished, start=1):
        verdicts, pairs = Verdicts(dataset.tables, video), Pairs(dataset.tables, video, _OF_PAIR)
        rejected = verdicts.reasons(gates)
        rows = (verdicts.rows.get(qa_id) for qa_id in pairs.ids)
        passed = [row is not None and not rejected[row] for row in rows]
        count.add(video.video_id, pairs, passed)
        for qa_id, task, format, accepted in zip(pairs.ids, pairs.tasks, pairs.formats, passed, strict=True):
            if accepted:
                stratum, rank = kept[task, format], digest([seed, qa_id])
                if len(stratum) < per_task or rank < stratum[-1].rank:
                    insort(stratum, _Card(rank, qa_id, video), key=itemgetter(0))
                    del stratum[per_task:]
        progress(done, len(finished))
    order = []
    for number, task in enumerate(standards.taxonomy.tasks):
        formats: list[list[_Card]] = [kept[task, format] for format in get_args(Format)]
        own = [each for turn in zip_longest(*formats) for each in turn if each is not None]
        order += [(rank, number, each) for rank, each in enumerate(own[:per_task])]
    if not order:
        raise UserError(f"{dataset.url}: no QA pair is accepted, so there is nothing to review; run its job first")
    dealt = _read(dataset, [each for _, _, each in sorted(order, key=itemgetter(0, 1))])
    for each in dealt:
        count.watch(each.pair)
    return Deal(dealt, count)


def _read(dataset: Dataset, cards: list[_Card]) -> tuple[Dealt, ...]:
    by_video: defaultdict[str, list[str]] = defaultdict(list)
    for card in cards:
        by_video[card.video.video_id].append(card.qa_id)
    pairs = {
        (video_id, pair.qa_id): pair
        for video_id, ids in by_video.items()
        for pair in dataset.tables.read_some(QAPair, video_id, "qa_id", ids)
    }
    return tuple(Dealt(pairs[card.video.video_id, card.qa_id], card.video.seconds) for card in cards)
