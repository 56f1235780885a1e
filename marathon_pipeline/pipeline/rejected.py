"""Which QA pairs are to be asked for anew, because gates or people reject what stands."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.reviews import Judged
from marathon_pipeline.gates import Gates
from marathon_pipeline.pipeline.plan import Planner
from marathon_pipeline.records import QAPair, Verdict
from marathon_pipeline.stages.stage import Replacement


@dataclass(frozen=True)
class Rejected:
    replace: Mapping[str, Mapping[str, Replacement]]  # by video and task
    used_up: Counter[str]  # by task: videos that hold rejected pairs after as many tries as the job allows


def find_rejected(
    dataset: Dataset,
    planner: Planner,
    sources: Iterable[str],
    tasks: Iterable[str],
    gates: Gates,
    max_tries: int,
) -> Rejected:
    """What the verdicts of the selected videos say, as far as they are of the QA that stands there.

    One run makes one try: it takes the parts that were tried least often. So one that was killed goes on with those
    that it had not come to, or not verified, and begins no further try at the others.
    """
    tasks, reviews = tuple(tasks), dataset.reviews()
    found: dict[tuple[str, str], Replacement] = {}
    begun: set[int] = set()  # tries that are still to be verified
    used_up: Counter[str] = Counter()
    for source_id, video_id in ((source, video) for source in sources for video in planner.videos_of(source)):
        works = planner.of_video(video_id, source_id)
        unsettled = {(work.stage.name, part) for work in works for part in (*work.stale, *work.waiting)}
        rejected = _rejected(dataset, video_id, gates, reviews.rejected(video_id))
        for task in tasks:
            written = dataset.ledger.get("qa", video_id, task)
            if written is None or written.status != "ok" or ("qa", task) in unsettled:
                continue
            if ("verify", task) in unsettled:
                begun.add(written.tries)
            elif ids := rejected.get(task):
                if written.tries >= max_tries:
                    used_up[task] += 1
                else:
                    found[video_id, task] = Replacement(frozenset(ids), written.tries + 1)
    least = min((begun - {0}) | {replacement.tries for replacement in found.values()}, default=0)
    replace: defaultdict[str, dict[str, Replacement]] = defaultdict(dict)
    for (video_id, task), replacement in found.items():
        if replacement.tries == least:
            replace[video_id][task] = replacement
    return Rejected(replace, used_up)


def _rejected(dataset: Dataset, video_id: str, gates: Gates, by_people: frozenset[Judged]) -> Mapping[str, set[str]]:
    """The ids of the rejected pairs of a video, by task. What nobody has verified is not rejected."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    verdicts = {verdict.qa_id: verdict for verdict in dataset.tables.read(Verdict, video_id)}
    for pair in dataset.tables.read(QAPair, video_id) if verdicts else ():
        verdict = verdicts.get(pair.qa_id)
        if verdict is not None and gates.rejects(pair, verdict, by_people):
            ids[pair.task].add(pair.qa_id)
    return ids
