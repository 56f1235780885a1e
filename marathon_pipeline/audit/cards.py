"""Each QA pair of the sample with what a reader needs to judge it: pictures of its evidence, captions, its prompt."""

import base64
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.audit.statistics import bound_in_words, plain
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.journal import Journal
from marathon_pipeline.dataset.proxies import Proxies
from marathon_pipeline.errors import Failed
from marathon_pipeline.gates import NUMBERS, Gates
from marathon_pipeline.media.proxy import proxy_jpeg
from marathon_pipeline.records import CAPTION_FIELDS, ClipCaption, QAPair, Span
from marathon_pipeline.taxonomy import Taxonomy

_PICTURE_WIDTH = 256  # pixels
_PICTURES_EACH = (2, 4)
_PICTURES = (
    320  # in all, where the sample is large; with the bytes of them it keeps the page light enough to send around
)
_PICTURE_BYTES = 2_400_000
_FRAME_AT = 0.4  # within its second, as segmentation takes it for the proxy
_CAPTIONS_EACH = 4
_PROMPT_ENDS = (3_000, 1_500)  # characters shown of a long prompt, of its beginning and of its end
_CAPTION_CHARACTERS = 1_500  # of one field
_TEXT_BYTES = 700_000  # of captions and prompts in all, as the page escapes them


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
class Number:
    """A number of a verdict, `bound`: what the gates ask of it, in words."""

    name: str
    value: float
    bound: str
    doubted: bool  # it is what this pair is shown for
    outside: bool


@dataclass(frozen=True)
class Card:
    """`kinds`: why it is shown, of `doubtful`, `random` and `rejected`. `prompt`: that it was written by, if any."""

    shown: Shown
    name: str  # of the task
    kinds: tuple[str, ...]
    numbers: tuple[Number, ...]
    pictures: tuple[Picture, ...]
    captions: tuple[Caption, ...]
    more_captions: int
    prompt: str


@dataclass
class _Chosen:
    shown: Shown
    kinds: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)  # numbers


def cards(dataset: Dataset, taxonomy: Taxonomy, gates: Gates, sampler: Sampler) -> list[Card]:
    """A card for each QA pair sampled: doubtful ones, the others in the order of the tasks, those with problems."""
    sample = _sample(taxonomy, sampler)
    least, most = _PICTURES_EACH
    each = max(least, min(most, _PICTURES // max(1, len(sample))))
    by_video: defaultdict[str, list[_Chosen]] = defaultdict(list)
    for chosen in sample:
        by_video[chosen.shown.pair.video_id].append(chosen)
    made: dict[str, Card] = {}
    proxies = Proxies(dataset.storage)
    picture_bytes, text_bytes = _PICTURE_BYTES, _TEXT_BYTES
    for video_id, of_video in sorted(by_video.items()):
        pairs = [chosen.shown.pair for chosen in of_video]
        wanted = {pair.qa_id: seconds_shown(pair.evidence, each) for pair in pairs}
        pictures = _pictures(proxies, video_id, sorted({second for seconds in wanted.values() for second in seconds}))
        captions = {caption.clip_id: caption for caption in dataset.tables.read(ClipCaption, video_id)}
        prompts = _prompts(dataset, video_id, pairs)
        for chosen, pair in zip(of_video, pairs, strict=True):
            own = [Picture(second, pictures[second]) for second in wanted[pair.qa_id] if second in pictures]
            picture_bytes -= sum(len(picture.jpeg) * 3 // 4 for picture in own)
            cited = [captions[clip_id] for clip_id in pair.clip_ids if clip_id in captions]
            task = taxonomy.tasks.get(pair.task)
            reads = {*(task.reads if task else ()), "summary"}
            notes, prompt = (
                [_caption(caption, reads) for caption in cited[:_CAPTIONS_EACH]],
                prompts.get(pair.qa_id, ""),
            )
            said = (text for note in notes for _, text in note.fields)
            text_bytes -= sum(len(escape(text).encode()) for text in (prompt, *said))
            if text_bytes < 0:
                notes, prompt = [], ""
            made[pair.qa_id] = Card(
                shown=chosen.shown,
                name=task.name if task else pair.task,
                kinds=tuple(chosen.kinds),
                numbers=tuple(_numbers(chosen, gates)),
                pictures=tuple(own) if picture_bytes > 0 else (),
                captions=tuple(notes),
                more_captions=len(cited) - len(notes),
                prompt=prompt,
            )
    return [made[chosen.shown.pair.qa_id] for chosen in sample]


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


def _pictures(proxies: Proxies, video_id: str, seconds: Iterable[int]) -> dict[int, str]:
    """Those of the wanted seconds that the video's proxy, where it is still kept, has a picture of."""
    pictures = {}
    storage, key = proxies.of(video_id)
    try:
        with storage.local_file(key) as proxy:
            for second in seconds:
                try:
                    pictures[second] = base64.b64encode(proxy_jpeg(proxy, second, _PICTURE_WIDTH)).decode()
                except Failed:
                    continue
    except FileNotFoundError:
        return {}
    return pictures


def _sample(taxonomy: Taxonomy, sampler: Sampler) -> list[_Chosen]:
    found: dict[str, _Chosen] = {}

    def choose(shown: Shown, kind: str) -> _Chosen:
        chosen = found.setdefault(shown.pair.qa_id, _Chosen(shown))
        if kind not in chosen.kinds:
            chosen.kinds.append(kind)
        return chosen

    for shown, number in sampler.doubtful():
        choose(shown, "doubtful").doubts.append(number)
    for task in taxonomy.tasks:
        for shown in sampler.of_task(task):
            choose(shown, "random")
    for shown in sampler.rejected():
        choose(shown, "rejected")
    return list(found.values())


def _numbers(chosen: _Chosen, gates: Gates) -> Iterator[Number]:
    for name in NUMBERS:
        value, bound = getattr(chosen.shown.verdict, name), gates.items.bounds.get(name)
        if value is None:  # not measured
            continue
        yield Number(
            name=name,
            value=value,
            bound=bound_in_words(bound.least, bound.most, plain) if bound else "",
            doubted=name in chosen.doubts,
            outside=bound is not None and not bound.holds(value),
        )


def _prompts(dataset: Dataset, video_id: str, pairs: Iterable[QAPair]) -> dict[str, str]:
    """The beginning and the end of what a served model was asked for each pair, where one wrote it."""
    asked = {pair.qa_id: pair.binding.request for pair in pairs if pair.binding.request}
    if not asked:
        return {}
    known = Journal(dataset.storage, "qa", video_id).prompts()
    return {qa_id: _shortened(known[request]) for qa_id, request in asked.items() if request in known}


def _shortened(prompt: str) -> str:
    first, last = _PROMPT_ENDS
    left_out = len(prompt) - first - last
    return prompt if left_out <= 0 else f"{prompt[:first]}\n[… {left_out:,} characters …]\n{prompt[-last:]}"


def _caption(caption: ClipCaption, reads: Collection[str]) -> Caption:
    fields = tuple((name, getattr(caption, name)[:_CAPTION_CHARACTERS]) for name in CAPTION_FIELDS if name in reads)
    return Caption(start=caption.start, end=caption.end, fields=fields)
