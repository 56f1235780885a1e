"""What the counts of a dataset come to, and how that stands beside its gates."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from marathon_pipeline.audit.reviewed import sound_share
from marathon_pipeline.audit.statistics import (
    Check,
    Held,
    Letters,
    ReviewStratum,
    bound_in_words,
    percent,
    plain,
    share,
)
from marathon_pipeline.gates import DatasetGate, DatasetMeasure, Gates, Grouping
from marathon_pipeline.intervals import wilson
from marathon_pipeline.records import LETTERS
from marathon_pipeline.taxonomy import Taxonomy


class Cell(NamedTuple):
    """QA pairs that no gate tells apart."""

    task: str
    format: str
    source: str
    template: int
    tries: int = 0


Cells = Mapping[Cell, Counter[str]]


class Measure(NamedTuple):
    """value: of the summed counts of cells; counted: how many pairs it rests on; absent: why that may be none.

    largest_of: so many shares, of which each could have been the value.
    """

    says: str
    show: Callable[[float], str]
    value: Callable[[Counter[str]], float]
    counted: Callable[[Counter[str]], int]
    interval: bool = False  # whether chance moves it, so that it is told with the interval of a share
    absent: str = ""
    largest_of: int = 1


def _share(part: str, whole: str) -> tuple[Callable[[Counter[str]], float], Callable[[Counter[str]], int]]:
    return lambda counts: share(counts[part], counts[whole]), lambda counts: counts[whole]


def letters_of(counts: Mapping[str, int]) -> Letters:
    return Letters.of({letter: counts.get(letter, 0) for letter in LETTERS})


MEASURES: dict[DatasetMeasure, Measure] = {
    "waiting": Measure(
        "What a stage let through and the next one has not ended.", plain, lambda c: c["waiting"], lambda c: 1
    ),
    "unverified": Measure(
        "QA pairs of finished videos without a verdict.", plain, lambda c: c["unverified"], lambda c: c["qa"]
    ),
    "empty_tasks": Measure(
        "Tasks of which QA was written, and none of it is accepted.", plain, lambda c: c["empty_tasks"], lambda c: 1
    ),
    "accepted": Measure(
        "QA pairs that may be released: without a problem, and within the bounds of the gates.",
        percent,
        *_share("accepted", "qa"),
    ),
    "letters": Measure(
        "p value of the right letters, against equal shares.",
        plain,
        lambda c: letters_of(c).p,
        lambda c: sum(c[letter] for letter in LETTERS),
    ),
    "letter_share": Measure(
        "The share of the letter that is right most often; 25 % where all are so equally often.",
        percent,
        lambda c: share(max(c[letter] for letter in LETTERS), sum(c[letter] for letter in LETTERS)),
        lambda c: sum(c[letter] for letter in LETTERS),
        interval=True,
        largest_of=len(LETTERS),
    ),
    "longest_option": Measure(
        "How often the longest option is the right one; 25 % where length says nothing.",
        percent,
        *_share("longest_right", "longest"),
        interval=True,
    ),
    "central_option": Measure(
        "How often the option that shares most words with the others is the right one; 25 % where that says nothing.",
        percent,
        *_share("central_right", "central"),
        interval=True,
    ),
    "usual_answer": Measure(
        "How often the option that is right most often elsewhere in the task is right here too; 25 % is chance.",
        percent,
        *_share("usual_right", "usual"),
        interval=True,
    ),
    "repeated_questions": Measure(
        "QA pairs whose question and options another pair of the same video has too.",
        percent,
        *_share("repeated", "accepted"),
    ),
    "across_videos": Measure(
        "QA pairs that stand in another video too, word for word.", percent, *_share("across", "distinct")
    ),
    "near_duplicates": Measure(
        "QA pairs that nearly repeat another one of the same video and task.",
        percent,
        *_share("near_within", "accepted"),
    ),
    "near_across_videos": Measure(
        "QA pairs that nearly repeat one of another video, of the same task.",
        percent,
        *_share("near_across", "accepted"),
    ),
    "delivered": Measure(
        "QA pairs written, of those that the templates ask for of the videos that reached their task.",
        percent,
        *_share("qa", "wanted"),
    ),
    "off_topic": Measure(
        "QA pairs that would have to be of another topic, for the shares of topics to be VideoMarathon's.",
        percent,
        *_share("off_topic", "qa"),
    ),
    "caption_gaps": Measure(
        "Videos of which the captions of clips, or the events, leave out more than a tenth.",
        percent,
        *_share("gappy", "videos"),
    ),
    "commonest_caption": Measure(
        "Clips that bear the most frequent caption of all: a captioner that is stuck says one thing of everything.",
        percent,
        *_share("commonest", "captions"),
    ),
    "commonest_clips": Measure(
        "How many clips bear the most frequent caption of all: of very many clips a small share is a multitude.",
        plain,
        lambda c: c["commonest"],
        lambda c: c["captions"],
    ),
    "mean_events": Measure("Events to a video.", plain, *_share("events", "videos")),
    "few_events": Measure(
        "Videos of fewer than three events, which VideoMarathon leaves out.", percent, *_share("few_events", "videos")
    ),
    "lost_facts": Measure(
        "Videos of which the events keep little of what the clips say, or the global caption of what the events say.",
        percent,
        *_share("lossy", "videos"),
    ),
    "benchmark_videos": Measure(
        "Sources that a list of a benchmark names too.",
        plain,
        lambda c: c["benchmark"],
        lambda c: c["looked_up"],
        absent="no list given",
    ),
    "blind": Measure(
        "How often a judge who sees no video takes the right option; 25 % is chance.",
        percent,
        lambda c: share(c["blind_thousandths"], 1000 * c["blind_asked"]),
        lambda c: c["blind_asked"],
        interval=True,
    ),
    "grounded": Measure(
        "How often a judge takes the right option by the captions of the evidence.",
        percent,
        *_share("grounded", "grounded_asked"),
        interval=True,
    ),
    "judged_right": Measure(
        "Open-ended answers that a judge finds right by the captions of the evidence.",
        percent,
        *_share("judged_right", "judged"),
        interval=True,
    ),
    "judged_wrong": Measure(
        "Open-ended answers that a judge finds wrong by the captions of the evidence.",
        percent,
        *_share("judged_wrong", "judged"),
        interval=True,
    ),
    "judged_vague": Measure(
        "Open-ended answers that a judge finds to say nothing definite.",
        percent,
        *_share("judged_vague", "judged"),
        interval=True,
    ),
}


class Found(NamedTuple):
    """low, high: the ends of the value's 95 % interval; the value itself where chance does not move it."""

    value: float
    counted: int  # what it rests on
    low: float
    high: float


