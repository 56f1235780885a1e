import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.language import foreign
from marathon_pipeline.audit.leaks import answer_leak, option_leak
from marathon_pipeline.audit.measures import OF_A_JUDGE, PROBLEMS, covered_seconds, measure
from marathon_pipeline.audit.options import ways_apart
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
    ("labelled_options", pair, {"options": ("A. Red", "B. Blue", "C. Grey", "D. White"), "answer": "B. Blue"}),
    ("labelled_options", pair, {"options": ("(1) Red", "(2) Blue", "[3] Grey", "d) White"), "answer": "(2) Blue"}),
    ("catch_all_option", pair, {"options": (*OPTIONS[:3], "None of the above.")}),
    ("catch_all_option", pair, {"options": (*OPTIONS[:3], "Both A and B")}),
    ("catch_all_option", pair, {"options": (*OPTIONS[:3], "It cannot be determined")}),
    ("other_script", pair, {"options": (*OPTIONS[:3], "Небольшой самолёт")}),
    ("other_script", open_pair, {"answer": "一只蓝色的风筝"}),
    ("pipeline_word", pair, {"question": "What rises in this CLIP?"}),
    ("pipeline_word", pair, {"options": ("The timestamps", *OPTIONS[1:])}),
    ("pipeline_word", open_pair, {"answer": "A kite, in the last two frames."}),
    ("answer_in_question", pair, {"question": "What is a blue kite, rising?"}),
    ("answer_in_question", open_pair, {"question": "Does a blue kite rise?", "answer": "a Blue kite"}),
    (
        "answer_in_question",
        pair,
        {"question": "Is it a blue kite?", "options": ("A red kite", OPTIONS[1], "A blue", "A kite")},
    ),
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
        ("What happens 10 minutes in? 1 hour in \u2014 a dog. 40 seconds in when he sits.", [600, 3600, 40]),
        ("\u201c5 minutes in\u201d she turns, 2 minutes 3 seconds in and once more", [300, 123]),
        ("It is baked 25 minutes in the oven and explained 5 minutes in-depth", []),
    ],
)
def test_the_times_that_a_text_names_are_read(text: str, named: list[float]) -> None:
    assert moments(text) == named


@given(st.integers(0, 20_000))
def test_a_time_is_read_back_as_a_player_shows_it(seconds: int) -> None:
    assert moments(f"at {clock(seconds)}.") == [seconds]


@given(
    st.integers(1, 500),
    st.sampled_from(["hours", "minutes", "seconds"]),
    st.sampled_from(
        ["the oven", "a row", "silence", "it", "there", "her car", "my house", "what looks like a kitchen"]
    ),
    st.sampled_from(["", ".", ", then leaves.", " before he leaves?"]),
)
def test_a_duration_spent_in_something_is_no_time_of_the_video(number: int, unit: str, place: str, rest: str) -> None:
    assert moments(f"It lies {number} {unit} in {place}{rest}") == []


@given(
    st.integers(1, 500),
    st.sampled_from(["", ".", "?", ", he leaves", ") he leaves", "\n", ": a dog", " he leaves", " does he leave?"]),
)
def test_so_many_minutes_in_are_a_time_of_the_video_whatever_follows(number: int, rest: str) -> None:
    assert moments(f"About {number} minutes in{rest}") == [60 * number]


def test_a_pair_that_tells_how_long_something_is_done_somewhere_is_not_rejected() -> None:
    said = verdict(open_pair(question="Who waits 10 minutes in the hall after 2 hours in the forest?"))
    assert said.problems == () and said.said_off_seconds == 0


def test_every_problem_is_planted_in_these_tests() -> None:
    assert {problem for problem, _, _ in PLANTED} == set(PROBLEMS)


def test_the_documentation_explains_every_problem() -> None:
    text = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    assert {*PROBLEMS, *OF_A_JUDGE} <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


