import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.measures import PROBLEMS, covered_seconds, measure
from marathon_pipeline.records import Binding, Clip, QAPair, Span, Verdict, merged
from marathon_pipeline.taxonomy import clock, load_taxonomy
from marathon_pipeline.wording import moments, words

SECONDS = 100.0
CLIPS = {
    f"c{index:04d}": Clip(
        video_id="v", clip_id=f"c{index:04d}", start=20.0 * index, end=20.0 * index + 30, shots=(), frame_hashes=()
    )
    for index in range(4)
}
OPTIONS = ("A red kite", "A blue kite", "A grey bird", "A small plane")
TAXONOMY = load_taxonomy()
Change = dict[str, object]


def pair(**changes: object) -> QAPair:
    fields: Change = {
        "video_id": "v",
        "task": "object_recognition",
        "topic": "object",
        "format": "choice",
        "question": "What rises over the roof?",
        "options": OPTIONS,
        "answer": OPTIONS[1],
        "letter": "B",
        "evidence": (Span(start=25, end=32),),
        "clip_ids": ("c0001",),
        "binding": Binding(annotator="hand/1", template_version=1, request=""),
    }
    fields |= changes
    if "qa_id" not in fields:
        content = (fields[key] for key in ("video_id", "task", "format", "question", "options", "answer"))
        fields["qa_id"] = QAPair.id_of(*content)  # type: ignore[arg-type]
    return QAPair.model_validate(fields)


def open_pair(**changes: object) -> QAPair:
    return pair(**{"format": "open", "options": (), "letter": "", "answer": "A blue kite does."} | changes)


def verdict(of: QAPair, task: str = "object_recognition") -> Verdict:
    return measure(of, SECONDS, CLIPS, TAXONOMY.tasks[task], TAXONOMY.rules)


PLANTED: list[tuple[str, Callable[..., QAPair], Change]] = [
    ("wrong_id", pair, {"qa_id": "of another text"}),
    ("wrong_task", pair, {"task": "object_attribute"}),
    ("wrong_task", pair, {"topic": "scene"}),
    ("open_with_options", open_pair, {"letter": "A"}),
    ("open_with_options", open_pair, {"options": OPTIONS}),
    ("option_count", pair, {"options": OPTIONS[:3]}),
    ("option_count", pair, {"options": (*OPTIONS, "A cloud")}),
    ("equal_options", pair, {"options": ("a  Blue KITE!", *OPTIONS[1:])}),
    ("wrong_letter", pair, {"letter": "A"}),
    ("wrong_letter", pair, {"letter": "b"}),
    ("wrong_letter", pair, {"letter": ""}),
    ("wrong_letter", pair, {"letter": "E"}),
    ("wrong_letter", pair, {"answer": "A blue kite."}),
    ("empty_text", pair, {"question": "?"}),
    ("empty_text", pair, {"options": ("—", *OPTIONS[1:])}),
    ("empty_text", open_pair, {"answer": " "}),
    ("long_text", pair, {"question": "and then " * 41}),
    ("long_text", open_pair, {"answer": "up and down " * 70}),
    ("option_lengths", pair, {"options": ("A red kite that somebody lost on the beach yesterday", *OPTIONS[1:])}),
    ("pipeline_word", pair, {"question": "What rises in this CLIP?"}),
    ("pipeline_word", pair, {"options": ("The timestamps", *OPTIONS[1:])}),
    ("pipeline_word", open_pair, {"answer": "A kite, in the last two frames."}),
    ("answer_in_question", pair, {"question": "What is a blue kite, rising?"}),
    ("answer_in_question", open_pair, {"question": "Does a blue kite rise?", "answer": "a Blue kite"}),
    ("time_outside_video", pair, {"question": "What rises over the roof at 1:47?"}),
    ("time_outside_video", open_pair, {"answer": "A kite, at 1:00:05."}),
    ("time_outside_video", open_pair, {"answer": "A kite, about 1 minute 50 seconds in."}),
    ("time_outside_video", pair, {"options": ("2 minutes into the video", *OPTIONS[1:])}),
    ("no_evidence", pair, {"evidence": ()}),
    ("no_evidence", pair, {"clip_ids": ()}),
    ("evidence_outside_video", pair, {"evidence": (Span(start=25, end=32), Span(start=90, end=120))}),
    ("evidence_outside_video", pair, {"evidence": (Span(start=-5, end=32),)}),
    ("evidence_outside_video", pair, {"evidence": (Span(start=30, end=30),)}),
    ("evidence_outside_video", pair, {"evidence": (Span(start=math.nan, end=30),)}),
    ("unknown_clip", pair, {"clip_ids": ("c0001", "c0099")}),
    ("evidence_outside_clips", pair, {"evidence": (Span(start=25, end=60),)}),
    ("evidence_outside_clips", pair, {"evidence": (Span(start=5, end=10),)}),
]


