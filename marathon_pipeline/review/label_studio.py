"""Label Studio: a JSON list of tasks with their annotations, and the labels that its project has to be set up with."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel

from marathon_pipeline.dataset.reviews import REASONS
from marathon_pipeline.review.forms import Asked, Foreign

_DATA = ("qa_id", "video_id", "task", "format", "shown", "question", "options", "answer", "evidence", "video")


class _Value(BaseModel):
    choices: list[str] = []
    text: list[str] | str = []

    @property
    def said(self) -> str:
        return "\n".join([*self.choices, *([self.text] if isinstance(self.text, str) else self.text)])


class _Result(BaseModel):
    from_name: str = ""
    value: _Value = _Value()


class _User(BaseModel):
    id: int | None = None
    email: str = ""


class _Annotation(BaseModel):
    completed_by: int | _User
    result: list[_Result] = []
    was_cancelled: bool = False

    @property
    def who(self) -> str:
        return str(self.completed_by if isinstance(self.completed_by, int) else self.completed_by.id)

    @property
    def name(self) -> str:
        return "" if isinstance(self.completed_by, int) else self.completed_by.email


class _Data(BaseModel):
    qa_id: str
    video_id: str
    shown: str


class _Task(BaseModel):
    data: _Data
    annotations: list[_Annotation] = []


def files(asked: Sequence[Asked], name: str) -> dict[str, str]:
    """By name: the tasks, and the labelling configuration beside them."""
    tasks = [_task(each) for each in asked]
    return {name: json.dumps(tasks, indent=1, ensure_ascii=False), f"{name.removesuffix('.json')}.xml": labels()}


def labels() -> str:
    """What a project's labelling interface is set to."""
    reasons = "\n".join(
        f"    <Choice value={quoteattr(name)} hint={quoteattr(says)}/>" for name, says in REASONS.items()
    )
    return f"""<View>
  <Video name="video" value="$video"/>
  <Text name="evidence" value="$evidence"/>
  <Text name="question" value="$question"/>
  <Text name="options" value="$options"/>
  <Text name="answer" value="$answer"/>
  <Choices name="verdict" toName="question" choice="single" required="true" showInline="true">
    <Choice value="accept"/>
    <Choice value="reject"/>
  </Choices>
  <Choices name="reason" toName="question" choice="single"
           visibleWhen="choice-selected" whenTagName="verdict" whenChoiceValue="reject">
{reasons}
  </Choices>
  <TextArea name="note" toName="question" maxSubmissions="1"/>
</View>
"""


def read(tasks: Any) -> Iterator[Foreign]:
    """The last that each person said of each task. Raises ValueError where these are no such tasks."""
    if not isinstance(tasks, list):
        raise ValueError("no list of tasks")
    for fields in tasks:
        task = _Task.model_validate(fields)
        said: dict[tuple[str, str], dict[str, str]] = {}
        for annotation in task.annotations:
            if not annotation.was_cancelled:
                said[annotation.who, annotation.name] = {each.from_name: each.value.said for each in annotation.result}
        for (who, name), own in said.items():
            if own.get("verdict"):
                yield Foreign(task.data.qa_id, task.data.video_id, task.data.shown, who, name, own["verdict"],
                              own.get("reason", ""), own.get("note", ""))  # fmt: skip


def _task(asked: Asked) -> dict[str, object]:
    annotations = []
    for said in asked.judgements:
        result = [_result("verdict", said.verdict)]
        result += [_result("reason", said.reason)] if said.reason else []
        result += [_result("note", said.note)] if said.note else []
        annotations.append({"completed_by": {"email": said.reviewer}, "was_cancelled": False, "result": result})
    return {"data": {name: getattr(asked, name) for name in _DATA}, "annotations": annotations, "predictions": []}


def _result(name: str, value: str) -> dict[str, object]:
    kind, content = ("textarea", {"text": [value]}) if name == "note" else ("choices", {"choices": [value]})
    return {"id": name, "from_name": name, "to_name": "question", "type": kind, "value": content}