CLEAN: list[QAPair] = [
    pair(),
    open_pair(),
    pair(evidence=(Span(start=39.5, end=50.9),)),  # times are good to a second
    pair(evidence=(Span(start=25, end=68),), clip_ids=("c0001", "c0002")),  # two clips together cover it
    pair(question="Which of a blue kite and a grey bird is higher?"),  # it offers two of the options
    open_pair(question="Is it a kite or a plane?", answer="A kite"),
    pair(question="What is in the picture frame?"),  # an allowed phrase
    pair(question="Which sign of “Καφενείο” and 'π' is over the roof?"),  # what is quoted stands in the picture
    pair(options=("D. Trump", *OPTIONS[2:], "Jürgen"), answer=OPTIONS[2]),
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


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        (("Red", "Blue", "Three", "White"), 1),
        (("About two minutes", "1:20", "2:40", "4:05"), 1),  # the first one is right in all of these
        (("A gate that is open", "A red door", "A rose", "A wall"), 0),
        (("Two minutes", "Four minutes", "A minute", "Half an hour"), 0),
        (("It was opened.", "a red door", "the open window", "the gate"), 3),  # a sentence, a capital, a full stop
        (("It was opened.", "A red door.", "The window.", "Two gates."), 1),
        (("A dog", "a cat", "a bird", "a fish"), 1),
        (("Two dogs", "A cat", "A bird", "One fish"), 1),
        (("He does not sit", "He stands", "He lies", "He runs"), 1),
        (("No, a dog", "Yes, a dog", "Yes, a cat", "Yes, a bird"), 0),
        (("Three", "Four"), 0),
    ],
)
def test_the_only_option_of_its_kind_stands_apart(options: tuple[str, ...], ways: int) -> None:
    right = 2 if options[0] == "Red" else 0
    assert ways_apart(options, right) == ways
    assert not any(ways_apart(options, other) for other in range(len(options)) if other != right)


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4), st.integers(-1, 4))
def test_whoever_stands_apart_does_so_in_any_order(options: list[str], right: int) -> None:
    ways = ways_apart(options, right)
    assert 0 <= ways <= 6
    if 0 <= right < 4:
        assert ways_apart([*options[right + 1 :], *options[: right + 1]], 3) == ways


def test_a_leak_is_found_in_other_forms_and_another_order_of_words() -> None:
    options = ("He sliced the carrots", "He washed the pans", "He fed the dogs", "He opened a window")
    assert option_leak("What does he do after slicing each carrot?", options, 0) == 1
    assert option_leak("What does he do after slicing each carrot?", options, 1) == 0
    assert option_leak("How are the carrots cut?", options, 0) == 0.5
    assert option_leak("What does he do then?", options, 0) == 0
    assert option_leak("Does he slice carrots, or wash a pan?", options, 0) == 0  # it offers both
    assert answer_leak("Whom does the farmer feed, feeding dogs?", "He fed his dogs.") == 0.5  # `fed` has another stem
    assert answer_leak("Is he slicing a carrot or a leek?", "He slices a carrot.") == 0


def test_the_farthest_time_said_is_held_against_the_evidence() -> None:
    assert verdict(pair(question="What rises at 0:30?")).said_off_seconds == 0
    assert verdict(pair(question="What rises after 0:10?", clip_ids=("c0000", "c0001"))).said_off_seconds == 15
    assert verdict(open_pair(answer="A kite, about 1 minute 20 seconds in.")).said_off_seconds == 48


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [
        ("¿Qué hace el hombre después de cortar las zanahorias?", True),
        ("Der Mann schneidet die Karotten in dünne Scheiben.", True),
        ("Que fait la femme après avoir lavé les légumes ?", True),
        ("What does the man do with the carrots?", False),
        ("He pulls out a brass compass.", False),
        ("Slate Glass Tin Wood", False),
        ("Zanahorias", False),  # too short to tell
        ("", False),
    ],
)
def test_a_text_in_another_language_than_the_templates_is_told(text: str, is_foreign: bool) -> None:
    assert (foreign(text, TAXONOMY.rules) > 0.5) == is_foreign


@pytest.mark.parametrize(
    "text",
    [
        "In this segment, who leaves?", "As the caption says, who leaves?", "Who leaves in frame 12?",
        "According to the provided description, who leaves?", "Who leaves in Event 3?", "Who leaves at [00:12]?",
        "Who leaves in c0012?", "Who leaves between 20-50s?", "What does event_003 show?", "Who leaves in shot #4?",
        "What happens in this snippet?", "It is not stated who leaves.", "As an AI language model, I see a man.",
        "In the sampled images, who leaves?", "What does <video> show?", "In the footage provided, who leaves?",
    ],
)  # fmt: skip
def test_words_of_the_pipeline_are_known_in_many_forms(text: str) -> None:
    assert verdict(pair(question=text)).problems == ("pipeline_word",)


@pytest.mark.parametrize(
    "text",
    [
        "Who wins by 3-2 in the second set?", "Who wears number 12?", "Who leaps over the event horizon 3 times?",
        "Who takes 20-30 steps?", "Who eats a chunk of cheese?", "Who shoots at 3 metres?", "Who puts on a record?",
    ],
)  # fmt: skip
def test_ordinary_words_are_not_taken_for_those_of_the_pipeline(text: str) -> None:
    assert verdict(pair(question=text)).problems == ()
