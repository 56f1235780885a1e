"""The offline annotator through its front door: form, wording, balance, determinism, and what it leaves out."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_truth import Told, tell, told, told_of

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.annotators.measured.captions import fields
from marathon_pipeline.annotators.measured.events import caption as event_caption
from marathon_pipeline.annotators.measured.events import spans, title
from marathon_pipeline.annotators.measured.facts import observe
from marathon_pipeline.annotators.measured.qa.action import action_reasoning
from marathon_pipeline.annotators.measured.qa.material import Material
from marathon_pipeline.annotators.measured.qa.object import object_interaction
from marathon_pipeline.annotators.measured.qa.places import far, mirrored
from marathon_pipeline.annotators.measured.story import OUT, happenings
from marathon_pipeline.annotators.measured.timeline import Timeline
from marathon_pipeline.annotators.measured.words import DURATIONS, PLACES, about, duration, factors_apart, spoken
from marathon_pipeline.annotators.protocol import Described
from marathon_pipeline.audit.guessers import Usual, longest, most_central
from marathon_pipeline.errors import Filtered
from marathon_pipeline.intervals import wilson
from marathon_pipeline.media.decode import decode_once
from marathon_pipeline.records import (
    LETTERS,
    Binding,
    Clip,
    ClipCaption,
    ColourShares,
    Fact,
    Signals,
    Span,
    Summary,
    Thing,
    digest,
)
from marathon_pipeline.taxonomy import load_taxonomy

__all__ = ["told", "told_of"]  # fixtures

FIELDS = ("temporality", "spatiality", "object", "action", "scene", "summary")


def test_every_choice_has_four_distinct_options_and_its_letter_names_the_answer(told: Told) -> None:
    for pair in told.pairs:
        if pair.format == "choice":
            assert len({option.casefold() for option in pair.options}) == 4
            assert pair.options[LETTERS.index(pair.letter)] == pair.answer
        else:
            assert not pair.options and not pair.letter


def test_no_question_contains_its_answer(told: Told) -> None:
    assert not [pair for pair in told.pairs if pair.answer.rstrip(".").lower() in pair.question.lower()]


def test_no_question_is_asked_twice_within_a_task_and_format(told: Told) -> None:
    asked = Counter((pair.task, pair.format, pair.question, frozenset(pair.options)) for pair in told.pairs)
    assert max(asked.values()) == 1


def test_evidence_lies_in_the_video_and_names_the_windows_that_hold_it(told: Told) -> None:
    windows = {caption.clip_id: caption for caption in told.captions}
    for pair in told.pairs:
        assert pair.evidence and pair.clip_ids
        assert all(0 <= span.start <= span.end <= told.timeline.end for span in pair.evidence)
        for span in pair.evidence:
            held = [windows[name] for name in pair.clip_ids]
            assert any(window.start <= span.start + 0.1 and span.start <= window.end for window in held)


def test_nothing_written_uses_a_word_of_the_pipeline(told: Told) -> None:
    rules = load_taxonomy().rules
    texts = [text for pair in told.pairs for text in (pair.question, pair.answer, *pair.options)]
    texts += [getattr(caption, field) for caption in told.captions for field in FIELDS]
    texts += [told.summary.text, *(event.title for event in told.events), *(event.caption for event in told.events)]
    assert not [(text, rules.forbidden_in(text)) for text in texts if rules.forbidden_in(text)]
    assert not [text for text in texts if "signal" in text.lower() or not text.strip()]


def test_the_right_letters_are_balanced(told: Told) -> None:
    letters = Counter(pair.letter for pair in told.pairs if pair.letter)
    assert max(letters.values()) - min(letters.values()) <= 0.15 * letters.total()


def test_no_answer_is_right_twice_in_the_choices_of_a_task(told: Told) -> None:
    right = Counter((pair.task, pair.answer) for pair in told.pairs if pair.format == "choice")
    assert max(right.values()) == 1


@pytest.mark.slow
def test_no_guesser_that_never_sees_the_video_beats_chance(told_of: Callable[[int, float], Told]) -> None:
    usual, tasks, asked, right = Usual(), list(load_taxonomy().tasks), Counter[str](), Counter[str]()
    for pair in [pair for seed in range(24) for pair in told_of(seed, 3.0).pairs if pair.format == "choice"]:
        letter = LETTERS.index(pair.letter)
        usual.add(tasks.index(pair.task), [int(digest([pair.task, text])[:16], 16) for text in pair.options], letter)
        for guesser in (longest, most_central):
            guess = guesser(pair.options)
            asked[guesser.__name__] += guess is not None
            right[guesser.__name__] += guess == letter
    for counts, found in zip((asked, right), usual.counts(), strict=True):
        counts.update({tasks[number]: count for number, count in found.items()})
        counts["usual"] = found.total()
    low = {name: wilson(right[name], asked[name])[0] for name in asked}
    assert max(low["usual"], low["longest"], low["most_central"]) <= 0.25
    assert max(low.values()) <= 0.32, low


@given(st.sets(st.integers(1, 500)), st.integers(2, 50))
def test_each_of_a_four_has_the_same_three_beside_it_and_they_are_apart(values: set[int], apart: int) -> None:
    fours = material([], 60).fours("any", values, lambda one, other: abs(one - other) >= apart)
    for value, others in fours.items():
        assert len(others) == 3 and all(abs(a - b) >= apart for a, b in itertools.combinations([value, *others], 2))
        assert all({other, *fours[other]} == {value, *others} for other in others)
    if max(values, default=0) - min(values, default=0) >= 7 * apart and len(values) == max(values) - min(values) + 1:
        assert fours


@given(st.lists(st.sampled_from([f"{x},{y}" for x, y in PLACES]), min_size=1, max_size=2))
def test_of_a_place_and_its_mirror_images_each_has_the_others_for_its_own(cells: list[str]) -> None:
    images = mirrored(*cells)
    assert len(images) in (0, 3) and all({*mirrored(*image)} == {tuple(cells), *images} - {image} for image in images)
    assert all(any(far(*pair) for pair in zip(cells, image, strict=True)) for image in images)


def test_the_same_input_gives_the_same_records(told: Told) -> None:
    async def again() -> list[object]:
        task = load_taxonomy().task("temporal_order")
        return list(await Measured().write_qa(task, "choice", Described(told.captions, told.events, told.summary)))

    first = [pair for pair in told.pairs if (pair.task, pair.format) == ("temporal_order", "choice")]
    assert asyncio.run(again()) == first


def test_events_cover_the_video_without_gaps(told: Told) -> None:
    assert told.events[0].start == 0 and told.events[-1].end == told.timeline.end
    assert all(a.end == b.start for a, b in zip(told.events, told.events[1:], strict=False))


def test_a_picture_that_holds_nothing_is_asked_only_what_it_shows() -> None:
    dull = [row(second) for second in range(60)]
    asked = tell("dull", None, 60.0, dull)
    assert asked.filtered["object_existence", "open"] == "no_things"
    assert asked.filtered["scene_transition", "choice"] == "single_setting"
    assert asked.filtered["event_sequence", "open"] == "too_few_events"
    assert {pair.task for pair in asked.pairs} <= {"scene_recognition", "duration_perception", "overall_summarization"}


def test_a_real_video_whose_movements_have_no_names_is_given_no_account(real_videos: Path, tmp_path: Path) -> None:
    decoded = decode_once(real_videos / "kitchen_ego.mp4", tmp_path / "proxy.mp4", "kitchen")
    asked = tell("kitchen", None, decoded.seconds, decoded.signals)
    assert asked.filtered["overall_summarization", "open"] == "unaccounted"
    assert asked.filtered["action_recognition", "open"] == "no_action"
    assert asked.filtered["object_permanence", "choice"] == "no_things"


def test_a_stretch_cut_by_windows_is_one_stretch() -> None:
    rows = [row(second, [thing(0.5)] if 5 <= second < 55 else []) for second in range(60)]
    timeline = Timeline.of([caption(rows, start, start + 30) for start in (0, 20, 40)])
    (subject,) = timeline.subjects
    assert [(round(span.start), round(span.end)) for span in subject.stretches] == [(5, 55)]


def test_a_flicker_of_two_seconds_ends_no_stretch_and_one_of_five_does() -> None:
    rows = [row(second, [] if second in (10, 11, *range(30, 35)) else [thing(0.5)]) for second in range(60)]
    (subject,) = Timeline.of([caption(rows, 0, 60)]).subjects
    assert [(span.start, span.end) for span in subject.stretches] == [(0, 30), (35, 60)]


def test_two_things_of_one_look_have_no_name() -> None:
    rows = [row(second, [thing(0.2), thing(0.8)]) for second in range(30)]
    assert not Timeline.of([caption(rows, 0, 30)]).subjects


def test_while_its_colour_is_seen_outside_a_thing_the_thing_is_not_called_away() -> None:
    for tinted, gaps in ((range(25, 26), 1), (range(20, 30), 0)):
        rows = [
            row(second, [] if 15 <= second < 40 else [thing(0.5)], stray=0.03 if second in tinted else 0.0)
            for second in range(60)
        ]
        timeline = Timeline.of([caption(rows, 0, 60)])
        assert len(timeline.absences(timeline.subjects[0])) == gaps


def test_what_goes_with_its_view_goes_out_of_view_too() -> None:
    """Offered as a wrong option of `what happens while the other thing is away`, it was right."""
    facts = [fact("visible", 20, 40, "red bar"), fact("setting", 0, 40, "blue", "green"), fact("cut", 40, 41)]
    facts += [fact("setting", 40, 120, "grey", "brown"), *seen_to_go(90, "red bar", start=80)]
    assert material(facts, 120).happens("the red bar goes out of view", 35, 45)


def test_a_way_that_was_not_seen_may_have_been_any() -> None:
    """`The red bar goes out at the top` was offered as wrong where it is only known to have gone out of view."""
    facts = [fact("visible", 5, 60, "red bar"), *seen_to_go(100, "red bar", start=80)]
    written = material(facts, 120)
    assert all(written.happens(f"the red bar goes out {way}", 58, 62) for way in OUT.values())
    assert "the red bar goes out at the top" not in written.elsewhere(55, 65)


def test_a_deed_that_is_done_twice_is_not_asked_for_its_cause() -> None:
    """`What happens just as the red bar begins to move to the left?`, where it is pushed to the left twice."""
    facts = []
    for start, name in ((10, "blue circle"), (100, "green square")):
        facts += [fact("visible", start - 9, start + 30, "red bar"), fact("visible", start - 5, start + 30, name)]
        facts += [fact("reaches", start, start + 1, name, "red bar")]
        facts += [fact("sets_off", start, start + 1, name, "red bar", "left")]
        facts += [fact("moves", start, start + 4, "red bar", value="left")]
    questions = [item.question for item in action_reasoning(material(facts, 150))]
    assert questions and not [text for text in questions if "What happens just as" in text]


def test_whom_two_things_may_have_come_up_against_is_not_asked_about() -> None:
    """A triangle came up against a circle, and the gap between their boxes was a little too large to count."""
    facts = [fact("visible", 0, 90, "red bar"), fact("visible", 0, 90, "blue circle")]
    facts += [fact("visible", 0, 90, "green triangle"), fact("reaches", 20, 21, "blue circle", "red bar")]
    asked = "Which thing comes up against the red bar?"
    assert asked in [item.question for item in object_interaction(material(facts, 90))]
    facts += [fact("nears", 60, 61, "green triangle", "red bar")]
    assert asked not in [item.question for item in object_interaction(material(facts, 90))]


def test_a_triangle_that_comes_up_slowly_against_a_circle_does_so() -> None:
    """Their boxes overlap when they touch, and were less than the least room apart two pictures before."""
    still = Thing(colour="blue", shape="circle", x=0.602, y=0.314, width=0.203, height=0.361, area=0.058)
    coming = Thing(colour="red", shape="triangle", x=0.168, y=0.314, width=0.214, height=0.333, area=0.037)
    ways = dict(zip(range(10, 16), (0.205, 0.255, 0.303, 0.355, 0.405, 0.431), strict=True))
    rows = [
        row(second, [still, coming.model_copy(update={"x": ways.get(second, 0.168 if second < 10 else 0.431)})])
        for second in range(30)
    ]
    assert [one.subject for one in caption(rows, 0, 30).facts if one.kind == "reaches"] == ["red triangle"]


def test_what_fades_in_as_an_event_ends_is_not_in_its_title() -> None:
    facts = [fact("setting", 0, 44, "blue", "white"), fact("visible", 0, 43, "red bar")]
    facts += [fact("visible", 42.9, 90, "pink bar"), fact("setting", 44, 90, "pink", "yellow")]
    timeline = Timeline.of([captioned(facts, 90)])
    assert title(timeline, happenings(timeline), Span(start=0, end=44)).endswith("with a red bar")


def test_no_event_begins_in_the_middle_of_a_deed() -> None:
    """A triangle began to go out in one event, which ended as it was half out, and was the main event of the next."""
    facts = [fact("visible", 0, 46, "red bar"), fact("moves", 38, 44, "red bar", value="right")]
    facts += [fact("leaves", 45, 46, "red bar", value="right"), fact("activity", 43, 76, value="calm")]
    assert 43 not in [span.start for span in spans(Timeline.of([captioned(facts, 120)]))]
    facts[1:3] = []
    assert 43 in [span.start for span in spans(Timeline.of([captioned(facts, 120)]))]


def test_a_turn_of_colour_comes_halfway_between_the_pictures_that_show_it() -> None:
    """Its time was that of the picture before, and a gap to it more than a second too short."""
    facts = [fact("visible", 0, 143, "red bar"), fact("visible", 144, 190, "blue bar")]
    facts += [fact("turns", 142, 145, "red bar", "blue bar", "blue")]
    assert [one.at for one in material(facts, 190).story if one.kind == "turns"] == [143.5]


def test_a_turn_of_colour_that_was_taken_for_a_cut_is_a_turn() -> None:
    """The whole picture was told to change at once, and the turn was not seen."""
    turned = thing(0.5).model_copy(update={"colour": "purple"})
    rows = [row(second, [thing(0.5)]) for second in range(15)]
    rows += [row(second, [turned]).model_copy(update={"shot": 1}) for second in range(15, 30)]
    kinds = [one.kind for one in caption(rows, 0, 30).facts]
    assert "turns" in kinds and "cut" not in kinds
    assert "cut" not in [one.kind for one in caption(rows, 0, 16).facts]
    elsewhere = [one.model_copy(update={"upper": "grey", "things": ()}) for one in rows[15:]]
    assert "cut" in [one.kind for one in caption([*rows[:15], *elsewhere], 0, 30).facts]


def test_what_is_there_as_the_view_changes_is_told() -> None:
    facts = [fact("setting", 0, 40, "blue", "white"), fact("setting", 40, 90, "pink", "yellow")]
    facts += [fact("visible", 40, 90, "red bar")]
    assert "a red bar is in it" in event_caption(Timeline.of([captioned(facts, 90)]), Span(start=39.5, end=90))


def test_the_edge_of_another_thing_is_no_part_of_one_that_comes_in() -> None:
    """A purple rim stayed for six seconds before a purple circle came in, which was told six seconds too early."""
    ways = {10 + index: 0.02 + 0.1 * index for index in range(6)}
    rows = [
        row(second, [thing(min(0.5, ways.get(second, 0.5)))] if second >= 10 else [], 0.001 * (4 <= second < 10))
        for second in range(30)
    ]
    (visible,) = [one for one in caption(rows, 0, 30).facts if one.kind == "visible"]
    assert abs(visible.start - 10) <= 1.5


def test_pacing_whose_turn_is_measured_slow_is_one() -> None:
    """The first leg was told on its own, where its end and the next one's start were 1.1 s apart."""
    places = [0.31, 0.31, 0.31, 0.32, 0.48, 0.63, 0.64, 0.49, 0.32, 0.45, 0.61, 0.67, 0.52, 0.37, 0.31, 0.31, 0.31]
    rows = [row(second, [thing(x)]) for second, x in enumerate(places)]
    facts = caption(rows, 0, len(rows)).facts
    assert [one.amount for one in facts if one.kind == "paces"] == [4]
    assert not [one for one in facts if one.kind == "moves"]