def _reviewed(strata: Sequence[ReviewStratum]) -> Found:
    count = sum(stratum.judged for stratum in strata)
    return Found(count, 1, count, count)


def _sound(strata: Sequence[ReviewStratum]) -> Found:
    found = sound_share(strata)
    return Found(found.share, found.judged, found.low, found.high)


def _agreed(strata: Sequence[ReviewStratum]) -> Found:
    agreed, both = sum(stratum.agreed for stratum in strata), sum(stratum.judged for stratum in strata)
    return Found(share(agreed, both), both, *wilson(agreed, both))


class OfReviews(NamedTuple):
    says: str
    show: Callable[[float], str]
    found: Callable[[Sequence[ReviewStratum]], Found]


REVIEW_MEASURES: dict[DatasetMeasure, OfReviews] = {
    "reviewed": OfReviews("QA pairs that two people judged, blind to each other.", plain, _reviewed),
    "reviewed_sound": OfReviews(
        "QA pairs that people found sound, each task and format weighted by its size.", percent, _sound
    ),
    "agreement": OfReviews("Of the pairs that two people judged, those on which they agree.", percent, _agreed),
}


def judged(
    gates: Gates, cells: Cells, whole: Counter[str], taxonomy: Taxonomy, strata: Sequence[ReviewStratum] = ()
) -> tuple[Check, ...]:
    """One check for each gate and group. `whole`: counts that have no groups; `strata`: what people judged."""
    return tuple(check for gate in gates.dataset for check in _of_gate(gate, cells, whole, taxonomy, strata))


def _of_gate(
    gate: DatasetGate, cells: Cells, whole: Counter[str], taxonomy: Taxonomy, strata: Sequence[ReviewStratum]
) -> Iterator[Check]:
    if gate.measure in REVIEW_MEASURES:
        of_reviews = REVIEW_MEASURES[gate.measure]
        says, show, absent = of_reviews.says, of_reviews.show, ""
        groups = {name: of_reviews.found(own) for name, own in _strata(strata, gate.by, taxonomy).items()}
    else:
        measure = MEASURES[gate.measure]
        says, show, absent = measure.says, measure.show, measure.absent
        counts = grouped(cells, gate.by, taxonomy) if gate.by else {"": summed(cells.values()) + whole}
        groups = {name: _found(measure, own) for name, own in counts.items()}
    for name, found in sorted(groups.items()):
        if found.counted < gate.fewest and gate.by:
            continue
        few = f"too few: {found.counted:,} of {gate.fewest:,}" if found.counted < gate.fewest else ""
        why = absent if few and not found.counted and absent else few
        held: Held = "holds" if gate.may_hold(found.low, found.high) else "broken"
        interval = f" ({percent(found.low)} to {percent(found.high)})" if found.low < found.high else ""
        yield Check(
            name=gate.measure,
            by=gate.by or "",
            group=name,
            says=says,
            value=found.value,
            low=round(found.low, 6),
            high=round(found.high, 6),
            least=gate.least,
            most=gate.most,
            counted=found.counted,
            found=f"{show(found.value)}{interval}" if found.counted else "nothing judged",
            bound=bound_in_words(gate.least, gate.most, show),
            state="not judged" if why else held,
            why=why,
        )


def _found(measure: Measure, counts: Counter[str]) -> Found:
    value, counted = measure.value(counts), measure.counted(counts)
    if not measure.interval:
        return Found(value, counted, value, value)
    z = NormalDist().inv_cdf(1 - 0.025 / measure.largest_of)  # for all of them at once (Bonferroni)
    return Found(value, counted, *wilson(round(value * counted), counted, z))


def _strata(strata: Sequence[ReviewStratum], by: Grouping | None, taxonomy: Taxonomy) -> dict[str, list[ReviewStratum]]:
    found: defaultdict[str, list[ReviewStratum]] = defaultdict(list)
    for stratum in strata:
        name = taxonomy.tasks[stratum.task].topic if by == "topic" else str(getattr(stratum, by)) if by else ""
        found[name].append(stratum)
    return dict(found) if by else {"": list(strata)}


def grouped(cells: Cells, by: Grouping, taxonomy: Taxonomy) -> dict[str, Counter[str]]:
    """The sums of the cells of each group."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for cell, counts in cells.items():
        name = taxonomy.tasks[cell.task].topic if by == "topic" else str(getattr(cell, by))
        if by == "template":
            name = f"{cell.task} {name}"
        found[name].update(counts)
    return dict(found)


def summed(counts: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
