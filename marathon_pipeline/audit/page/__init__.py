"""The page and the summary: what was found through the Jinja2 templates beside this file, with nothing fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from marathon_pipeline.audit.cards import Card
from marathon_pipeline.audit.compare import Comparison
from marathon_pipeline.audit.measures import OF_A_JUDGE, PROBLEMS
from marathon_pipeline.audit.statistics import Check, Histogram, Statistics, percent, plain
from marathon_pipeline.dataset.reviews import REASONS, REJECTED
from marathon_pipeline.taxonomy import Taxonomy, clock

_MARKED = 1_000  # characters of a text: finding what changed takes time by the square of it

_OF_REVIEWS = {REJECTED: "People judged it, and rejected it."}


@dataclass(frozen=True)
class Bar:
    start: float
    end: float | None  # none: without an upper end
    count: int


@dataclass(frozen=True)
class Gauge:
    """Where a gate's value lies between its bounds; all are shares of the gauge's length."""

    allowed: tuple[float, float]
    low: float
    high: float
    value: float


def render(
    statistics: Statistics, cards: Sequence[Card], taxonomy: Taxonomy, comparison: Comparison | None = None
) -> str:
    """The page as HTML, complete in itself, everything escaped."""
    return (
        _environment(autoescape=True)
        .get_template("report.html.jinja")
        .render(
            statistics=statistics,
            cards=cards,
            comparison=comparison,
            names=_names(taxonomy),
            problem_says=PROBLEMS | OF_A_JUDGE | _OF_REVIEWS,
            reasons=REASONS,
        )
    )


def render_markdown(statistics: Statistics, taxonomy: Taxonomy, comparison: Comparison | None = None) -> str:
    """What a pull request should tell: counts alone, so no text of strangers gets into it."""
    return _environment(autoescape=False).get_template("report.md.jinja").render(
        statistics=statistics, comparison=comparison, names=_names(taxonomy)
    )  # fmt: skip


@cache
def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bars": bars,
        "code": code,
        "clock": clock,
        "gauge": gauge,
        "number": plain,
        "percent": percent,
        "short": short,
        "words": _words,
    }
    environment.globals |= {"marked": marked}
    return environment


def bars(histogram: Histogram) -> list[Bar]:
    """A histogram's bars from the first to the last one that is not empty."""
    filled = [index for index, count in enumerate(histogram.counts) if count]
    ends = (*histogram.edges[1:], None)
    every = [Bar(*bar) for bar in zip(histogram.edges, ends, histogram.counts, strict=True)]
    return every[filled[0] : filled[-1] + 1] if filled else []


def gauge(check: Check) -> Gauge:
    """From 0 to 1, or to the largest of the numbers."""
    ends = [end for end in (check.least, check.most) if end is not None]
    top = max(1.0, check.value, check.high, *ends)
    least, most = check.least or 0.0, top if check.most is None else check.most
    return Gauge((least / top, most / top), check.low / top, check.high / top, check.value / top)


def short(text: str, most: int = 2_000) -> str:
    """A text for a page that has to stay small, whoever wrote it."""
    return text if len(text) <= most else f"{text[:most]} [… {len(text) - most:,} more characters]"


def code(text: str) -> str:
    """A name in Markdown that can neither leave its place nor call anybody: GitHub looks for `@names` outside code."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '¦')[:120] or ' '}`"


def marked(text: str, other: str) -> list[tuple[bool, str]]:
    """The runs of a text's words, and whether each stands in the other text too."""
    own, others = short(text, _MARKED).split(), short(other, _MARKED).split()
    blocks = SequenceMatcher(None, own, others, autojunk=False).get_matching_blocks()
    runs, at = [], 0
    for start, _, length in blocks:
        runs += [(False, own[at:start]), (True, own[start : start + length])]
        at = start + length
    return [(same, " ".join(run)) for same, run in runs if run]


def _names(taxonomy: Taxonomy) -> dict[str, str]:
    return {task.task: task.name for task in taxonomy.tasks.values()}


def _words(identifier: str) -> str:
    """`few_events`: few events."""
    return identifier.replace("_", " ")
