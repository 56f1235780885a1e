"""What is measured of one QA pair on its own: its form, its evidence and its words. Nobody looks at the video here."""

import re
from collections.abc import Iterable, Iterator, Mapping

from marathon_pipeline.records import LETTERS, Clip, QAPair, Span, Verdict
from marathon_pipeline.taxonomy import Rules, Task

PROBLEMS: dict[str, str] = {
    "wrong_id": "Its id is not the hash of its content, so a verdict could slide onto another text.",
    "wrong_task": "Its task or its topic is not the one that was asked for.",
    "open_with_options": "An open-ended question carries options or a letter.",
    "option_count": "A multiple-choice question has more or fewer than four options.",
    "equal_options": "Two options are the same but for case, spaces and punctuation.",
    "wrong_letter": "The letter is missing, is no option's, or points at another text than the answer.",
    "empty_text": "The question, the answer or an option holds no word.",
    "long_text": "The question, the answer or an option has more words than its bound allows.",
    "option_lengths": "One option is so much longer than another one that its length alone can give the answer away.",
    "pipeline_word": "It speaks of how it was made, in a word that the rules of the templates forbid.",
    "answer_in_question": "The question says the answer, and offers no other one beside it.",
    "no_evidence": "It names no stretch of the video, or no clip, that shows the answer.",
    "evidence_outside_video": "A stretch of the evidence has no length, begins before the video or ends after it.",
    "unknown_clip": "It cites a clip that the video does not have.",
    "evidence_outside_clips": "A stretch of the evidence is not covered by the clips that it cites.",
}

TOLERANCE = 1.0  # seconds: times are read off frames that lie one second apart
MAX_QUESTION_WORDS = 80
MAX_OPTION_WORDS = 60
MAX_ANSWER_WORDS = 200
MAX_ACCOUNT_WORDS = 1500  # of an answer that retells the video from its global caption
MAX_LENGTH_RATIO = 4.0  # longest option over shortest, where the difference is large enough to be seen:
MIN_LENGTH_DIFFERENCE = 24  # characters; `two` beside `twelve` gives nothing away

_WORD = re.compile(r"[^\W_]+")


def measure(pair: QAPair, seconds: float, clips: Mapping[str, Clip], task: Task, rules: Rules) -> Verdict:
    """seconds: the video's decoded length; clips: its clips by id; task: the task that the pair was written for."""
    sizes = [len(option.strip()) for option in pair.options]
    shown = [
        Span(start=max(span.start, 0.0), end=min(span.end, seconds))
        for span in pair.evidence
        if _within(span, 0.0, seconds)
    ]
    return Verdict(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        problems=(*_form(pair, task), *_text(pair, task, rules), *_evidence(pair, seconds, clips)),
        question_words=len(words(pair.question)),
        answer_words=len(words(pair.answer)),
        option_length_ratio=round(max(sizes) / max(1, min(sizes)), 3) if sizes else 0.0,
        evidence_seconds=round(covered_seconds(shown), 3),
    )


def words(text: str) -> list[str]:
    """A text's words in small letters, without punctuation."""
    return _WORD.findall(text.casefold())


def merged(spans: Iterable[Span], gap: float = 0.0) -> list[Span]:
    """The union of spans, in order; those at most `gap` seconds apart become one."""
    union: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if union and span.start <= union[-1].end + gap:
            union[-1] = Span(start=union[-1].start, end=max(union[-1].end, span.end))
        else:
            union.append(Span(start=span.start, end=span.end))
    return union


def covered_seconds(spans: Iterable[Span]) -> float:
    """The length of the union of spans."""
    return sum(span.end - span.start for span in merged(spans))


def _form(pair: QAPair, task: Task) -> Iterator[str]:
    content = (pair.video_id, pair.task, pair.format, pair.question, pair.options, pair.answer)
    if pair.qa_id != QAPair.id_of(*content):
        yield "wrong_id"
    if (pair.task, pair.topic) != (task.task, task.topic):
        yield "wrong_task"
    if pair.format == "open":
        if pair.options or pair.letter:
            yield "open_with_options"
        return
    if len(pair.options) != len(LETTERS):
        yield "option_count"
    texts = [folded for option in pair.options if (folded := tuple(words(option)))]
    if len(set(texts)) != len(texts):
        yield "equal_options"
    named = dict(zip(LETTERS, pair.options, strict=False))
    if named.get(pair.letter) != pair.answer:
        yield "wrong_letter"


def _text(pair: QAPair, task: Task, rules: Rules) -> Iterator[str]:
    said = (pair.question, pair.answer, *pair.options)
    if not all(words(text) for text in said):
        yield "empty_text"
    most = MAX_ACCOUNT_WORDS if task.reads == ("global",) else MAX_ANSWER_WORDS
    bounds = (MAX_QUESTION_WORDS, most, *[MAX_OPTION_WORDS] * len(pair.options))
    if any(len(words(text)) > bound for text, bound in zip(said, bounds, strict=True)):
        yield "long_text"
    sizes = [len(option.strip()) for option in pair.options] or [0]
    if max(sizes) > MAX_LENGTH_RATIO * min(sizes) and max(sizes) - min(sizes) >= MIN_LENGTH_DIFFERENCE:
        yield "option_lengths"
    if any(rules.forbidden_in(text) for text in said):
        yield "pipeline_word"
    if _answers_itself(pair):
        yield "answer_in_question"


def _answers_itself(pair: QAPair) -> bool:
    """`Which lasts longer, the rain or the snow?` names its answer and does not give it away."""

    def asked(text: str) -> bool:
        return bool(words(text)) and f" {' '.join(words(text))} " in question

    question = f" {' '.join(words(pair.question))} "
    others = (option for option in pair.options if option != pair.answer)
    return asked(pair.answer) and " or " not in question and not any(asked(option) for option in others)


def _evidence(pair: QAPair, seconds: float, clips: Mapping[str, Clip]) -> Iterator[str]:
    if not pair.evidence or not pair.clip_ids:
        yield "no_evidence"
        return
    inside = [span for span in pair.evidence if _within(span, 0.0, seconds)]
    if len(inside) < len(pair.evidence):
        yield "evidence_outside_video"
    cited = [clips[clip_id] for clip_id in pair.clip_ids if clip_id in clips]
    if len(cited) < len(pair.clip_ids):
        yield "unknown_clip"
        return
    stretches = merged((Span(start=clip.start, end=clip.end) for clip in cited), gap=TOLERANCE)
    if not all(any(_within(span, s.start, s.end) for s in stretches) for span in inside):
        yield "evidence_outside_clips"


def _within(span: Span, start: float, end: float) -> bool:
    return start - TOLERANCE <= span.start < span.end <= end + TOLERANCE
