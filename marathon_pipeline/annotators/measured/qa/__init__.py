"""Questions for all 22 tasks, written from a video's merged facts."""

from collections.abc import Sequence

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
    """The items of each format: spread over whom they are about; other ones in the second format while they last."""
    sound = [item for item in items if item.answer.lower() not in item.question.lower()]
    drawn = material.draw("select", sound)
    seen: dict[str, int] = {}
    ranks = []
    for item in drawn:
        seen[item.about] = seen.get(item.about, -1) + 1
        ranks.append(seen[item.about])
    spread = [drawn[index] for index in sorted(range(len(drawn)), key=lambda index: ranks[index])]
    open_items = _different([item for item in spread if not item.closed])[:opens]
    rest = [item for item in spread if item.wrong and item not in open_items]
    choice_items = _different([*rest, *(item for item in open_items if item.wrong)])[:choices]
    return {"open": open_items, "choice": choice_items}


def _different(items: Sequence[Item]) -> list[Item]:
    """No question twice, unless its options make another one of it."""
    kept: dict[tuple[str, str], Item] = {}
    for item in items:
        kept.setdefault((item.question, item.answer if item.closed else ""), item)
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
