"""What is measured of one QA pair on its own: its form, its evidence and its words. Nobody looks at the video here."""

from collections.abc import Iterable, Iterator, Mapping

from marathon_pipeline import wording
from marathon_pipeline.audit.language import foreign
from marathon_pipeline.audit.leaks import answer_leak, option_leak
from marathon_pipeline.audit.options import ways_apart
from marathon_pipeline.records import LETTERS, Clip, QAPair, Span, Verdict, merged, union
from marathon_pipeline.taxonomy import Rules, Task
from marathon_pipeline.wording import words

PROBLEMS: dict[str, str] = {
    "wrong_id": "Its id is not the hash of its content, so a verdict could slide onto another text.",
    "wrong_task": "Its task or its topic is not the one that was asked for.",
    "open_with_options": "An open-ended question carries options or a letter.",
    "option_count": "A multiple-choice question has more or fewer than four options.",
    "wrong_letter": "The letter is missing, is no option's, or points at another text than the answer.",
    **wording.PROBLEMS,
    "time_outside_video": "Its question, its answer or an option names a time that the video does not have.",
    "no_evidence": "It names no stretch of the video, or no clip, that shows the answer.",
    "evidence_outside_video": "A stretch of the evidence has no length, begins before the video or ends after it.",
    "unknown_clip": "It cites a clip that the video does not have.",
    "evidence_outside_clips": "A stretch of the evidence is not covered by the clips that it cites.",
}
# By what a judge said of it, where there is one: the gates decide.
OF_A_JUDGE: dict[str, str] = {
    "answered_blind": "A judge answers it right without the video, in more orders of its options than the gates allow.",
    "not_grounded": "By the captions of its evidence a judge comes to another option, or to none.",
    "judged_wrong": "By the captions of its evidence a judge finds the answer wrong, or not said.",
    "judged_vague": "A judge finds that the answer says nothing definite.",
    "unjudged": "A judge was asked, and gave no usable answer.",
}

TOLERANCE = 1.0  # seconds: times are read off frames that lie one second apart
SAID_TOLERANCE = 5.0  # seconds: people say times rounded


def measure(pair: QAPair, seconds: float, clips: Mapping[str, Clip], task: Task, rules: Rules) -> Verdict:
    """seconds: the video's decoded length; clips: its clips by id; task: the task that the pair was written for."""
    sizes = [len(option.strip()) for option in pair.options]
    shown = [
        Span(start=max(span.start, 0.0), end=min(span.end, seconds))
        for span in pair.evidence
        if _within(span, 0.0, seconds)
    ]
    said = wording.problems(pair.question, pair.options, pair.answer, task, rules)
    right = LETTERS.find(pair.letter) if pair.letter else -1
    return Verdict(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        problems=(*_form(pair, task), *said, *_times(pair, seconds), *_evidence(pair, seconds, clips)),
        question_words=len(words(pair.question)),
        answer_words=len(words(pair.answer)),
        option_length_ratio=round(max(sizes) / max(1, min(sizes)), 3) if sizes else 0.0,
        evidence_seconds=round(covered_seconds(shown), 3),
        said_off_seconds=round(_said_off(pair), 3),
        ways_apart=ways_apart(pair.options, right),
        option_leak=round(option_leak(pair.question, pair.options, right), 3),
        answer_leak=0.0 if pair.options else round(answer_leak(pair.question, pair.answer), 3),
        foreign=round(max(foreign(pair.question, rules), foreign(" ".join(pair.options) or pair.answer, rules)), 3),
    )


def covered_seconds(spans: Iterable[Span]) -> float:
    """The length of the union of spans."""
    return length((span.start, span.end) for span in spans)


def length(stretches: Iterable[tuple[float, float]]) -> float:
    """Of the union of starts and ends."""
    return sum(end - start for start, end in union(stretches))


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
    named = dict(zip(LETTERS, pair.options, strict=False))
    if named.get(pair.letter) != pair.answer:
        yield "wrong_letter"


def _times(pair: QAPair, seconds: float) -> Iterator[str]:
    texts = (pair.question, pair.answer, *pair.options)
    if any(moment > seconds + SAID_TOLERANCE for text in texts for moment in wording.moments(text)):
        yield "time_outside_video"


def _said_off(pair: QAPair) -> float:
    """Seconds from the farthest time that the question or the answer names to the evidence nearest to it."""
    said = (moment for text in (pair.question, pair.answer) for moment in wording.moments(text))
    gaps = [min(max(s.start - moment, moment - s.end, 0.0) for s in pair.evidence) for moment in said if pair.evidence]
    return max(gaps, default=0.0)


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