@pytest.mark.parametrize(("problem", "make", "change"), PLANTED)
def test_a_planted_problem_is_found_and_no_other(
    problem: str, make: Callable[..., QAPair], change: dict[str, object]
) -> None:
    assert verdict(make(**change)).problems == (problem,)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("It begins at 4:05, and again at 1:02:00.", [245, 3720]),
        ("about 2 minutes 10 seconds in, and 40 seconds into the video", [130, 40]),
        ("1 hour, 2 minutes and 3 seconds from the start", [3723]),
        ("for 90 minutes in total, 3 times in a row, 5 seconds in length", []),
        ("a ratio of 16:9, version 1.2:30, the 12:60 train, 3 in the garden, in 40 seconds", []),
    ],
)
def test_the_times_that_a_text_names_are_read(text: str, named: list[float]) -> None:
    assert moments(text) == named


@given(st.integers(0, 20_000))
def test_a_time_is_read_back_as_a_player_shows_it(seconds: int) -> None:
    assert moments(f"at {clock(seconds)}.") == [seconds]


def test_every_problem_is_planted_in_these_tests() -> None:
    assert {problem for problem, _, _ in PLANTED} == set(PROBLEMS)


def test_the_documentation_explains_every_problem() -> None:
    text = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    assert set(PROBLEMS) <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


CLEAN: list[QAPair] = [
    pair(),
    open_pair(),
    pair(evidence=(Span(start=39.5, end=50.9),)),  # times are good to a second
    pair(evidence=(Span(start=25, end=68),), clip_ids=("c0001", "c0002")),  # two clips together cover it
    pair(question="Which of a blue kite and a grey bird is higher?"),  # it offers two of the options
    open_pair(question="Is it a kite or a plane?", answer="A kite"),
    pair(question="What is in the picture frame?"),  # an allowed phrase
    pair(question="Is the eclipse over the roof?"),  # holds a forbidden word, but not as a word
    pair(options=("Two", "Eleven", "Thirty-one", "None"), answer="Eleven"),  # unlike, but too short to tell
]


@pytest.mark.parametrize("clean", CLEAN, ids=lambda pair: pair.question)
def test_a_sound_pair_has_no_problem(clean: QAPair) -> None:
    assert verdict(clean).problems == ()


def test_an_account_of_the_whole_video_may_be_long() -> None:
    account = open_pair(task="overall_summarization", topic="event", answer="It rises and falls. " * 100)
    assert verdict(account, "overall_summarization").problems == ()


def test_a_verdict_carries_the_measures() -> None:
    evidence = (Span(start=25, end=32), Span(start=30, end=36), Span(start=40, end=41))
    found = verdict(pair(evidence=evidence))
    assert (found.question_words, found.answer_words) == (5, 3)
    assert found.evidence_seconds == 12
    assert found.option_length_ratio == 1.3
    assert verdict(open_pair()).option_length_ratio == 0


@given(st.text(), st.text(), st.lists(st.text(), max_size=6), st.text(max_size=2))
def test_any_text_gets_a_verdict(question: str, answer: str, options: list[str], letter: str) -> None:
    found = verdict(pair(question=question, answer=answer, options=tuple(options), letter=letter))
    assert set(found.problems) <= set(PROBLEMS)
    assert len(set(found.problems)) == len(found.problems)


times = st.integers(0, 40).map(float)
span_lists = st.lists(
    st.tuples(times, times).map(lambda ends: Span(start=min(ends), end=max(ends))).filter(lambda s: s.start < s.end)
)


@given(span_lists)
def test_merging_keeps_exactly_the_seconds_that_are_covered(spans: list[Span]) -> None:
    seconds = {second for span in spans for second in range(int(span.start), int(span.end))}
    assert covered_seconds(spans) == len(seconds)
    union = merged(spans)
    assert all(before.end < after.start for before, after in pairwise(union))


def test_words_leave_case_and_punctuation_behind() -> None:
    assert words("  Don't — the RED_kite, 2 m!") == ["don", "t", "the", "red", "kite", "2", "m"]
