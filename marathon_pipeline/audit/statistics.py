"""What is counted over a whole dataset, as the report tells it."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.intervals import wilson
from marathon_pipeline.records import Format, Judged, JudgedMeasure, Planted

Held = Literal["holds", "broken", "not judged"]  # of a gate


class _Counted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Histogram(_Counted):
    """counts[i]: the values from edges[i] up to the next edge, the last one without an upper end."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class SourceCount(_Counted):
    videos: int
    seconds: float
    qa: int


class TaskCount(_Counted):
    task: str
    name: str
    topic: str
    open: int
    choice: int
    wanted_open: int  # what the template asks of the videos that reached this task
    wanted_choice: int
    accepted: int  # without problems
    interval: tuple[float, float]  # 95 %, of the share that is accepted
    problems: dict[str, int]
    not_asked: dict[str, int]  # videos that the task was not asked of, by reason
    failed: dict[str, int]

    @property
    def qa(self) -> int:
        return self.open + self.choice


class TopicCount(_Counted):
    topic: str
    qa: int
    share: float
    published: float  # its share in VideoMarathon
    accepted: int
    interval: tuple[float, float]  # 95 %, of the share that is accepted


class TryCount(_Counted):
    """QA pairs by how often another one was asked for in the place of a rejected one, until these came."""

    tries: int
    qa: int
    accepted: int


class Letters(_Counted):
    counts: dict[str, int]
    chi_square: float
    p: float  # how likely letters drawn evenly are to be at least this uneven

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Letters":
        """The chi-square test against equal shares of four letters: three degrees of freedom, in closed form."""
        expected = sum(counts.values()) / len(counts)
        chi = sum((count - expected) ** 2 for count in counts.values()) / expected if expected else 0.0
        p = math.erfc(math.sqrt(chi / 2)) + math.sqrt(2 * chi / math.pi) * math.exp(-chi / 2)
        return cls(counts=dict(counts), chi_square=round(chi, 4), p=round(p, 6))


class LongestOption(_Counted):
    """Among multiple-choice questions of which one option is longer than all others."""

    questions: int
    right: int
    share: float


class Repeats(_Counted):
    """QA pairs that are equal but for case, spaces and punctuation."""

    groups: int
    pairs: int
    share: float


class Duplicates(_Counted):
    within: Repeats  # same question and options in the same format and video, whatever the answer
    across: Repeats  # same question, options and answer in several videos; once a video
    distinct_questions: int
    near_within: Repeats  # of one task, and nearly the same question, options and answer (`audit.near`)
    near_across: Repeats  # the same in several videos


class Evidence(_Counted):
    spans: int
    span_seconds: Histogram
    touched: tuple[float, ...]  # per tenth of the video: the share of QA pairs whose evidence reaches into it
    covered: float  # mean share of a video that the evidence of its QA covers, without pairs about all of it


class Survival(_Counted):
    """Videos by how much of what is said on one level of their captions the next one keeps (`audit.survival`)."""

    by_events: Histogram  # shares of the clips' captions
    by_summary: Histogram  # shares of the events' captions
    low: int  # videos that keep too little


class CommonestCaption(_Counted):
    """The caption of a clip that is the most frequent of all: its summary, and how many clips bear it."""

    summary: str
    clips: int


class StageEnd(_Counted):
    """entered = ok + filtered + failed + waiting; in sources (`download`), videos, or videos times tasks."""

    stage: str
    entered: int  # what the stage before let through
    ok: int
    filtered: dict[str, int]
    failed: dict[str, int]
    waiting: int


class Check(_Counted):
    """A gate, for the whole dataset or for one group of it. `low` to `high`: the interval that holds the value.

    `why` it is not judged; empty where it is.
    """

    name: str  # of what is measured
    by: str  # `task` and so on; empty for the whole
    group: str
    says: str
    value: float
    low: float
    high: float
    least: float | None
    most: float | None
    counted: int  # what the value rests on
    found: str  # the value and its bound as a person reads them
    bound: str
    state: Held
    why: str = ""

    @property
    def broken(self) -> bool:
        return self.state == "broken"

    def __str__(self) -> str:
        return f"{self.label}: {self.found}, {self.bound}"

    @property
    def label(self) -> str:
        return f"{self.name} of {self.by} {self.group or 'not stated'}" if self.by else self.name


class SoundShare(_Counted):
    """What people found sound, with its 95 % interval. `covers`: the share of the pairs that it speaks of."""

    share: float
    low: float
    high: float
    judged: int
    covers: float


