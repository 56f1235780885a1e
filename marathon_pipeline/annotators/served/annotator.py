"""An annotator that asks served models."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

from marathon_pipeline import wording
from marathon_pipeline.annotators.protocol import Described, Pictures, Written
from marathon_pipeline.annotators.served import prompts
from marathon_pipeline.annotators.served.asking import Asker, Question, first_request
from marathon_pipeline.annotators.served.batch import BatchWriter
from marathon_pipeline.annotators.served.check import check
from marathon_pipeline.annotators.served.pool import Pool, Sender
from marathon_pipeline.annotators.served.settings import HOW, ModelSettings
from marathon_pipeline.annotators.served.shapes import (
    BlindAnswer,
    ChoiceAnswer,
    ChoiceQuestion,
    ClipCaptionAnswer,
    EventCaptionAnswer,
    EventSplitAnswer,
    GlobalCaptionAnswer,
    GroundedAnswer,
    Judgement,
    OpenAnswer,
    OpenQuestion,
    S,
)
from marathon_pipeline.annotators.served.views import View, views
from marathon_pipeline.dataset.journal import Answers
from marathon_pipeline.errors import Failed, Filtered
from marathon_pipeline.records import (
    LETTERS,
    Binding,
    Clip,
    ClipCaption,
    Event,
    Format,
    Judged,
    JudgedMeasure,
    QAPair,
    Record,
    Signals,
    Span,
    Summary,
    digest,
    merged,
)
from marathon_pipeline.taxonomy import Task, Taxonomy, TopicName

_VERSION = 1  # of what is made of the answers
_SAME_PICTURES = 0.6  # of the likeness that two captions of the same pictures have
Problems = Callable[[OpenQuestion | ChoiceQuestion], Sequence[str]]  # of the words of a question
_SCHEMA_CHARS = 4000  # kept free in the context: the schema, which some servers put into the prompt, and a repair


class Served:
    """An `Annotator`: a model behind servers."""

    served = True

    def __init__(self, settings: ModelSettings, taxonomy: Taxonomy, batch: Path | None = None) -> None:
        """batch: a folder to write requests into, instead of sending them."""
        self.settings, self.taxonomy, self._batch = settings, taxonomy, batch
        self._processes = 1
        self._requests: dict[TopicName, int] = {}
        self._kept: dict[object, tuple[tuple[Record, ...], list[tuple[View, str]]]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return Served, (self.settings, self.taxonomy, self._batch)

    @property
    def name(self) -> str:
        """With all that decides what it writes."""
        return f"{self.settings.name} {digest([_VERSION, self.settings.model_dump(exclude=set(HOW))])[:12]}"

    @cached_property
    def sender(self) -> Sender:
        sender = BatchWriter(self.settings, self._batch) if self._batch else Pool(self.settings)
        sender.share(self._processes)
        return sender

    @cached_property
    def memory(self) -> asyncio.Semaphore:
        """Held by what holds a prompt: an hour of video asks two hundred questions, each of some hundred kilobytes."""
        return asyncio.Semaphore(self.settings.in_memory)

    def check(self) -> None:
        if not self._batch:
            check(self.settings)

    def share(self, processes: int) -> None:
        self._processes = processes
        if "sender" in vars(self):
            self.sender.share(processes)

    def stop(self) -> None:
        self.sender.stop()

    async def close(self) -> Written | None:
        return await self.sender.close() if "sender" in vars(self) else None

    def for_work(self, answers: Answers) -> "ServedWriter":
        return ServedWriter(self, answers)

    def judge_for(self, answers: Answers) -> "ServedJudge":
        return ServedJudge(self, answers)

    @property
    def room(self) -> int:
        """Characters that a prompt may have."""
        tokens = self.settings.context_tokens - self.settings.answer_tokens
        return int(tokens * self.settings.chars_per_token) - _SCHEMA_CHARS

    def fitting(self, prompt: Callable[[int], prompts.Prompt]) -> prompts.Prompt:
        """The prompt with as few caption fields left out as it takes to fit. Raises Failed `context`."""
        for without in range(len(prompts.EXPENDABLE) + 1):
            rendered = prompt(without)
            if rendered.chars <= self.room:
                return rendered
        raise Failed("context", f"a prompt of {rendered.chars:,} characters is too long for context_tokens")

    def _room_for_notes(self, topic: TopicName) -> int:
        """What the longest request of a topic leaves: the same for all of its tasks, so that they share their notes."""
        if topic not in self._requests:
            self._requests[topic] = max(
                prompts.qa_prompt(self.taxonomy, task, format, "").chars
                for task in self.taxonomy.of_topic(topic)
                for format in get_args(Format)
            )
        return self.room - self._requests[topic]

    def qa_question(
        self,
        task: Task,
        format: Format,
        video: Described,
        known: Sequence[str] = (),
    ) -> tuple[Question, type[OpenAnswer | ChoiceAnswer]]:
        """What the model is asked for a task in a format, and how its answer has to look."""
        found, video_id = self._views(task, video), video.summary.video_id
        siblings = [sibling.task for sibling in self.taxonomy.of_topic(task.topic)]
        turn = siblings.index(task.task) + int(digest(video_id)[:8], 16)  # they take turns, beginning anywhere
        view, shared = found[turn % len(found)]
        question = Question(
            video_id,
            "qa",
            format,
            prompts.qa_prompt(self.taxonomy, task, format, shared, known),
            [caption.clip_id for caption in view.captions],
            most=getattr(task.per_video, format),
            version=task.version,
        )
        return question, OpenAnswer if format == "open" else ChoiceAnswer

    def _views(self, task: Task, video: Described) -> list[tuple[View, str]]:
        """The views of a video with their notes, kept for the tasks that read the same: they ask one after another."""
        key = task.topic, frozenset(task.reads)
        kept, found = self._kept.get(key, ((), []))
        if not video.is_of(kept):

            def tell(view: View) -> str:
                return prompts.notes(self.taxonomy, task, view, video.events, video.summary)

            found = views(video.captions, video.events, tell, self._room_for_notes(task.topic))
            self._kept[key] = video.rows, found
        return found

    def qa_messages(self, task: Task, format: Format, video: Described) -> list[tuple[str, str]]:
        """Role and text of what is sent first for a task in a format."""
        question, shape = self.qa_question(task, format, video)
        request, _ = first_request(question, shape, task.task, 0)
        return [(message["role"], message["content"]) for message in request.messages]


class ServedWriter:
    """A `Writer`, for one part of a stage's work on one video."""

    def __init__(self, annotator: Served, answers: Answers) -> None:
        self._annotator, self._answers = annotator, answers
        self._settings, self._taxonomy = annotator.settings, annotator.taxonomy
        self._asker = Asker(annotator.settings, annotator.sender, answers)

    async def caption_clip(self, clip: Clip, signals: Sequence[Signals], pictures: Pictures) -> ClipCaption:
        async with self._annotator.memory:
            return await self._caption(clip, pictures)

    async def _caption(self, clip: Clip, pictures: Pictures) -> ClipCaption:
        seconds = chosen_seconds(clip, self._settings.frames.count)
        shown = tuple(await pictures(seconds, self._settings.frames.height))
        question = Question(
            clip.video_id,
            "caption_clips",
            clip.clip_id,
            prompts.clip_prompt(self._taxonomy, clip, seconds),
            pictures=shown,
            version=self._taxonomy.captions["clip"].version,
        )
        answer, binding = await self._asker.ask(question, ClipCaptionAnswer)
        if int(digest([clip.video_id, clip.clip_id])[:8], 16) < self._settings.probe * 2**32:
            answer, binding = await self._probed(question, answer, binding)
        return ClipCaption(
            video_id=clip.video_id,
            clip_id=clip.clip_id,
            start=clip.start,
            end=clip.end,
            binding=binding,
            **answer.model_dump(exclude={"reference"}),
        )

    async def _probed(
        self, question: Question, answer: ClipCaptionAnswer, binding: Binding
    ) -> tuple[ClipCaptionAnswer, Binding]:
        """Caption it twice more. Where these agree much better than with the first, that was of other pictures."""
        self._answers.probed += 1
        again, again_binding = await self._asker.ask(
            question._replace(unit=f"{question.unit} again"), ClipCaptionAnswer
        )
        once_more, _ = await self._asker.ask(question._replace(unit=f"{question.unit} once more"), ClipCaptionAnswer)
        if _likeness(again, answer) >= _SAME_PICTURES * _likeness(again, once_more):
            return answer, binding
        self._answers.lose("other_pictures")
        return again, again_binding

    async def split_events(self, video_id: str, captions: Sequence[ClipCaption]) -> list[Event]:
        ids = [caption.clip_id for caption in captions]
        prompt = self._annotator.fitting(partial(prompts.split_prompt, self._taxonomy, captions))
        question = Question(
            video_id,
            "caption_events",
            "split",
            prompt,
            ids,
            version=self._taxonomy.captions["event_split"].version,
        )
        answer, binding = await self._asker.ask(question, EventSplitAnswer, _split_faults)
        titles: dict[int, str] = {}
        for event in answer.events:
            titles.setdefault(ids.index(event.first), event.title)
        first = min(titles)
        starts = [0, *sorted(set(titles) - {first})]  # nothing lies before the first event
        events = []
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
            own = captions[start:stop]
            events.append(
                Event(
                    video_id=video_id,
                    event_id=f"event_{number:03d}",
                    start=own[0].start,
                    end=captions[stop].start if stop < len(ids) else own[-1].end,
                    title=titles[start or first],
                    caption="",
                    clip_ids=tuple(caption.clip_id for caption in own),
                    binding=binding,
                )
            )
        return events

    async def caption_event(
        self, event: Event, before: Event | None, after: Event | None, captions: Sequence[ClipCaption]
    ) -> Event:
        async with self._annotator.memory:
            prompt = self._annotator.fitting(
                partial(prompts.event_prompt, self._taxonomy, event, before, after, captions)
            )
            version = self._taxonomy.captions["event"].version
            question = Question(event.video_id, "caption_events", event.event_id, prompt, version=version)
            answer, binding = await self._asker.ask(question, EventCaptionAnswer)
        return event.model_copy(update={"caption": answer.caption, "binding": binding})

    async def summarize(self, events: Sequence[Event]) -> Summary:
        prompt = self._annotator.fitting(lambda _: prompts.global_prompt(self._taxonomy, events))
        version = self._taxonomy.captions["global"].version
        question = Question(events[0].video_id, "summarize", "global", prompt, version=version)
        answer, binding = await self._asker.ask(question, GlobalCaptionAnswer)
        return Summary(video_id=events[0].video_id, text=answer.caption, binding=binding)

    async def write_qa(self, task: Task, format: Format, video: Described, known: Sequence[str] = ()) -> list[QAPair]:
        """Raises Filtered `nothing_to_ask` where the model finds none."""
        if task.reads == ("global",):
            return [self._account(task, video)]
        problems = self._problems(task)
        async with self._annotator.memory:
            question, shape = self._annotator.qa_question(task, format, video, known)
            answer, binding = await self._asker.ask(question, shape, partial(_faults, problems))
        clips = {caption.clip_id: caption for caption in video.captions}
        kept: list[QAPair] = []
        asked = {question.casefold() for question in known}
        for item in answer.questions:
            if problems(item):
                self._answers.lose("bad_question")
            elif item.question.casefold() in asked:
                self._answers.lose("asked_twice")
            else:
                asked.add(item.question.casefold())
                kept.append(_pair(item, task, video.summary.video_id, clips, binding))
        if not kept:
            raise Filtered("nothing_to_ask", f"no sound question for {task.task} in this format")
        return kept

    def _problems(self, task: Task) -> Problems:
        """Looked for once, for a repair and for what is kept."""
        known: dict[tuple[str, tuple[str, ...], str], list[str]] = {}

        def of(item: OpenQuestion | ChoiceQuestion) -> list[str]:
            words = item.question, item.options, item.answer
            if words not in known:
                known[words] = list(wording.problems(*words, task, self._taxonomy.rules))
            return known[words]

        return of

    @staticmethod
    def _account(task: Task, video: Described) -> QAPair:
        """Of the whole video: its summary, and a question of the template's. No model is asked."""
        captions, summary = video.captions, video.summary
        questions = [shown.question for shown in task.demonstrations]
        question = questions[int(digest([summary.video_id, task.task])[:8], 16) % len(questions)]
        return QAPair(
            qa_id=QAPair.id_of(summary.video_id, task.task, "open", question, (), summary.text),
            video_id=summary.video_id,
            task=task.task,
            topic=task.topic,
            format="open",
            question=question,
            answer=summary.text,
            evidence=(Span(start=captions[0].start, end=captions[-1].end),),
            clip_ids=tuple(caption.clip_id for caption in captions),
            binding=summary.binding.model_copy(update={"template_version": task.version}),
        )


