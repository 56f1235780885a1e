"""What an answer has to look like: the JSON schemas that go with requests, and the same checked on what comes back."""

import copy
import json
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo

from marathon_pipeline.records import Judged

_MOST_PROBLEMS = 5  # quoted in a repair
_MOST_EVIDENCE = 12
_MOST_EVENTS = 100


class Unsound(Exception):
    """An answer that is not what was asked for, in words that its writer can act on."""


def _bound(most: int) -> StringConstraints:
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=most)


def _known(ids: list[str], info: ValidationInfo) -> list[str]:
    if unknown := [each for each in ids if each not in (info.context or ())]:
        raise ValueError(f"`{unknown[0][:20]}` is the id of no stretch that was given")
    return list(dict.fromkeys(ids))


_IDS = {"clip_ids": True}  # in their place the schema of a request names the clips that it shows
ClipId = Annotated[str, Field(json_schema_extra=_IDS), AfterValidator(lambda first, info: _known([first], info)[0])]
Evidence = Annotated[
    list[str], Field(min_length=1, max_length=_MOST_EVIDENCE, json_schema_extra=_IDS), AfterValidator(_known)
]


class Shape(BaseModel):
    """An answer. `reference`: the code of its request. Fields named in `ids` hold ids of the clips shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_name: ClassVar[str]

    reference: Annotated[str, StringConstraints(max_length=16)]


S = TypeVar("S", bound=Shape)


class ClipCaptionAnswer(Shape):
    schema_name = "clip_caption"

    temporality: Annotated[str, _bound(1500)]
    spatiality: Annotated[str, _bound(1500)]
    object: Annotated[str, _bound(1500)]
    action: Annotated[str, _bound(1500)]
    scene: Annotated[str, _bound(1500)]
    summary: Annotated[str, _bound(800)]


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventStart(_Item):
    title: Annotated[str, _bound(120)]
    first: ClipId


class EventSplitAnswer(Shape):
    schema_name = "event_split"

    events: list[EventStart] = Field(min_length=1, max_length=_MOST_EVENTS)


class EventCaptionAnswer(Shape):
    schema_name = "event_caption"

    caption: Annotated[str, _bound(4000)]


class GlobalCaptionAnswer(Shape):
    schema_name = "global_caption"

    caption: Annotated[str, _bound(6000)]


class OpenQuestion(_Item):
    question: Annotated[str, _bound(500)]
    answer: Annotated[str, _bound(1200)]
    evidence: Evidence

    @property
    def options(self) -> tuple[str, ...]:
        return ()


class ChoiceQuestion(_Item):
    question: Annotated[str, _bound(500)]
    answer: Annotated[str, _bound(400)]
    wrong: list[Annotated[str, _bound(400)]] = Field(min_length=3, max_length=3)
    evidence: Evidence

    @property
    def options(self) -> tuple[str, ...]:
        return (self.answer, *self.wrong)


class OpenAnswer(Shape):
    schema_name = "qa_open"

    questions: tuple[OpenQuestion, ...]


class ChoiceAnswer(Shape):
    schema_name = "qa_choice"

    questions: tuple[ChoiceQuestion, ...]


class BlindAnswer(Shape):
    schema_name = "blind_answer"

    letter: Literal["A", "B", "C", "D"]


class GroundedAnswer(Shape):
    schema_name = "grounded_answer"

    because: Annotated[str, _bound(400)]
    letter: Literal["A", "B", "C", "D", "none"]


class Judgement(Shape):
    schema_name = "judgement"

    because: Annotated[str, _bound(400)]
    verdict: Judged


def schema_of(shape: type[Shape], clip_ids: Sequence[str] = (), most: int | None = None) -> dict[str, Any]:
    """The JSON schema of an answer. `clip_ids`: those that it may name; `most`: how many questions."""
    schema = copy.deepcopy(_schema(shape))
    for part in (schema, *schema.get("$defs", {}).values()):
        for field in part["properties"].values():
            if field.pop("clip_ids", False):
                field.get("items", field)["enum"] = list(clip_ids)
    if most is not None:
        schema["properties"]["questions"]["maxItems"] = most
    return schema


@cache
def _schema(shape: type[Shape]) -> dict[str, Any]:
    schema = shape.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for unneeded in ("title", "description"):
            part.pop(unneeded, None)
        for field in part["properties"].values():
            if isinstance(field, dict):
                field.pop("title", None)
    return schema


def _is_whole(fields: Any) -> bool:
    """Whether all its text can be written: JSON may escape half a character, which no file can hold."""
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def parse(shape: type[S], text: str, clip_ids: Sequence[str] = (), most: int | None = None) -> S:
    """Raises Unsound."""
    try:
        fields = json.loads(text, strict=False)  # models put raw line breaks into strings
    except ValueError as error:
        raise Unsound(f"it is not JSON ({error})") from None
    except RecursionError:
        raise Unsound("it is nested too deeply") from None
    try:
        answer = shape.model_validate(fields, context=frozenset(clip_ids))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:_MOST_PROBLEMS]
        raise Unsound("; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in found)) from None
    if "\\ud" in text.lower() and not _is_whole(fields):
        raise Unsound("it holds half a character (a lone \\ud800 or the like)")
    if most is not None and len(getattr(answer, "questions", ())) > most:
        raise Unsound(f"it has more than {most} questions")
    return answer