class ReviewStratum(_Counted):
    """The pairs of one task and format that pass the gates for items, and those among them that two people judged.

    replaced: those written in the place of rejected ones, or those of the first time, which these stood among.
    """

    task: str
    format: Format
    replaced: bool
    pairs: int
    judged: int
    sound: int
    agreed: int


class Agreement(_Counted):
    """Of two reviewers, over the pairs that both judged, each blind to the other."""

    reviewers: tuple[str, str]
    judged: int
    agreed: int
    kappa: float | None  # Cohen's; none where both always said the same word


class Signer(_Counted):
    name: str
    reviewed: int
    adjudicated: int
    first: str  # dates
    last: str


class Reviewed(_Counted):
    """What people judged of the pairs that are there now, and what they rejected and was replaced since."""

    whole: SoundShare
    tasks: dict[str, SoundShare]
    strata: tuple[ReviewStratum, ...]
    agreement: tuple[Agreement, ...]
    signers: tuple[Signer, ...]
    reasons: dict[str, int]  # of the pairs rejected
    disputed: int  # pairs that wait for an adjudication
    half: int  # pairs that one person has judged
    replaced: int  # of those judged: rejected, and replaced since
    gone: int  # pairs that were judged and are no longer there as they were, or no longer pass the gates


class Rate(_Counted):
    """How many of the answers planted were taken for right, with the 95 % interval of their share."""

    planted: int
    accepted: int
    share: float
    low: float
    high: float


class Against(_Counted):
    """Wrong answers of one kind. `better`: how much oftener right ones are accepted (Youden's J), with its 99.9 %
    interval: one that tosses a coin shall not pass by the number of its tosses.
    """

    planted: Planted
    accepted: Rate
    better: float
    low: float
    high: float

    @property
    def beats_chance(self) -> bool:
        return self.low > 0


class Calibrated(_Counted):
    """What is known of a judge's errors in one measure."""

    measure: JudgedMeasure
    right: Rate
    wrong: tuple[Against, ...]


class JudgedTask(_Counted):
    """By what a judge said of all its pairs, rejected ones too; a share with its 95 % interval, none where none is."""

    task: str
    name: str
    blind: Rate | None
    grounded: Rate | None
    judged: dict[Judged, int]


class JudgeReport(_Counted):
    """What a served model said of the pairs, and how far it can be trusted."""

    model: str  # that judged last
    total: JudgedTask
    tasks: tuple[JudgedTask, ...]
    calibrated: tuple[Calibrated, ...]
    corrected: dict[JudgedMeasure, float]  # shares that are right, the judge's errors taken into account
    unjudged: int  # pairs
    idle: tuple[str, ...]  # gates of pairs and of the dataset that do not count: the judge is not shown to beat chance


class Statistics(_Counted):
    """All of a dataset's finished videos. Words, letters, duplicates and evidence are those of accepted pairs."""

    videos: int
    sources: int
    seconds: float
    qa: int
    accepted: int
    unverified: int  # QA pairs without a verdict
    annotators: dict[str, int]  # QA pairs by who wrote them
    benchmarks: dict[str, int]  # sources that a list of a benchmark names too, by benchmark
    benchmark_lists: dict[str, int]  # entries of each list that was given
    data_sources: dict[str, SourceCount]
    topics: tuple[TopicCount, ...]
    tasks: tuple[TaskCount, ...]
    tries: tuple[TryCount, ...]
    problems: dict[str, int]
    letters: Letters
    longest_option: LongestOption
    question_words: Histogram
    answer_words: Histogram
    duplicates: Duplicates
    evidence: Evidence
    video_minutes: Histogram
    events: Histogram  # per video
    mean_events: float
    commonest_caption: CommonestCaption
    survival: Survival
    stages: tuple[StageEnd, ...]
    reviewed: Reviewed
    checks: tuple[Check, ...]
    judge: JudgeReport | None = None  # none: no pair was judged


def share(part: float, whole: float) -> float:
    return round(part / whole, 6) if whole else 0.0


def interval(part: int, whole: int) -> tuple[float, float]:
    """`wilson`, as a report tells it."""
    low, high = wilson(part, whole)
    return round(low, 6), round(high, 6)


def bound_in_words(least: float | None, most: float | None, show: Callable[[float], str]) -> str:
    """`at least 0.9`, `at most 40 %`, or both."""
    ends = (("at least", least), ("at most", most))
    return ", ".join(f"{word} {show(end)}" for word, end in ends if end is not None)


def plain(value: float) -> str:
    """`12,345`, `0.031`."""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:,.3g}"


def percent(value: float) -> str:
    """Of a share: `30.2 %`, `25 %`."""
    return f"{round(100 * value, 1):g} %"
