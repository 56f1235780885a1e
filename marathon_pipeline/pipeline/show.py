"""One video as a person reads it: its caption tree and its QA."""

from collections.abc import Iterator

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import LETTERS, ClipCaption, Event, QAPair, Record, Summary, Verdict, Video


class Tree(Record):
    """All that was written about a video."""

    video: Video
    summary: Summary | None
    events: tuple[Event, ...]
    captions: tuple[ClipCaption, ...]
    qa: tuple[QAPair, ...]
    verdicts: tuple[Verdict, ...]
    rejected: dict[str, tuple[str, ...]]  # pairs that no release takes, by id, and why


def tree(dataset: Dataset, video_id: str, gates: Gates) -> Tree:
    owner = next((o.video_id for o in dataset.ledger.of_stage("download") if video_id in o.videos), "")
    videos = [video for video in dataset.tables.read(Video, owner) if video.video_id == video_id] if owner else []
    if not videos:
        known = [o.videos[0] for o in dataset.ledger.of_stage("download") if o.videos][:3]
        hint = f"such as {', '.join(known)}" if known else "the dataset is empty"
        raise UserError(f"{video_id}: no such video in {dataset.url} ({hint})")
    read, by_people = dataset.tables.read, dataset.reviews().rejected(video_id)
    qa, verdicts = read(QAPair, video_id), read(Verdict, video_id)
    of_pair = {verdict.qa_id: verdict for verdict in verdicts}
    reasons = {pair.qa_id: gates.rejects(pair, of_pair.get(pair.qa_id), by_people) for pair in qa}
    return Tree(
        video=videos[0],
        summary=next(iter(read(Summary, video_id)), None),
        events=tuple(read(Event, video_id)),
        captions=tuple(read(ClipCaption, video_id)),
        qa=tuple(qa),
        verdicts=tuple(verdicts),
        rejected={qa_id: why for qa_id, why in reasons.items() if why},
    )


def lines(found: Tree) -> Iterator[str]:
    video = found.video
    yield f"{video.video_id}  {_clock(video.seconds)}  {video.width}x{video.height} {video.codec}"
    if found.summary:
        yield f"\n{found.summary.text}"
    for event in found.events:
        yield f"\n{_clock(event.start)}-{_clock(event.end)}  {event.title}\n  {event.caption}"
        for caption in found.captions:
            if caption.clip_id in event.clip_ids:
                yield f"    {_clock(caption.start)}-{_clock(caption.end)}  {caption.summary}"
    for pair in found.qa:
        spans = ", ".join(f"{_clock(span.start)}-{_clock(span.end)}" for span in pair.evidence)
        wrong = f"  REJECTED: {', '.join(found.rejected[pair.qa_id])}" if pair.qa_id in found.rejected else ""
        yield f"\n[{pair.task}, {pair.format}, {spans}]{wrong}\n  Q: {pair.question}"
        yield from (f"     {letter}. {option}" for letter, option in zip(LETTERS, pair.options, strict=False))
        yield f"  A: {f'{pair.letter}. ' if pair.letter else ''}{pair.answer}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