def test_a_thing_that_half_fades_as_the_view_goes_does_not_move() -> None:
    """The last picture before a view had faded out held a half of a triangle: it was told to move down."""
    whole = [row(second, [thing(0.5)]) for second in range(20)]
    half = thing(0.5).model_copy(update={"shape": "thing", "y": 0.6, "area": 0.009})
    facts = caption([*whole, row(20, [half]), *(row(second) for second in range(21, 30))], 0, 30).facts
    assert not [one for one in facts if one.kind == "moves"]


def test_what_came_in_before_a_window_does_not_come_in_in_it() -> None:
    facts = caption(coming_in(10), 0, 30).facts
    assert [one.value for one in facts if one.kind == "enters"] == ["left"]
    assert not [one for one in caption(coming_in(10), 12, 30).facts if one.kind == "enters"]


def coming_in(second: int) -> list[Signals]:
    """A large slow thing from the left; of its first four seconds only a part is in the picture."""
    whole = Thing(colour="red", shape="square", x=0.0, y=0.5, width=0.24, height=0.4, area=0.096)
    rows = []
    for now in range(30):
        x = min(0.5, 0.05 * (now - second + 1) - 0.12)
        shown = [whole.model_copy(update={"x": x})] if x >= 0.12 else []
        part = 0.096 * min(1.0, max(0.0, (x + 0.12) / 0.24))
        rows.append(row(now, shown).model_copy(update={"colours": ColourShares(red=part, blue=1 - part)}))
    return rows


