"""What the counts of a dataset come to, and how that stands beside its gates."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from marathon_pipeline.audit.statistics import Check, Letters, percent, plain, share, wilson
from marathon_pipeline.gates import DatasetGate, DatasetMeasure, Gates, Grouping
from marathon_pipeline.records import LETTERS
from marathon_pipeline.taxonomy import Taxonomy


class Cell(NamedTuple):
    """QA pairs that no gate tells apart."""

    task: str
    format: str
    source: str
    template: int


Cells = Mapping[Cell, Counter[str]]


class Measure(NamedTuple):
    """value: of the summed counts of cells; counted: how many pairs it rests on."""

    says: str
    show: Callable[[float], str]
    value: Callable[[Counter[str]], float]
    counted: Callable[[Counter[str]], int]
    interval: bool = False  # whether chance moves it, so that it is told with the interval of a share


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
    "benchmark_videos": Measure(
        "Sources that a list of a benchmark names too.", plain, lambda c: c["benchmark"], lambda c: c["sources"]
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


def judged(gates: Gates, cells: Cells, whole: Counter[str], taxonomy: Taxonomy) -> tuple[Check, ...]:
    """One check for each gate and group. `whole`: counts that have no groups."""
    return tuple(check for gate in gates.dataset for check in _of_gate(gate, cells, whole, taxonomy))


def _of_gate(gate: DatasetGate, cells: Cells, whole: Counter[str], taxonomy: Taxonomy) -> Iterator[Check]:
    measure = MEASURES[gate.measure]
    groups = grouped(cells, gate.by, taxonomy) if gate.by else {"": summed(cells.values()) + whole}
    for name, counts in sorted(groups.items()):
        counted = measure.counted(counts)
        if counted < gate.fewest and gate.by:
            continue
        value = measure.value(counts)
        low, high = wilson(round(value * counted), counted) if measure.interval else (value, value)
        bounds = [f"{word} {measure.show(bound)}" for word, bound in (("at least", gate.least), ("at most", gate.most))
                  if bound is not None]  # fmt: skip
        yield Check(
            name=gate.measure,
            by=gate.by or "",
            group=name,
            says=measure.says,
            value=value,
            counted=counted,
            found=measure.show(value) + (f" ({percent(low)} to {percent(high)})" if low < high else ""),
            bound=", ".join(bounds),
            ok=counted < gate.fewest or gate.may_hold(low, high),
        )


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
