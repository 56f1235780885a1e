"""What a judge says of one QA pair: the measures of a verdict that no rule can take."""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.annotators.protocol import Judge
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import LETTERS, Binding, ClipCaption, QAPair
from marathon_pipeline.stages.stage import together


class JudgeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    orders: int = Field(3, ge=1, le=len(LETTERS))  # of the options, in a blind answer: in one, luck counts full
    calibrate: float = Field(0.05, ge=0, le=1)  # share of the pairs: too few tell nothing of the judge


class Said(NamedTuple):
    """`measures`: fields of a verdict; `failures`: why others could not be taken."""

    measures: dict[str, object]
    failures: list[Failed]


async def said_of(judge: Judge, pair: QAPair, captions: Sequence[ClipCaption], orders: int) -> Said:
    """`captions`: of the clips that the pair cites. What its form does not allow is not asked."""
    if pair.format == "open":
        return await _open(judge, pair, captions)
    if len(pair.options) != len(LETTERS) or pair.answer not in pair.options:
        return Said({}, [])
    blind = [chosen(judge, f"{pair.qa_id} blind {shift}", rotated(pair, shift), ()) for shift in range(orders)]
    seeing = [chosen(judge, f"{pair.qa_id} grounded", pair, captions)] if captions else []
    ((guesses, unguessed), (grounded, ungrounded)), _ = await together(
        [together(blind, Failed), together(seeing, Failed)]
    )
    measures: dict[str, object] = {}
    if not unguessed:
        measures["blind_right"] = round(sum(right for right, _ in guesses) / orders, 6)
    if grounded:
        measures["grounded_right"] = float(grounded[0][0])
    return Said(measures, [*unguessed, *ungrounded])


async def _open(judge: Judge, pair: QAPair, captions: Sequence[ClipCaption]) -> Said:
    if not captions:
        return Said({}, [])
    try:
        judged, _ = await judge.weigh(f"{pair.qa_id} judged", pair, captions)
    except Failed as failure:
        return Said({}, [failure])
    return Said({"judged": judged}, [])


async def chosen(judge: Judge, unit: str, pair: QAPair, captions: Sequence[ClipCaption]) -> tuple[bool, Binding]:
    """Whether the judge takes the option that is the pair's answer."""
    place, binding = await judge.choose(unit, pair, captions)
    return place is not None and pair.options[place] == pair.answer, binding


def rotated(pair: QAPair, shift: int) -> QAPair:
    """The pair with its options moved on, so that its right one bears another letter."""
    options = (*pair.options[shift:], *pair.options[:shift])
    return pair.model_copy(update={"options": options, "letter": LETTERS[options.index(pair.answer)]})


def cited(pair: QAPair, captions: Sequence[ClipCaption]) -> list[ClipCaption]:
    return [caption for caption in captions if caption.clip_id in pair.clip_ids]
