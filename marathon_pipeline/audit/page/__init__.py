"""The page: statistics and cards through the Jinja2 templates beside this file, everything escaped, nothing fetched."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from marathon_pipeline.audit.cards import Card
from marathon_pipeline.audit.measures import PROBLEMS
from marathon_pipeline.audit.statistics import Histogram, Statistics, percent, plain
from marathon_pipeline.dataset.reviews import REASONS, REJECTED
from marathon_pipeline.taxonomy import clock

_OF_REVIEWS = {REJECTED: "People judged it, and rejected it."}


@dataclass(frozen=True)
class Bar:
    start: float
    end: float | None  # none: without an upper end
    count: int


def render(statistics: Statistics, cards: Sequence[Card]) -> str:
    """The page as HTML, complete in itself."""
    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "number": plain, "percent": percent, "bars": bars, "words": _words}
    template = environment.get_template("report.html.jinja")
    return template.render(statistics=statistics, cards=cards, problem_says=PROBLEMS | _OF_REVIEWS, reasons=REASONS)


def bars(histogram: Histogram) -> list[Bar]:
    """A histogram's bars from the first to the last one that is not empty."""
    filled = [index for index, count in enumerate(histogram.counts) if count]
    ends = (*histogram.edges[1:], None)
    every = [Bar(*bar) for bar in zip(histogram.edges, ends, histogram.counts, strict=True)]
    return every[filled[0] : filled[-1] + 1] if filled else []


def _words(identifier: str) -> str:
    """`few_events`: few events."""
    return identifier.replace("_", " ")