def test_a_relation_that_changes_within_a_clip_is_not_told() -> None:
    facts = [fact("visible", 0, 30, "red bar"), fact("visible", 0, 30, "blue circle")]
    facts += [fact("beside", 1, 13, "red bar", "blue circle", "above")]
    assert "While both rest" in fields(Timeline.of([captioned(facts, 30)]))["spatiality"]
    facts += [fact("beside", 20, 23, "blue circle", "red bar", "askew")]
    assert "While both rest" not in fields(Timeline.of([captioned(facts, 30)]))["spatiality"]


def test_what_is_gone_in_the_last_second_is_not_in_view_all_the_time() -> None:
    def told(end: float) -> str:
        return fields(Timeline.of([captioned([fact("visible", 0, end, "red bar")], 30)]))["object"]

    assert [told(end) for end in (30, 29, 20)] == [
        "A red bar is in view all the time.",
        "A red bar is in view nearly all the time.",
        "A red bar is in view for a part of the time.",
    ]


def test_where_something_without_a_name_is_seen_nothing_is_said_not_to_be() -> None:
    told = fields(Timeline.of([captioned([fact("visible", 0, 30, "red thing")], 30)]))
    assert told["action"] == "No known thing is seen to act."
    assert told["summary"] == "Something red is in view."


