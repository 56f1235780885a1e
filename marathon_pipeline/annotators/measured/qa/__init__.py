"""Questions for all 22 tasks, written from a video's merged facts."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from marathon_pipeline.annotators.measured.qa.action import (
    action_localization,
    action_reasoning,
    action_recognition,
    action_sequence,
)
from marathon_pipeline.annotators.measured.qa.event import event_sequence, key_event_extraction, overall_summarization
from marathon_pipeline.annotators.measured.qa.material import Item, Material, Writer, cut_to
from marathon_pipeline.annotators.measured.qa.object import (
    object_attribute,
    object_existence,
    object_interaction,
    object_permanence,
    object_reasoning,
    object_recognition,
)
from marathon_pipeline.annotators.measured.qa.scene import scene_recognition, scene_transition
from marathon_pipeline.annotators.measured.qa.spatiality import spatial_perception, spatial_reasoning
from marathon_pipeline.annotators.measured.qa.temporality import (
    duration_perception,
    temporal_gap_estimation,
    temporal_order,
    temporal_perception,
    temporal_reasoning,
)
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import LETTERS, Binding, Format, QAPair, digest
from marathon_pipeline.taxonomy import TASK_IDS, Task

_Any = TypeVar("_Any")

WRITERS: dict[str, Writer] = {
    writer.__name__: writer
    for writer in (
        temporal_perception, duration_perception, temporal_reasoning, temporal_gap_estimation, temporal_order,
        spatial_perception, spatial_reasoning,
        object_recognition, object_attribute, object_interaction, object_reasoning, object_existence, object_permanence,
        action_recognition, action_localization, action_sequence, action_reasoning,
        scene_recognition, scene_transition,
        event_sequence, key_event_extraction, overall_summarization,
    )
}  # fmt: skip


def write(material: Material, task: Task, format: Format, binding: Binding) -> list[QAPair]:
    """At most `task.per_video` pairs. Raises Filtered where the facts carry none."""
    if task.task not in material.written:
        material.written[task.task] = list(WRITERS[task.task](material))
    items = select(material, material.written[task.task], task.per_video.open, task.per_video.choice)[format]
    if not items and getattr(task.per_video, format):
        raise Filtered("too_few_facts", f"nothing can be asked for {task.task} that the facts make sure")
    return [_pair(material, task, format, index, item, binding) for index, item in enumerate(items)]


def select(material: Material, items: Sequence[Item], opens: int, choices: int) -> dict[Format, list[Item]]:
    """The items of each format: other ones in the second format while they last. No answer is right in two choices."""
    spread = _spread(material, [item for item in items if item.answer.lower() not in item.question.lower()])
    full = [item for item in spread if len(set(item.wrong) - {item.answer}) >= 3]
    choice_items = [
        item._replace(wrong=_three_wrong(material, item, full))
        for item in _first_ones(full, lambda item: item.answer)[:choices]
    ]
    asked = {item.question for item in choice_items}
    of_both = sorted((item for item in spread if not item.closed), key=lambda item: item.question in asked)
    return {"open": _first_ones(of_both, lambda item: item.question)[:opens], "choice": choice_items}


def _spread(material: Material, items: Sequence[Item]) -> list[Item]:
    """First those with an answer of their own, in no order that the answers tell of; of these, first those that are
    about somebody new. So what is true most often is not what is asked most often."""
    answers = material.draw("answers", sorted({item.answer for item in items}))
    order = {answer: place for place, answer in enumerate(answers)}
    drawn = sorted(material.draw("select", items), key=lambda item: order[item.answer])
    return _in_turn(_in_turn(drawn, lambda item: item.answer), lambda item: item.about)


def _in_turn(items: Sequence[_Any], key: Callable[[_Any], str]) -> list[_Any]:
    """The first one of each key, then the second ones, and so on."""
    seen: Counter[str] = Counter()
    turns = []
    for item in items:
        turns.append(seen[key(item)])
        seen[key(item)] += 1
    return [items[index] for index in sorted(range(len(items)), key=turns.__getitem__)]


def _three_wrong(material: Material, item: Item, others: Sequence[Item]) -> list[str]:
    """First what is right in other questions of the video, spread as the right ones are: so that an option's text does
    not tell whether it is right here."""
    wrong = [text for text in dict.fromkeys(item.wrong) if text != item.answer]
    drawn = material.draw(("wrong", item.question, item.answer), wrong)
    about = {other.answer: other.about for other in others}
    right_elsewhere = _in_turn([item.answer, *(text for text in drawn if text in about)], about.__getitem__)[1:]
    return [*right_elsewhere, *(text for text in drawn if text not in about)][:3]


def _first_ones(items: Sequence[Item], key: Callable[[Item], str]) -> list[Item]:
    kept: dict[str, Item] = {}
    for item in items:
        kept.setdefault(key(item), item)
    return list(kept.values())


def _pair(material: Material, task: Task, format: Format, index: int, item: Item, binding: Binding) -> QAPair:
    timeline = material.timeline
    options: tuple[str, ...] = ()
    letter = ""
    answer = item.full or _written(item.answer)
    if format == "choice":
        position = (3 * TASK_IDS.index(task.task) + index + int(digest(timeline.video_id)[:8], 16)) % 4
        wrong = [_written(text) for text in material.draw(("options", item.question), item.wrong)]
        answer, letter = _written(item.answer), LETTERS[position]
        options = (*wrong[:position], answer, *wrong[position:])
    evidence = tuple(cut_to(span, timeline) for span in item.evidence)
    return QAPair(
        qa_id=QAPair.id_of(timeline.video_id, task.task, format, item.question, options, answer),
        video_id=timeline.video_id,
        task=task.task,
        topic=task.topic,
        format=format,
        question=item.question,
        options=options,
        answer=answer,
        letter=letter,
        evidence=evidence,
        clip_ids=timeline.clip_ids(evidence),
        binding=binding,
    )


def _written(text: str) -> str:
    return text if text.endswith(".") else f"{text[:1].upper()}{text[1:]}."
