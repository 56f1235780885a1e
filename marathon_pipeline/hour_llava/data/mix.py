"""Which share of the QA pairs an epoch takes: by task, topic and source, and by the length of the video.

Long or short is said of a video, not of a task. The paper's ratio of 3:1 counts samples of VideoMarathon (3 to 60
minutes) against those of LLaVA-Video-178K (shorter ones), section 5.3; the forms of the tasks are no part of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]


class Kind(NamedTuple):
    """What the mix tells QA pairs apart by."""

    task: str
    topic: str
    source: str
    long: bool


class MixSettings(BaseModel):
    """Shares of the pairs that an epoch takes, 1 where none is given; another epoch draws others of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, Share] = {}
    topics: dict[str, Share] = {}
    sources: dict[str, Share] = {}  # by `data_source`
    long_to_short: float | None = Field(3.0, gt=0)  # short videos left out altogether cost accuracy on long ones too
    long_seconds: float = Field(180.0, gt=0)  # VideoMarathon's shortest; what is shorter is short


@dataclass(frozen=True)
class Rates:
    """The share of each kind of pairs that an epoch takes. `pairs`: how many it takes by them, long and short."""

    of: Mapping[Kind, float]
    pairs: tuple[float, float]


def rates(settings: MixSettings, counts: Counter[Kind]) -> Rates:
    """counts: the pairs there are. Where there are no short videos, or no long ones, there is no ratio to keep.

    Raises UserError where the settings name what is not there, or leave nothing.
    """
    for what, named, known in (
        ("tasks", settings.tasks, {kind.task for kind in counts}),
        ("topics", settings.topics, {kind.topic for kind in counts}),
        ("sources", settings.sources, {kind.source for kind in counts}),
    ):
        if unknown := sorted(set(named) - known):
            raise UserError(f"mix.{what}: the releases hold no `{unknown[0]}` (they hold {_listed(known)})")
    plain = {
        kind: settings.tasks.get(kind.task, 1.0)
        * settings.topics.get(kind.topic, 1.0)
        * settings.sources.get(kind.source, 1.0)
        for kind in counts
    }
    long, short = (sum(counts[kind] * plain[kind] for kind in counts if kind.long is side) for side in (True, False))
    if long + short == 0:
        raise UserError("mix: its shares leave no QA pair at all; raise one of them")
    keep = {True: 1.0, False: 1.0}
    if settings.long_to_short is not None and long and short:
        wanted = settings.long_to_short * short
        keep = {True: min(1.0, wanted / long), False: min(1.0, long / wanted)}
    return Rates(
        {kind: share * keep[kind.long] for kind, share in plain.items()}, (long * keep[True], short * keep[False])
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:30]) or "none"
