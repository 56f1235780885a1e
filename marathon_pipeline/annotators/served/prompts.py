"""Prompts, rendered from the templates: what requests share first, what differs last."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from marathon_pipeline.annotators.served.views import View
from marathon_pipeline.records import LETTERS, Clip, ClipCaption, Event, Format, JudgedMeasure, QAPair, Summary
from marathon_pipeline.taxonomy import Demonstration, Task, Taxonomy

_HEADINGS = {
    "temporality": "Change over time",
    "spatiality": "Positions",
    "object": "Persons and things",
    "action": "Action",
    "scene": "Scene",
    "summary": "Core",
}
# Of a stretch, least needed first: a prompt that is too long does without the first ones.
EXPENDABLE = ("spatiality", "temporality", "object", "scene", "action")


class Prompt(NamedTuple):
    system: str
    shared: str  # the same for all requests that have it
    own: str

    @property
    def chars(self) -> int:
        return len(self.system) + len(self.shared) + len(self.own)


def clip_prompt(taxonomy: Taxonomy, clip: Clip, seconds: Sequence[int]) -> Prompt:
    system, prompt = taxonomy.captions["clip"].render(clip=clip, times=seconds)
    return Prompt(system, "", prompt)


def split_prompt(taxonomy: Taxonomy, captions: Sequence[ClipCaption], without: int = 0) -> Prompt:
    system, prompt = taxonomy.captions["event_split"].render(captions=[_reduced(c, without) for c in captions])
    return Prompt(system, "", prompt)


def event_prompt(
    taxonomy: Taxonomy,
    event: Event,
    before: Event | None,
    after: Event | None,
    captions: Sequence[ClipCaption],
    without: int = 0,
) -> Prompt:
    """`without`: so many of the `EXPENDABLE` fields."""
    told = [_reduced(caption, without) for caption in captions]
    system, prompt = taxonomy.captions["event"].render(event=event, before=before, after=after, captions=told)
    return Prompt(system, "", prompt)


def global_prompt(taxonomy: Taxonomy, events: Sequence[Event]) -> Prompt:
    system, prompt = taxonomy.captions["global"].render(events=events)
    return Prompt(system, "", prompt)


def notes(taxonomy: Taxonomy, task: Task, view: View, events: Sequence[Event], summary: Summary) -> str:
    """What the questions of a task are written from: the same text for all tasks that read the same fields."""
    reads = set(task.reads)
    in_full = "event" in reads  # then nothing else has to tell what a view leaves out
    return taxonomy.prompt.render_notes(
        seconds=view.seconds,
        summary=summary.text if "global" in reads else "",
        fields={field: heading for field, heading in _HEADINGS.items() if field in reads},
        before=() if in_full else view.before,
        captions=view.captions,
        after=() if in_full else view.after,
        events=events if in_full else (),
    )


def qa_prompt(taxonomy: Taxonomy, task: Task, format: Format, shared: str, known: Sequence[str] = ()) -> Prompt:
    """`known`: questions that were written before, where others are wanted."""
    own = taxonomy.prompt.render_request(
        task=task,
        format=format,
        form=getattr(taxonomy.rules, format),
        count=getattr(task.per_video, format),
        examples=[
            {"given": shown.given, "written": _written(shown)}
            for shown in task.demonstrations
            if shown.format == format
        ],
    )
    again = f"\n\n{taxonomy.prompt.render_again(known)}" if known else ""
    return Prompt(taxonomy.prompt.render_system(taxonomy.rules), shared, f"\n{own}{again}")


def judge_prompt(
    taxonomy: Taxonomy, measure: JudgedMeasure, pair: QAPair, captions: Sequence[ClipCaption], without: int = 0
) -> Prompt:
    """`captions`: of the pair's evidence; `without`: so many of the `EXPENDABLE` fields."""
    told = [_reduced(caption, without) for caption in captions]
    shared = taxonomy.judge.render_notes(fields=_HEADINGS, captions=told) if told else ""
    options = dict(zip(LETTERS, pair.options, strict=False))
    own = taxonomy.judge.render_request(measure, question=pair.question, options=options, answer=pair.answer)
    return Prompt(taxonomy.judge.system, shared, f"\n{own}")


def _written(shown: Demonstration) -> str:
    """A demonstration as the answer that a model shall give."""
    item: dict[str, Any] = {"question": shown.question, "answer": shown.answer}
    if shown.options:
        item["wrong"] = [option for option in shown.options if option != shown.answer]
    return json.dumps({**item, "evidence": list(shown.evidence)}, ensure_ascii=False)


def _reduced(caption: ClipCaption, without: int) -> dict[str, Any]:
    fields = caption.model_dump(exclude={"facts", "binding"})
    return fields | dict.fromkeys(EXPENDABLE[:without], "(left out)")
