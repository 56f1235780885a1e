"""What a release would hold, read from the ledger and the list of sources alone: no table is opened."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.reviews import Judged
from marathon_pipeline.errors import UserError
from marathon_pipeline.licences import SourceRule
from marathon_pipeline.records import Source, Split, digest
from marathon_pipeline.release.release_file import FORMAT_VERSION, ROOT, Release, read_release, release_names
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.withdrawn import withdrawn

BUCKETS = 10_000
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Placed:
    """A finished video and where it goes. `slot`: which of a split's shards, empty ones counted."""

    video_id: str
    source: Source
    tasks: tuple[str, ...]
    split: Split
    bucket: int
    rule: SourceRule  # what may be released of it
    rejected: frozenset[Judged] = frozenset()  # by people

    def order(self, shards: int) -> tuple[int, int, str]:
        """Sorts videos so that a writer needs one open shard at a time."""
        return SPLITS.index(self.split), self.bucket % shards, self.video_id


def bucket(source_id: str) -> int:
    """0 to 9,999, the same wherever and whenever it is asked."""
    return int(hashlib.sha256(source_id.encode()).hexdigest(), 16) % BUCKETS


def split_of(source: Source, settings: ReleaseSettings) -> Split:
    """The manifest's word, else by bucket: test first, so that a larger `val` takes no source out of `test`."""
    if source.split is not None:
        return source.split
    share = bucket(source.source_id) / BUCKETS
    if share < settings.test:
        return "test"
    return "val" if share >= 1 - settings.val else "train"


def place(dataset: Dataset, rules: ReleaseRules) -> list[Placed]:
    """Every finished video that nobody asked to take down; of some the licences may let nothing be released."""
    sources, reviews = dataset.sources(), dataset.reviews()
    placed = []
    for video in dataset.finished():
        if video.source_id not in sources:
            raise UserError(
                f"{dataset.url}: source {video.source_id} is not listed there; run its job again, then release"
            )
        source = sources[video.source_id]
        rule = rules.licences.of_source(source.data_source, source.licence, source.url)
        split = split_of(source, rules.settings)
        rejected = reviews.rejected(video.video_id)
        placed.append(Placed(video.video_id, source, video.tasks, split, bucket(source.source_id), rule, rejected))
    return placed


@dataclass(frozen=True)
class Planned:
    """A release made now. `finished`: its videos, and those of which nothing may be released.

    parts: the fingerprint of each part: `qa/<task>`, `videos`, `captions`, `media`, `card`.
    """

    finished: Sequence[Placed]
    parts: Mapping[str, str]


def planned_release(dataset: Dataset, rules: ReleaseRules) -> Planned:
    finished = place(dataset, rules)
    return Planned(finished, _parts(dataset, releasable(finished), rules))


def _parts(dataset: Dataset, placed: Sequence[Placed], rules: ReleaseRules) -> dict[str, str]:
    settings, taxonomy, licences, frozen = rules.settings, rules.taxonomy, rules.licences, rules.frozen

    downloaded = _contents(dataset, "download")
    qa: dict[str, list[object]] = {}
    videos: list[object] = []
    captions: list[object] = []
    for video in sorted(placed, key=lambda video: video.video_id):
        row = [video.video_id, video.split, video.bucket % settings.shards, shown(video.source)]
        row.append(downloaded.get(video.source.source_id, ""))
        videos.append(row)
        contents = dataset.ledger.contents(video.video_id)
        texts = [contents.get((stage, ""), "") for stage in ("caption_clips", "caption_events", "summarize")]
        captions.append([*row, video.rule.captions, *texts])
        for task in video.tasks:
            rejected = sorted(judged for judged in video.rejected if judged.task == task)
            of_task = [contents.get((stage, task), "") for stage in ("qa", "verify")]
            allowed = video.rule.allows_qa(taxonomy.task(task).retells)
            qa.setdefault(task, []).append([*row, allowed, *of_task, *([rejected] if rejected else ())])
    parts = {}
    for task, rows in qa.items():
        by_model = [[rule.model, rule.allows_qa(taxonomy.task(task).retells)] for rule in licences.models]
        items = [rules.gates.items.model_dump(), by_model]
        parts[f"qa/{task}"] = digest([FORMAT_VERSION, taxonomy.task_rules(task), items, rows])
    parts["videos"] = digest([FORMAT_VERSION, videos])
    parts["captions"] = digest([FORMAT_VERSION, captions, [[rule.model, rule.captions] for rule in licences.models]])
    templates = {name: template.rendered_rules() for name, template in taxonomy.captions.items()}
    card = [FORMAT_VERSION, settings.model_dump(), templates, licences.model_dump()]
    if opted := opted_out(dataset):
        card.append({"opted_out": opted})
    parts["card"] = digest([*card, *([frozen] if frozen else ())])
    if shown_media := with_media(placed, settings):
        parts["media"] = digest([FORMAT_VERSION, media_fingerprints(dataset, shown_media, settings)])
    return parts


