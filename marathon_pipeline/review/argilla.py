"""Argilla 2: the folder that `Dataset.from_disk` reads and `Dataset.to_disk` writes."""

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from marathon_pipeline.dataset.reviews import REASONS, identity
from marathon_pipeline.review.forms import Asked, Foreign

RECORDS = "records.json"
_SHOWN = {"question": "Question", "options": "Options", "answer": "Answer", "evidence": "Evidence", "video": "Video"}
_KEYS = ("video_id", "task", "format", "shown")
_GUIDELINES = "Watch the evidence. Accept the pair where all of it is right; else reject it, and say why."


class _Response(BaseModel):
    value: Any
    user_id: uuid.UUID


class _Metadata(BaseModel):
    video_id: str
    shown: str


class _Record(BaseModel):
    id: str
    metadata: _Metadata
    responses: dict[str, list[_Response]] | None = None


def user_id(name: str) -> str:
    """The id that stands for a reviewer: Argilla knows people by the ids of its own users alone."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"marathon:reviewer:{identity(name)}"))


def files(asked: Sequence[Asked], name: str) -> dict[str, str]:
    """By path within the folder."""
    head = {"name": name, "status": "draft", "allow_extra_metadata": False, "guidelines": _GUIDELINES}
    records = [_record(each) for each in asked]
    content = {".argilla/dataset.json": head, ".argilla/settings.json": _settings(), RECORDS: records}
    return {path: json.dumps(value, indent=1, ensure_ascii=False) for path, value in content.items()}


def read(records: Any) -> Iterator[Foreign]:
    """What each person said of each record. Raises ValueError where these are no such records."""
    if not isinstance(records, list):
        raise ValueError("no list of records")
    for fields in records:
        record = _Record.model_validate(fields)
        said: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for question, responses in (record.responses or {}).items():
            for response in responses:
                said[str(response.user_id)][question] = str(response.value or "")
        for who, own in said.items():
            if own.get("verdict"):
                yield Foreign(record.id, record.metadata.video_id, record.metadata.shown, who, "", own["verdict"],
                              own.get("reason", ""), own.get("note", ""))  # fmt: skip


def _record(asked: Asked) -> dict[str, object]:
    responses: dict[str, list[dict[str, str]]] = {}
    for said in asked.judgements:
        for question, value in (("verdict", said.verdict), ("reason", said.reason), ("note", said.note)):
            if value:
                responses.setdefault(question, []).append({"value": value, "user_id": user_id(said.reviewer)})
    return {
        "id": asked.qa_id,
        "fields": {name: getattr(asked, name) for name in _SHOWN if getattr(asked, name)},
        "metadata": {name: getattr(asked, name) for name in _KEYS},
        "suggestions": {},
        "responses": responses,
        "vectors": {},
        "status": "pending",
        "_server_id": None,
    }


def _settings() -> dict[str, object]:
    def labels(values: dict[str, str]) -> dict[str, object]:
        options = [{"value": value, "text": text, "description": None} for value, text in values.items()]
        return {"type": "label_selection", "options": options}

    def question(name: str, title: str, settings: dict[str, object], required: bool = False) -> dict[str, object]:
        return {"name": name, "title": title, "description": None, "required": required, "settings": settings}

    text = {"type": "text", "use_markdown": False}
    return {
        "guidelines": _GUIDELINES,
        "fields": [
            {"name": name, "title": title, "required": name == "question", "settings": text}
            for name, title in _SHOWN.items()
        ],
        "questions": [
            question("verdict", "Is the pair right?", labels({"accept": "Accept", "reject": "Reject"}), required=True),
            question("reason", "Where it is rejected: why?", labels(REASONS)),
            question("note", "In words", text),
        ],
        "vectors": [],
        "metadata": [
            {"name": name, "title": name, "visible_for_annotators": False, "settings": {"type": "terms"}}
            for name in _KEYS
        ],
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 2},
        "mapping": None,
    }