class ServedJudge:
    """A `Judge`, for one part of a stage's work on one video."""

    def __init__(self, annotator: Served, answers: Answers) -> None:
        self._annotator, self._stage = annotator, answers.journal.stage
        self._asker = Asker(annotator.settings, annotator.sender, answers)

    async def choose(self, unit: str, pair: QAPair, captions: Sequence[ClipCaption]) -> tuple[int | None, Binding]:
        answer: BlindAnswer | GroundedAnswer
        if captions:
            answer, binding = await self._ask(unit, "grounded", pair, captions, GroundedAnswer)
        else:
            answer, binding = await self._ask(unit, "blind", pair, (), BlindAnswer)
        return (LETTERS.index(answer.letter) if answer.letter != "none" else None), binding

    async def weigh(self, unit: str, pair: QAPair, captions: Sequence[ClipCaption]) -> tuple[Judged, Binding]:
        answer, binding = await self._ask(unit, "judged", pair, captions, Judgement)
        return answer.verdict, binding

    async def _ask(
        self, unit: str, measure: JudgedMeasure, pair: QAPair, captions: Sequence[ClipCaption], shape: type[S]
    ) -> tuple[S, Binding]:
        taxonomy = self._annotator.taxonomy
        async with self._annotator.memory:
            prompt = self._annotator.fitting(partial(prompts.judge_prompt, taxonomy, measure, pair, captions))
            question = Question(pair.video_id, self._stage, unit, prompt, version=taxonomy.judge.version)
            return await self._asker.ask(question, shape)