def opted_out(dataset: Dataset) -> int:
    """How many sources are left out because somebody said that they are not to be used."""
    return sum(reason == "opted_out" for (reason,) in dataset.ledger.rows("reason", stages=["download"]))


def releasable(placed: Iterable[Placed]) -> list[Placed]:
    """The videos of which something may be released."""
    return [video for video in placed if video.rule.something]


def with_media(placed: Iterable[Placed], settings: ReleaseSettings) -> list[Placed]:
    """The videos that are released themselves."""
    return [video for video in placed if settings.media and video.rule.media]


def media_fingerprints(dataset: Dataset, placed: Iterable[Placed], settings: ReleaseSettings) -> list[str]:
    return [fingerprint for fingerprint, _ in media_shards(dataset, placed, settings)]


def media_shards(
    dataset: Dataset, placed: Iterable[Placed], settings: ReleaseSettings
) -> list[tuple[str, list[Placed]]]:
    """The media tars that hold anything, in order: the fingerprint of each and its videos."""
    shards: dict[tuple[int, int], list[Placed]] = {}
    for video in sorted(placed, key=lambda video: video.order(settings.media_shards)):
        shards.setdefault(video.order(settings.media_shards)[:2], []).append(video)

    segmented, downloaded = _contents(dataset, "segment"), _contents(dataset, "download")

    def row(video: Placed) -> list[object]:
        contents = [segmented.get(video.video_id, ""), downloaded.get(video.source.source_id, "")]
        return [video.video_id, shown(video.source), *contents]

    return [
        (digest([FORMAT_VERSION, SPLITS[split], [row(video) for video in videos]]), videos)
        for (split, _), videos in shards.items()
    ]


def _contents(dataset: Dataset, stage: str) -> dict[str, str]:
    """The content hashes of the rows that a stage of one part wrote, by owner."""
    return dict(dataset.ledger.rows("video_id", "content", stages=[stage]))


def shown(source: Source) -> dict[str, object]:
    """What a release says about a source. A path is none of its readers' business."""
    return source.model_dump(include={"source_id", "data_source", "url", "licence", "licence_evidence"})


def next_revision(dataset: Dataset, base: str, rules: ReleaseRules, planned: Planned | None = None) -> str:
    """`<base>-<n>`: the latest release of that name where it is current, else the one to write next.

    planned: what is to be in it, where the caller knows that.
    """
    latest = _latest(dataset, base)
    if latest and latest.parts == (planned or planned_release(dataset, rules)).parts:
        return latest.name
    return f"{base}-{max((n for n, _ in _revisions(base, _names_given(dataset))), default=0) + 1}"


def revision_before(dataset: Dataset, name: str) -> Release | None:
    """The latest of the releases `<base>-<n>` with a lower number than this one; None where there is none."""
    base, _, number = name.rpartition("-")
    if not base or not re.fullmatch("[1-9][0-9]*", number):
        return None
    return _latest(dataset, base, int(number))


def stale_tasks(dataset: Dataset, base: str, rules: ReleaseRules) -> set[str]:
    """The tasks whose QA differs from that of the latest `<base>-<n>`; where there is none, all that are finished."""
    latest = _latest(dataset, base)
    released = latest.parts if latest else {}
    planned = planned_release(dataset, rules).parts
    changed = {part for part in released.keys() | planned.keys() if released.get(part) != planned.get(part)}
    return {part.removeprefix("qa/") for part in changed if part.startswith("qa/")}


def _latest(dataset: Dataset, base: str, below: float = math.inf) -> Release | None:
    for number, name in sorted(_revisions(base, release_names(dataset)), reverse=True):
        if number < below and (release := read_release(dataset, name)):
            return release
    return None


def _revisions(base: str, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """`<base>-<n>`, and `<base>-<n>.<m>` that took its place, with n."""
    pattern = re.compile(rf"{re.escape(base)}-([1-9][0-9]*)(\.[1-9][0-9]*)?")
    return ((int(found[1]), name) for name in names if (found := pattern.fullmatch(name)))


def _names_given(dataset: Dataset) -> Iterator[str]:
    yield from release_names(dataset)
    yield from withdrawn(dataset.storage, ROOT)
