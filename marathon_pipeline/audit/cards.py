"""Each QA pair of the sample with what a reader needs to judge it: pictures of its evidence, captions of its clips."""

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.errors import Failed
from marathon_pipeline.media.proxy import proxy_jpeg
from marathon_pipeline.records import CAPTION_FIELDS, ClipCaption, Span
from marathon_pipeline.taxonomy import Task, Taxonomy

_PICTURE_WIDTH = 256  # pixels
_PICTURES_EACH = (2, 4)
_PICTURES = (
    320  # in all, where the sample is large; with the bytes of them it keeps the page light enough to send around
)
_PICTURE_BYTES = 3_300_000
_FRAME_AT = 0.4  # within its second, as segmentation takes it for the proxy
_CAPTIONS_EACH = 4


@dataclass(frozen=True)
class Picture:
    second: int
    jpeg: str  # base64


@dataclass(frozen=True)
class Caption:
    start: float
    end: float
    fields: tuple[tuple[str, str], ...]  # those that the task's questions are written from


@dataclass(frozen=True)
class Card:
    shown: Shown
    name: str  # of the task
    pictures: tuple[Picture, ...]
    captions: tuple[Caption, ...]
    more_captions: int


def cards(dataset: Dataset, taxonomy: Taxonomy, sampler: Sampler) -> list[Card]:
    """A card for each QA pair sampled: the accepted ones in the order of the tasks, then those with problems."""
    sample = [*(shown for task in taxonomy.tasks for shown in sampler.of_task(task)), *sampler.rejected()]
    least, most = _PICTURES_EACH
    each = max(least, min(most, _PICTURES // max(1, len(sample))))
    by_video: defaultdict[str, list[Shown]] = defaultdict(list)
    for shown in sample:
        by_video[shown.pair.video_id].append(shown)
    made: dict[str, Card] = {}
    left = _PICTURE_BYTES
    for video_id, of_video in sorted(by_video.items()):
        wanted = {shown.pair.qa_id: seconds_shown(shown.pair.evidence, each) for shown in of_video}
        pictures = _pictures(dataset, video_id, sorted({second for seconds in wanted.values() for second in seconds}))
        captions = {caption.clip_id: caption for caption in dataset.tables.read(ClipCaption, video_id)}
        for shown in of_video:
            own = [Picture(second, pictures[second]) for second in wanted[shown.pair.qa_id] if second in pictures]
            left -= sum(len(picture.jpeg) * 3 // 4 for picture in own)
            cited = [captions[clip_id] for clip_id in shown.pair.clip_ids if clip_id in captions]
            made[shown.pair.qa_id] = _card(shown, taxonomy.tasks.get(shown.pair.task), own if left > 0 else [], cited)
    return [made[shown.pair.qa_id] for shown in sample]


def seconds_shown(evidence: Sequence[Span], count: int) -> list[int]:
    """At most `count` seconds spread over the evidence: over its spans first, then within each."""
    spans = sorted(evidence, key=lambda span: (span.start, span.end))
    if len(spans) > count:
        spans = [spans[(2 * index + 1) * len(spans) // (2 * count)] for index in range(count)]
    seconds: set[int] = set()
    for index, span in enumerate(spans):
        points = count // len(spans) + (index < count % len(spans))
        steps = (span.start + (span.end - span.start) * (step + 0.5) / points for step in range(points))
        seconds.update(round(max(0.0, second - _FRAME_AT)) for second in steps)
    return sorted(seconds)


def _pictures(dataset: Dataset, video_id: str, seconds: Iterable[int]) -> dict[int, str]:
    """Those of the wanted seconds that the video's proxy, where it is still kept, has a picture of."""
    pictures = {}
    try:
        with dataset.storage.local_file(media_key("proxies", video_id, ".mp4")) as proxy:
            for second in seconds:
                try:
                    pictures[second] = base64.b64encode(proxy_jpeg(proxy, second, _PICTURE_WIDTH)).decode()
                except Failed:
                    continue
    except FileNotFoundError:
        return {}
    return pictures


def _card(shown: Shown, task: Task | None, pictures: Iterable[Picture], cited: Sequence[ClipCaption]) -> Card:
    reads = {*(task.reads if task else ()), "summary"}
    captions = tuple(
        Caption(
            start=caption.start,
            end=caption.end,
            fields=tuple((name, getattr(caption, name)) for name in CAPTION_FIELDS if name in reads),
        )
        for caption in cited[:_CAPTIONS_EACH]
    )
    return Card(
        shown=shown,
        name=task.name if task else shown.pair.task,
        pictures=tuple(pictures),
        captions=captions,
        more_captions=max(0, len(cited) - _CAPTIONS_EACH),
    )