def chosen_seconds(clip: Clip, count: int) -> list[int]:
    """Whole seconds, spread evenly over a clip, in which the proxy has a picture."""
    first = math.ceil(clip.start)
    there = range(first, max(first + 1, math.ceil(clip.end)))
    count = min(count, len(there))
    return [there[int((index + 0.5) * len(there) / count)] for index in range(count)]


def _likeness(one: ClipCaptionAnswer, other: ClipCaptionAnswer) -> float:
    """The share of their words that two captions have in common (Jaccard)."""
    a, b = (
        {*wording.words(" ".join(map(str, caption.model_dump(exclude={"reference"}).values())))}
        for caption in (one, other)
    )
    return len(a & b) / max(1, len(a | b))


def _faults(problems: Problems, answer: OpenAnswer | ChoiceAnswer) -> list[str]:
    """What is wrong with the words of its questions, for a repair."""
    return [
        f"question {number}: {wording.PROBLEMS[problem]}"
        for number, item in enumerate[OpenQuestion | ChoiceQuestion](answer.questions, start=1)
        for problem in problems(item)
    ]


def _split_faults(answer: EventSplitAnswer) -> list[str]:
    firsts = [event.first for event in answer.events]
    twice = sorted({first for first in firsts if firsts.count(first) > 1})
    return [f"two events begin with {first}" for first in twice]


def _pair(
    item: OpenQuestion | ChoiceQuestion, task: Task, video_id: str, clips: Mapping[str, ClipCaption], binding: Binding
) -> QAPair:
    options: tuple[str, ...] = ()
    letter = ""
    if isinstance(item, ChoiceQuestion):
        place = int(digest([video_id, task.task, item.question])[:8], 16) % len(LETTERS)
        letter = LETTERS[place]
        options = (*item.wrong[:place], item.answer, *item.wrong[place:])
    cited = [clips[clip_id] for clip_id in sorted(item.evidence)]
    return QAPair(
        qa_id=QAPair.id_of(video_id, task.task, "choice" if options else "open", item.question, options, item.answer),
        video_id=video_id,
        task=task.task,
        topic=task.topic,
        format="choice" if options else "open",
        question=item.question,
        options=options,
        answer=item.answer,
        letter=letter,
        evidence=tuple(merged(Span(start=clip.start, end=clip.end) for clip in cited)),
        clip_ids=tuple(clip.clip_id for clip in cited),
        binding=binding,
    )