def test_a_view_that_is_gone_at_the_end_does_not_go_on_as_it_is() -> None:
    facts = [fact("activity", 0, 28, value="calm"), fact("setting", 0, 29, "white", "pink")]
    facts += [fact("setting", 29, 30, "black", "grey")]
    told = fields(Timeline.of([captioned(facts, 30)]))
    assert told["temporality"] == "For most of the time, the picture goes on as it is."


def test_a_clip_is_bright_only_where_all_its_views_are() -> None:
    facts = [fact("setting", 0, 15, "white", "pink"), fact("setting", 15, 30, "black", "grey")]
    lit = [one.model_copy(update={"amount": light}) for one, light in zip(facts, (0.9, 0.4), strict=True)]
    assert "bright" not in fields(Timeline.of([captioned(lit, 30)]))["scene"]


def test_windows_without_a_measured_second_are_filtered() -> None:
    clip = Clip(video_id="v", clip_id="c", start=0, end=30, shots=(), frame_hashes=())
    with pytest.raises(Filtered) as left_out:
        asyncio.run(Measured().caption_clip(clip, []))
    assert left_out.value.rule == "no_signals"


@given(st.floats(3, 3500), st.integers(0, 3))
def test_durations_to_choose_from_can_be_told_apart(seconds: float, rank: int) -> None:
    scale = factors_apart(seconds, rank, 3600)
    assert spoken(seconds) in scale and set(scale) <= set(DURATIONS)
    assert all(b / a >= 1.6 and b - a >= 5 for a, b in itertools.pairwise(scale))
    assert len({duration(value) for value in scale}) == len(scale) <= 4


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4, "about 4 seconds"),
        (62, "about a minute"),
        (88, "about a minute and a half"),
        (118, "about two minutes"),
        (731, "about twelve minutes"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_times_are_said_as_people_say_them() -> None:
    assert [about(t) for t in (1, 41, 81, 120)] == [
        "at the very start", "about 40 seconds in", "about 1 minute 20 seconds in", "about 2 minutes in",
    ]  # fmt: skip


def fact(kind: str, start: float, end: float, subject: str = "", other: str = "", value: str = "") -> Fact:
    return Fact(kind=kind, start=start, end=end, subject=subject, other=other, value=value)


def seen_to_go(end: float, name: str, start: float) -> list[Fact]:
    """In view from `start`, and out at the top."""
    return [fact("visible", start, end, name), fact("leaves", end - 1, end, name, value="top")]


def captioned(facts: list[Fact], seconds: float) -> ClipCaption:
    """A video of one window that holds these facts."""
    binding = Binding(annotator="measured/1", template_version=1, request="")
    texts = dict.fromkeys(FIELDS, "")
    return ClipCaption(
        video_id="v", clip_id="c0", start=0, end=seconds, facts=tuple(facts), binding=binding, **texts
    )  # fmt: skip


def material(facts: list[Fact], seconds: float) -> Material:
    bound = captioned(facts, seconds)
    return Material(Timeline.of([bound]), (), Summary(video_id="v", text="", binding=bound.binding))


def thing(x: float) -> Thing:
    return Thing(colour="red", shape="circle", x=x, y=0.5, width=0.1, height=0.18, area=0.014)


def row(second: int, things: list[Thing] | None = None, stray: float = 0.0) -> Signals:
    shown = things or []
    red = stray + 0.014 * len(shown)
    return Signals(
        video_id="v",
        second=second,
        shot=0,
        frame_hash="0" * 16,
        brightness=0.5,
        colours=ColourShares(red=red, blue=0.5 - red, green=0.5),
        upper="blue",
        lower="green",
        upper_share=0.95,
        lower_share=0.95,
        motion=0.0,
        motion_grid=(0.0,) * 9,
        camera="still",
        things=tuple(shown),
    )


def caption(rows: list[Signals], start: int, end: int) -> ClipCaption:
    clip = Clip(video_id="v", clip_id=f"c{start}", start=start, end=end, shots=(), frame_hashes=())
    facts = observe(clip, [one for one in rows if start <= one.second < end])
    binding = Binding(annotator="measured/1", template_version=1, request="")
    texts = dict.fromkeys(FIELDS, "")
    return ClipCaption(video_id="v", clip_id=clip.clip_id, start=start, end=end, facts=facts, binding=binding, **texts)
