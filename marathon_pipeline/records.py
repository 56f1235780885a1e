"""What flows through the pipeline: one class per kind of record, all frozen and validated.

Times are seconds from the start of the video (a part of a source starts at its own zero) unless a field says otherwise.
Positions and sizes are fractions of the picture's width and height, with (0, 0) at its upper left corner.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test"]
Format = Literal["open", "choice"]
Status = Literal["ok", "filtered", "failed"]
Judged = Literal["right", "wrong", "vague"]  # what a judge says of an open-ended answer
JudgedMeasure = Literal["blind", "grounded", "judged"]
Planted = Literal["right", "specific", "vague"]  # the last two are wrong: definite, and true of anything
Colour = Literal["black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"]
Shape = Literal["circle", "square", "triangle", "bar", "thing"]  # `thing`: compact, but of no nameable outline
Camera = Literal["still", "left", "right", "up", "down", "unsteady"]  # where the camera turns
LETTERS = "ABCD"


class Record(BaseModel):
    """One row. `table` names the table it lives in; `unhashed` the columns that carry no meaning (`content_hash`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    table: ClassVar[str] = ""
    unhashed: ClassVar[frozenset[str]] = frozenset()


class Span(Record):
    start: float
    end: float


class Source(Record):
    """What a manifest row names. `segments`: the known segments to use, in the source's own time; none: all of it."""

    table: ClassVar[str] = "sources"

    source_id: str
    data_source: str = ""  # the collection it comes from, such as `panda-70m`
    url: str = ""
    path: str = ""  # a local file, absolute; of `url` and `path` exactly one is set
    licence: str = ""
    licence_evidence: str = ""
    opt_out: str = ""  # who asked that it is not used, where and when: it is listed, and never fetched
    split: Split | None = None
    segments: tuple[Span, ...] = ()
    metadata: str = "{}"  # the row's free columns, a JSON object
    sha256: str = ""  # of a local file, with the size and mtime that it was read at
    bytes: int = 0
    mtime_ns: int = 0


class Video(Record):
    """What is processed: a source, or a part of it (a known segment, or 60 minutes at most)."""

    table: ClassVar[str] = "videos"
    unhashed: ClassVar[frozenset[str]] = frozenset({"file", "channels"})

    video_id: str
    source_id: str
    start: float  # in the source
    end: float  # in the source, by its header: what the decoder finds is in the clips
    file: str  # a local path, or a key within the dataset's storage
    sha256: str
    bytes: int
    width: int  # as shown: after rotation, in square pixels
    height: int
    fps: float  # 0: not stated
    codec: str
    channels: tuple[str, ...] = ()  # whom its site names as the channel or the uploader, for takedown

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Clip(Record):
    """One window of a video, the unit that is captioned."""

    table: ClassVar[str] = "clips"

    video_id: str
    clip_id: str  # unique within its video
    start: float
    end: float
    shots: tuple[Span, ...]  # the shots in it, cut to the window
    frame_hashes: tuple[str, ...]  # 64-bit difference hash of each second's frame, 16 hex digits


class ColourShares(Record):
    """The share of the picture that each colour name covers, 0 to 1; they add up to 1."""

    black: float = 0.0
    white: float = 0.0
    grey: float = 0.0
    red: float = 0.0
    orange: float = 0.0
    yellow: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    purple: float = 0.0
    pink: float = 0.0
    brown: float = 0.0


class Thing(Record):
    """A compact, strongly coloured region that stands out from what surrounds it, in one second's frame."""

    colour: Colour
    shape: Shape
    x: float  # centre
    y: float
    width: float
    height: float
    area: float  # share of the picture


class Signals(Record):
    """What was measured in one second of a video, on the frame that the proxy holds for that second."""

    table: ClassVar[str] = "signals"

    video_id: str
    second: int
    shot: int  # index of the shot, from 0
    frame_hash: str
    brightness: float  # mean luma, 0 to 1
    colours: ColourShares
    upper: Colour  # the colour that covers most of the upper half, things left out
    lower: Colour
    upper_share: float  # how much of the half it covers, 0 to 1
    lower_share: float
    motion: (
        float  # mean absolute luma change between neighbouring frames at 5 a second, camera movement taken out, 0 to 1
    )
    motion_grid: tuple[float, ...]  # the same by cell of a 3 x 3 grid, row by row
    camera: Camera
    things: tuple[Thing, ...]  # largest first


class Binding(Record):
    """What a written text was made from, and by whom."""

    annotator: str  # model name and revision; `measured/<version>` offline
    template_version: int
    request: str  # sha256 of the whole request
    frames: str = ""  # sha256 over the hashes of the frames shown
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Fact(Record):
    """A measured statement about a stretch of a video, from which text and answers are derived.

    subject: who or what; other: the second party; value: what is said of the subject; see `annotators/measured`.
    """

    kind: str
    start: float
    end: float
    subject: str = ""
    other: str = ""
    value: str = ""
    amount: float = 0.0


CAPTION_FIELDS = ("temporality", "spatiality", "object", "action", "scene", "summary")  # of a clip


class ClipCaption(Record):
    """The six fields of a clip's caption (VideoMarathon, clip level); `facts` only where they were measured."""

    table: ClassVar[str] = "clip_captions"
    unhashed: ClassVar[frozenset[str]] = frozenset({"binding"})

    video_id: str
    clip_id: str
    start: float
    end: float
    temporality: str
    spatiality: str
    object: str
    action: str
    scene: str
    summary: str
    facts: tuple[Fact, ...] = ()
    binding: Binding


class Event(Record):
    table: ClassVar[str] = "events"
    unhashed: ClassVar[frozenset[str]] = frozenset({"binding"})

    video_id: str
    event_id: str
    start: float
    end: float
    title: str
    caption: str
    clip_ids: tuple[str, ...]
    binding: Binding


class Summary(Record):
    """The global caption of a video: one narrative without timestamps."""

    table: ClassVar[str] = "summaries"
    unhashed: ClassVar[frozenset[str]] = frozenset({"binding"})

    video_id: str
    text: str
    binding: Binding


class QAPair(Record):
    """One question with its answer. `options` and `letter` are empty for an open-ended one."""

    table: ClassVar[str] = "qa"
    unhashed: ClassVar[frozenset[str]] = frozenset({"binding", "tries", "instead_of"})

    qa_id: str
    video_id: str
    task: str
    topic: str
    format: Format
    question: str
    options: tuple[str, ...] = ()
    answer: str
    letter: str = ""
    evidence: tuple[Span, ...]
    clip_ids: tuple[str, ...]  # the clips that the evidence was read in
    binding: Binding
    tries: int = 0  # how often another pair was asked for in the place of a rejected one, until this one came
    instead_of: tuple[str, ...] = ()  # ids of the pairs that stood in its place before, the first one first

    @staticmethod
    def id_of(video_id: str, task: str, format: Format, question: str, options: Iterable[str], answer: str) -> str:
        """The id of a QA pair is its content: a verdict can never slide onto another text."""
        return digest([video_id, task, format, question, list(options), answer])[:24]


class Features(Record):
    """The cached features of a video, which lie in a file of their own."""

    table: ClassVar[str] = "features"

    video_id: str
    fingerprint: str  # of the settings that they were made by
    proxy: str  # sha256 of the proxy that they are of
    frames: int
    tokens: int  # a frame
    dim: int
    sha256: str  # of the file
    bytes: int


class Verdict(Record):
    """All that was measured about one QA pair. `problems` names the measures it fails: none, and it may be released."""

    table: ClassVar[str] = "verdicts"

    qa_id: str
    video_id: str
    task: str
    problems: tuple[str, ...]
    question_words: int
    answer_words: int
    option_length_ratio: float  # longest option over shortest, in characters; 0 for an open-ended pair
    evidence_seconds: float
    said_off_seconds: float = 0.0  # from the farthest time that the question or the answer names to the evidence
    ways_apart: int = 0  # in which the right option looks otherwise than all others; 0 for an open-ended pair
    option_leak: float = (
        0.0  # share of the right option's words that the question says, where it says less of the others
    )
    answer_leak: float = 0.0  # share of the answer's words that the question says; 0 where there are options
    foreign: float = 0.0  # how sure it is that a text of it is in another language than the templates, 0 to 1
    # By a served model, where the job names a judge; None: not measured.
    blind_right: float | None = None  # share of the orders of the options that are answered right without the video
    grounded_right: float | None = None  # 1 where the captions of the evidence lead to the right option, else 0
    judged: Judged | None = None  # an open-ended answer, by the captions of the evidence
    unjudged: str = ""  # why one of these could not be measured


class Calibration(Record):
    """What a judge made of an answer whose worth is known because it was planted."""

    table: ClassVar[str] = "calibrations"
    unhashed: ClassVar[frozenset[str]] = frozenset({"binding"})

    qa_id: str  # of the pair that it was made from
    video_id: str
    task: str
    measure: JudgedMeasure
    planted: Planted
    accepted: bool  # whether it was taken for right
    binding: Binding


class Usage(Record):
    """What a model was asked for a piece of work, from its first request on: repairs and earlier runs count."""

    model: str
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens, those that the server had computed before, where it says so
    completion_tokens: int = 0
    seconds: float = 0.0  # waited for answers
    gpu_seconds: float = 0.0  # of the server, its time shared among the requests that it works on at once


class Outcome(Record):
    """How one stage's work on one video ended; a line of the ledger. `part`: in `qa` and `verify` the task."""

    video_id: str  # the source's id in `download`
    stage: str
    part: str = ""
    status: Status
    reason: str = ""
    message: str = ""
    transient: bool = False
    host: str = ""  # where it failed
    attempts: int = 1
    seconds: float = 0.0
    began: float = 0.0  # in `download` of a URL: when it did, in seconds since 1970
    since: float = 0.0  # in `download` of a URL: the first time that it ended so
    retry_after: float = 0.0  # for how many seconds the server asked to be left alone
    fingerprint: str
    content: str = ""  # content hash of the rows written
    items: int = Field(default=0, ge=0)
    videos: tuple[str, ...] = ()  # in `download`: the ids of the videos that the source holds
    video_seconds: float = 0.0  # length of the video worked on, where the stage knows it
    lost: dict[str, int] = {}  # what was written and came to no good, by reason
    tallies: dict[str, int] = {}  # what the rows written come to, for who reads the ledger alone
    judge: str = ""  # in `verify` and `calibrate`: the name of the annotator that judged
    probed: int = 0  # clips that were captioned again, to see whether their pictures were mixed up
    usage: tuple[Usage, ...] = ()
    rounds: tuple[int, int] = (0, 0)  # the first and the last time that served models were asked anew, see `Answers`
    tries: int = 0  # in `qa`: how often rejected pairs were asked for anew since all of them were written


R = TypeVar("R", bound=Record, covariant=True)
R2 = TypeVar("R2", bound=Record)


class Packed(Sequence[R]):
    """Rows kept as JSON and read back one at a time: an hour of signals takes a tenth of the memory of its objects."""

    def __init__(self, rows: Iterable[R]) -> None:
        self._rows = [(type(row), row.model_dump_json().encode()) for row in rows]

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            return [record.model_validate_json(data) for record, data in self._rows[index]]
        record, data = self._rows[index]
        return record.model_validate_json(data)

    def __iter__(self) -> Iterator[R]:
        return (record.model_validate_json(data) for record, data in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self._rows == other._rows

    def __add__(self, other: "Packed[Record]") -> "Packed[Record]":
        both = Packed[Record](())
        both._rows = [*self._rows, *other._rows]
        return both

    def only(self, kind: type[R2]) -> Iterator[R2]:
        """Its rows of one kind; no other is read back."""
        return (record.model_validate_json(data) for record, data in self._rows if issubclass(record, kind))


def only(rows: Iterable[Record], kind: type[R2]) -> Iterator[R2]:
    """The rows of one kind."""
    return rows.only(kind) if isinstance(rows, Packed) else (row for row in rows if isinstance(row, kind))


def merged(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """The union of spans, in order; those at most `gap` seconds apart become one."""
    return [Span(start=start, end=end) for start, end in union(((span.start, span.end) for span in spans), gap)]


def union(stretches: Iterable[tuple[float, float]], gap: float = 0.0) -> list[tuple[float, float]]:
    """The same of starts and ends."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if found and start <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def digest(value: object) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def digests(values: Sequence[object], count: int) -> Iterator[bytes]:
    """The digests of `[*values, 0]`, `[*values, 1]` and so on, as bytes; what they have in common is hashed once."""
    text = _canonical(values)
    common = hashlib.sha256(text[:-1].encode())
    for index in range(count):
        hasher = common.copy()
        hasher.update(b",%d]" % index)
        yield hasher.digest()


def content_hash(rows: Iterable[Record]) -> str:
    """A hash of rows over the columns that carry meaning: not over token counts, paths or times of day."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(row.table.encode())
        hasher.update(row.model_dump_json(exclude=set(row.unhashed)).encode() + b"\n")
    return hasher.hexdigest()
