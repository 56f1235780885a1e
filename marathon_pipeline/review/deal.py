"""Which pairs reviewers are dealt: of each task and format those with the smallest hashes, so nobody chose them."""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from operator import itemgetter
from typing import NamedTuple, get_args

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.reviewed import ReviewCount
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.reviews import Judged, Reviews
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Format, QAPair, Verdict, digest


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
    kept: defaultdict[tuple[str, Format], list[tuple[str, Dealt]]] = defaultdict(list)
    finished = list(dataset.finished())
    for done, video in enumerate(finished, start=1):
        verdicts = {each.qa_id: each for each in dataset.tables.read_written(Verdict, video.video_id)}
        for pair in dataset.tables.read_written(QAPair, video.video_id):
            verdict = verdicts.get(pair.qa_id)
            if pair.task not in video.tasks or verdict is None:
                continue
            passed = not gates.reasons(verdict)
            count.add(pair, passed)
            if passed:
                stratum = kept[pair.task, pair.format]
                insort(stratum, (digest([seed, pair.qa_id]), Dealt(pair, video.seconds)), key=lambda each: each[0])
                del stratum[per_task:]
        progress(done, len(finished))
    order = []
    for number, task in enumerate(standards.taxonomy.tasks):
        formats: list[list[Dealt]] = [[each for _, each in kept[task, format]] for format in get_args(Format)]
        own = [each for turn in zip_longest(*formats) for each in turn if each is not None]
        order += [(rank, number, each) for rank, each in enumerate(own[:per_task])]
    if not order:
        raise UserError(f"{dataset.url}: no QA pair is accepted, so there is nothing to review; run its job first")
    dealt = tuple(each for _, _, each in sorted(order, key=itemgetter(0, 1)))
    for each in dealt:
        count.watch(each.pair)
    return Deal(dealt, count)
