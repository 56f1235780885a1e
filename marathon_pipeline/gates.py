"""The gates: which QA pairs may be released, and what a dataset has to be before a release of it is made.

They judge what `verify` and the audit have measured, so that another threshold measures nothing again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from marathon_pipeline.dataset.reviews import Judged, reject_reasons
from marathon_pipeline.records import QAPair, Verdict
from marathon_pipeline.rules_file import load_rules

DatasetMeasure = Literal[
    "waiting",
    "unverified",
    "empty_tasks",
    "accepted",
    "letters",
    "letter_share",
    "longest_option",
    "central_option",
    "usual_answer",
    "repeated_questions",
    "across_videos",
    "near_duplicates",
    "near_across_videos",
    "delivered",
    "off_topic",
    "caption_gaps",
    "commonest_caption",
    "commonest_clips",
    "mean_events",
    "few_events",
    "lost_facts",
    "benchmark_videos",
    "reviewed",
    "reviewed_sound",
    "agreement",
    "blind",
    "grounded",
    "judged_right",
    "judged_wrong",
    "judged_vague",
]
Grouping = Literal["topic", "task", "format", "source", "template", "tries"]
# By what these can be asked for; all others, by each.
GROUPINGS: Mapping[DatasetMeasure, tuple[Grouping, ...]] = {
    "waiting": (),
    "empty_tasks": (),
    "delivered": ("topic", "task", "format"),
    "off_topic": (),
    "caption_gaps": (),
    "commonest_caption": (),
    "commonest_clips": (),
    "mean_events": (),
    "few_events": (),
    "lost_facts": (),
    "benchmark_videos": (),
    "reviewed": ("topic", "task", "format"),  # what pairs are dealt by
    "reviewed_sound": ("topic", "task", "format"),
    "agreement": ("topic", "task", "format"),
}
NUMBERS = tuple(n for n, field in Verdict.model_fields.items() if field.annotation in (int, float, float | None))
# What a pair is rejected for where the number is out of bounds, if not for the number's own name.
_SAID_OF = {"blind_right": "answered_blind", "grounded_right": "not_grounded"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Bound(_Strict):
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("neither `least` nor `most` is given")
        return self

    def holds(self, value: float) -> bool:
        return self.may_hold(value, value)

    def may_hold(self, low: float, high: float) -> bool:
        """Whether it holds for some value from low to high."""
        return (self.least is None or high >= self.least) and (self.most is None or low <= self.most)


def _known_number(name: str) -> str:
    if name not in NUMBERS:
        raise ValueError(f"`{name}` is none of the numbers of a verdict: {', '.join(NUMBERS)}")
    return name


class ItemGates(_Strict):
    """`forgive`: problems that do not reject. `bounds`: of a verdict's numbers."""

    forgive: tuple[str, ...] = ()
    bounds: Mapping[Annotated[str, AfterValidator(_known_number)], Bound] = Field(default_factory=dict)

    @property
    def unbound(self) -> frozenset[str]:
        """Reasons for which nothing is rejected, as the number has no bounds."""
        return frozenset(_SAID_OF.get(name, name) for name in NUMBERS if name not in self.bounds)


class DatasetGate(Bound):
    """`by`: each topic, task and so on for itself; one that counts fewer than `fewest` is not judged."""

    measure: DatasetMeasure
    by: Grouping | None = None
    fewest: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        allowed = GROUPINGS.get(self.measure, get_args(Grouping))
        if self.by and not allowed:
            raise ValueError(f"`{self.measure}` is counted over the whole dataset only: delete `by`")
        if self.by and self.by not in allowed:
            raise ValueError(f"`{self.measure}` is not counted by {self.by}: write `by: {allowed[0]}`, or delete it")
        return self


class Gates(_Strict):
    items: ItemGates = ItemGates()
    dataset: tuple[DatasetGate, ...] = ()

    def reasons(self, verdict: Verdict) -> tuple[str, ...]:
        """Why a pair is rejected: its problems, what a judge said, the numbers that are out of bounds.

        None: it may be released. What was not measured breaks no bound.
        """
        judged = [f"judged_{verdict.judged}"] if verdict.judged in ("wrong", "vague") else []
        unjudged = ["unjudged"] if verdict.unjudged else []
        outside = [
            _SAID_OF.get(name, name)
            for name, bound in self.items.bounds.items()
            if (value := getattr(verdict, name)) is not None and not bound.holds(value)
        ]
        found = (*verdict.problems, *judged, *unjudged, *outside)
        return tuple(reason for reason in found if reason not in self.items.forgive)

    def rejects(self, pair: QAPair, verdict: Verdict | None, by_people: frozenset[Judged]) -> tuple[str, ...]:
        """All that keeps a pair out of releases: `reasons`, no verdict, people (by_people: whom they reject)."""
        of_gates = ("unverified",) if verdict is None else self.reasons(verdict)
        return (*of_gates, *reject_reasons(pair, by_people))


def load_gates(path: Path) -> Gates:
    """Raises UserError where the file is not there, is no YAML, or says what no gate is."""
    return load_rules(path, Gates, "docs/gates.md shows how gates are written")
