"""What is made of a served model's answers: which are repaired, refused, dropped, kept, and whose they are."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from by_hand import (
    FIELDS,
    SUMMARY,
    TAXONOMY,
    ByHand,
    captions,
    clip,
    code_of,
    events,
    pictures,
    reply,
    settings,
    writer,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marathon_pipeline.annotators.protocol import Described
from marathon_pipeline.annotators.served.annotator import chosen_seconds
from marathon_pipeline.annotators.served.pool import Reply, Request, hash_of, reply_of
from marathon_pipeline.dataset.journal import Answer, Asked, Journal
from marathon_pipeline.errors import Failed, Filtered
from marathon_pipeline.records import LETTERS, Event, QAPair

CLIPS = captions(8)
EVENTS = events(CLIPS, 3)
TASK = TAXONOMY.tasks["temporal_order"]
Answering = Callable[[Request], Reply]


def said(text: str, finish: str = "stop", refusal: str = "") -> Answering:
    return lambda request: reply(text, finish, refusal)


def fields(finish: str = "stop", reference: str = "", **values: Any) -> Answering:
    """An answer of these fields, with the code that was asked for unless it is given."""
    return lambda request: reply(json.dumps({"reference": reference or code_of(request)} | values), finish)


def summary(sender: ByHand, folder: Path, **more: Any) -> str:
    return asyncio.run(writer(sender, folder, **more)[0].summarize(EVENTS)).text


def refusal(sender: ByHand, folder: Path, **more: Any) -> Failed:
    with pytest.raises(Failed) as failed:
        summary(sender, folder, **more)
    return failed.value


def qa(sender: ByHand, folder: Path, format: str = "choice", **more: Any) -> tuple[list[QAPair], Counter[str]]:
    hand, answers = writer(sender, folder, part=TASK.task, **more)
    return asyncio.run(hand.write_qa(TASK, format, Described(CLIPS, EVENTS, SUMMARY))), answers.lost


def split(firsts: Sequence[str], folder: Path, sender: ByHand | None = None) -> list[Event]:
    listed = [{"title": f"It begins with {first}", "first": first} for first in firsts]
    sender = sender or ByHand(*[fields(events=listed)] * 3)
    return asyncio.run(writer(sender, folder)[0].split_events("video", CLIPS))


def test_json_with_raw_line_breaks_is_read(tmp_path: Path) -> None:
    sender = ByHand(lambda request: reply(f'{{"reference": "{code_of(request)}", "caption": "First.\n\tThen."}}'))
    assert summary(sender, tmp_path) == "First.\n\tThen."
    assert len(sender.requests) == 1


BAD = {
    "no JSON": ("It is a nice video.", "not JSON"),
    "a list": ("[]", "object"),
    "nested without end": ("[" * 100_000, "nested"),
    "half a character": ('{"reference": "CODE", "caption": "\\ud800"}', "caption"),
    "a number without end": ('{"reference": "CODE", "caption": ' + "9" * 6000 + "}", "not JSON"),
    "a field too many": ('{"reference": "CODE", "caption": "It rains.", "mood": "sad"}', "mood"),
    "a field too few": ('{"reference": "CODE"}', "caption"),
    "an empty field": ('{"reference": "CODE", "caption": "  "}', "caption"),
    "too long": ('{"reference": "CODE", "caption": "' + "x" * 7000 + '"}', "6000"),
    "no code": ('{"reference": "", "caption": "It rains."}', "reference"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_is_repaired_by_quoting_what_is_wrong(bad: str, tmp_path: Path) -> None:
    text, problem = BAD[bad]
    sender = ByHand(lambda request: reply(text.replace("CODE", code_of(request))), fields(caption="It rains all day."))
    assert summary(sender, tmp_path) == "It rains all day."
    first, second = sender.requests
    assert second.messages[:2] == first.messages and second.seed != first.seed
    assert [message["role"] for message in second.messages[2:]] == ["assistant", "user"]
    assert second.messages[2]["content"] == text.replace("CODE", code_of(first))[:2000]
    assert problem in second.messages[3]["content"]


def test_an_answer_that_stays_bad_after_two_repairs_is_a_failure_that_quotes_it(tmp_path: Path) -> None:
    sender = ByHand(*[said("No.")] * 3)
    failed = refusal(sender, tmp_path)
    assert failed.reason == "bad_answer" and not failed.transient and "not JSON" in failed.message
    assert len(sender.requests) == 3
    assert [len(request.messages) for request in sender.requests] == [2, 4, 4]  # only the last bad answer is shown


def test_an_answer_that_was_cut_off_is_told_so(tmp_path: Path) -> None:
    sender = ByHand(said('{"reference": "', finish="length"), fields(caption="It rains."))
    assert summary(sender, tmp_path) == "It rains."
    assert "cut off" in sender.requests[1].messages[3]["content"]


@pytest.mark.parametrize("refused", [said("", refusal="I cannot help with that."), said("", "content_filter")])
def test_a_refusal_is_not_repaired(refused: Answering, tmp_path: Path) -> None:
    sender = ByHand(refused)
    failed = refusal(sender, tmp_path)
    assert failed.reason == "refused" and not failed.transient
    assert len(sender.requests) == 1


def test_the_answer_to_another_request_is_asked_for_again(tmp_path: Path) -> None:
    other = fields(reference="0badc0de", caption="Another video.")
    sender = ByHand(other, other, fields(caption="This video."))
    assert summary(sender, tmp_path) == "This video."
    assert sender.requests[0] == sender.requests[1] == sender.requests[2]


def test_the_answer_to_another_kind_of_request_is_told_apart_too(tmp_path: Path) -> None:
    sender = ByHand(fields(reference="0badc0de", questions=[]), fields(caption="This video."))
    assert summary(sender, tmp_path) == "This video."
    assert len(sender.requests[1].messages) == 2


def test_a_server_that_mixes_its_answers_up_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    other = fields(reference="0badc0de", caption="Another video.")
    sender = ByHand(other, other, other)
    failed = refusal(sender, tmp_path)
    assert failed.reason == "mixed_up" and failed.transient
    assert summary(ByHand(fields(caption="This video.")), tmp_path) == "This video."  # the next run


def test_without_echo_any_code_will_do(tmp_path: Path) -> None:
    assert summary(ByHand(fields(reference="0badc0de", caption="It rains.")), tmp_path, echo=False) == "It rains."


QUESTION = {
    "question": "What does the woman do after she locks the door?",
    "answer": "She waters the plants",
    "wrong": ["She paints the fence", "She feeds the birds", "She sweeps the steps"],
    "evidence": ["c0001", "c0002"],
}
UNSOUND = {
    "pipeline_word": {"question": "What does the woman do in this clip?"},
    "equal_options": {"wrong": ["She waters the plants.", "She feeds the birds", "She sweeps the steps"]},
    "option_lengths": {
        "answer": "She waters the plants on the balcony one by one and takes her time with each of them"
    },
    "answer_in_question": {"question": "Why is it that she waters the plants?"},
    "empty_text": {"wrong": ["?!", "She feeds the birds", "She sweeps the steps"]},
}


@pytest.mark.parametrize("problem", UNSOUND)
def test_a_question_with_a_fault_is_repaired(problem: str, tmp_path: Path) -> None:
    sender = ByHand(fields(questions=[QUESTION | UNSOUND[problem]]), fields(questions=[QUESTION]))
    (pair,), lost = qa(sender, tmp_path)
    assert pair.answer == QUESTION["answer"] and not lost
    assert "question 1: " in sender.requests[1].messages[3]["content"]


@pytest.mark.parametrize("problem", UNSOUND)
def test_a_question_that_keeps_its_fault_is_dropped_and_counted(problem: str, tmp_path: Path) -> None:
    sender = ByHand(*[fields(questions=[QUESTION | UNSOUND[problem], QUESTION])] * 3)
    (pair,), lost = qa(sender, tmp_path)
    assert pair.question == QUESTION["question"] and lost == {"bad_question": 1}
    assert len(sender.requests) == 3


def test_a_sound_answer_outlives_a_repair_that_spoils_it(tmp_path: Path) -> None:
    sender = ByHand(fields(questions=[QUESTION | UNSOUND["pipeline_word"], QUESTION]), said("Sorry."), said("Sorry."))
    (pair,), lost = qa(sender, tmp_path)
    assert pair.question == QUESTION["question"] and lost == {"bad_question": 1}


def test_the_same_question_twice_is_kept_once(tmp_path: Path) -> None:
    again = QUESTION | {"question": QUESTION["question"].upper()}
    (pair,), lost = qa(ByHand(fields(questions=[QUESTION, again])), tmp_path)
    assert lost == {"asked_twice": 1} and pair.question == QUESTION["question"]


@pytest.mark.parametrize("evidence", [["c0099"], [], "c0001"])
def test_a_question_about_a_clip_that_was_not_shown_is_repaired_then_a_failure(evidence: Any, tmp_path: Path) -> None:
    bad = fields(questions=[QUESTION | {"evidence": evidence}])
    (pair,), _ = qa(ByHand(bad, fields(questions=[QUESTION])), tmp_path / "repaired")
    assert pair.clip_ids == ("c0001", "c0002")
    with pytest.raises(Failed) as failed:
        qa(ByHand(bad, bad, bad), tmp_path / "kept")
    assert failed.value.reason == "bad_answer"


def test_more_questions_than_were_asked_for_are_repaired(tmp_path: Path) -> None:
    many = [QUESTION | {"question": f"What does the woman do after the {number}th bell?"} for number in range(4)]
    pairs, _ = qa(ByHand(fields(questions=many), fields(questions=many[:3])), tmp_path)
    assert len(pairs) == 3


@pytest.mark.parametrize("questions", [[], [QUESTION | UNSOUND["pipeline_word"]]])
def test_no_sound_question_filters_the_format(questions: list[Any], tmp_path: Path) -> None:
    with pytest.raises(Filtered) as filtered:
        qa(ByHand(*[fields(questions=questions)] * 3), tmp_path)
    assert filtered.value.rule == "nothing_to_ask"


def test_evidence_is_in_order_once_and_joined_where_clips_overlap(tmp_path: Path) -> None:
    asked = QUESTION | {"evidence": ["c0006", "c0001", "c0002", "c0006"]}
    (pair,), _ = qa(ByHand(fields(questions=[asked])), tmp_path)
    assert pair.clip_ids == ("c0001", "c0002", "c0006")
    assert [(span.start, span.end) for span in pair.evidence] == [(20, 70), (120, 150)]


WORD = st.text("bcdfglmnprst", min_size=4, max_size=8)


@given(words=st.lists(WORD, min_size=5, max_size=5, unique=True))
def test_a_choice_has_four_options_and_its_letter_points_at_the_answer(
    words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    asked, answer, *wrong = words
    item = QUESTION | {"question": f"What is it that {asked}?", "answer": answer, "wrong": wrong}
    (pair,), _ = qa(ByHand(fields(questions=[item])), tmp_path_factory.mktemp("choice"))
    assert sorted(pair.options) == sorted([answer, *wrong])
    assert pair.options[LETTERS.index(pair.letter)] == answer == pair.answer
    assert [option for option in pair.options if option != answer] == wrong


def test_letters_are_balanced(tmp_path: Path) -> None:
    def three(number: int) -> Answering:
        asked = [QUESTION | {"question": f"What happens after bell {number + more}?"} for more in range(3)]
        return fields(questions=asked)

    letters = Counter(
        pair.letter for number in range(0, 1200, 3) for pair in qa(ByHand(three(number)), tmp_path / str(number))[0]
    )
    assert sum(letters.values()) == 1200
    assert all(240 < letters[letter] < 360 for letter in LETTERS)  # 300 each, four deviations around


@given(firsts=st.lists(st.sampled_from([caption.clip_id for caption in CLIPS]), min_size=1, max_size=6))
def test_events_follow_one_another_without_gap_from_the_first_clip_to_the_last(
    firsts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = split(firsts, tmp_path_factory.mktemp("split"))
    assert [clip_id for event in found for clip_id in event.clip_ids] == [caption.clip_id for caption in CLIPS]
    assert found[0].start == CLIPS[0].start and found[-1].end == CLIPS[-1].end
    assert all(before.end == after.start for before, after in pairwise(found))
    assert [event.event_id for event in found] == [f"event_{number:03d}" for number in range(len(found))]
    begun = sorted(set(firsts))
    assert [event.title for event in found] == [f"It begins with {first}" for first in begun]
    assert [event.clip_ids[0] for event in found][1:] == begun[1:]


def test_two_events_that_begin_together_are_repaired(tmp_path: Path) -> None:
    twice = [{"title": "One", "first": "c0000"}, {"title": "Two", "first": "c0000"}]
    once = [{"title": "One", "first": "c0000"}, {"title": "Two", "first": "c0004"}]
    sender = ByHand(fields(events=twice), fields(events=once))
    assert [event.title for event in split((), tmp_path, sender)] == ["One", "Two"]
    assert "two events begin with c0000" in sender.requests[1].messages[3]["content"]


def test_an_account_of_the_whole_video_asks_no_model(tmp_path: Path) -> None:
    task, sender = TAXONOMY.tasks["overall_summarization"], ByHand()
    (pair,) = asyncio.run(writer(sender, tmp_path)[0].write_qa(task, "open", Described(CLIPS, EVENTS, SUMMARY)))
    assert sender.requests == []
    assert pair.answer == SUMMARY.text and pair.question in {shown.question for shown in task.demonstrations}
    assert pair.clip_ids == tuple(caption.clip_id for caption in CLIPS)


def test_what_was_answered_is_never_asked_again(tmp_path: Path) -> None:
    first = ByHand(said("No JSON."), fields(caption="It rains."))
    assert summary(first, tmp_path) == "It rains."
    silent = ByHand()
    assert summary(silent, tmp_path) == "It rains."  # the repair's answer, though the first request's was bad
    assert silent.requests == []


def test_an_answer_that_was_kept_bad_is_the_same_failure_again_without_a_request(tmp_path: Path) -> None:
    refusal(ByHand(*[said("No.")] * 3), tmp_path)
    silent = ByHand()
    assert refusal(silent, tmp_path).reason == "bad_answer"
    assert silent.requests == []


def test_another_round_asks_with_another_seed_and_code_what_came_to_nothing(tmp_path: Path) -> None:
    first = ByHand(said("", "content_filter"))
    assert refusal(first, tmp_path).reason == "refused"
    second = ByHand(fields(caption="It rains."))
    assert summary(second, tmp_path, rounds=(0, 1)) == "It rains."
    (before,), (after,) = first.requests, second.requests
    assert before.seed != after.seed and code_of(before) != code_of(after)
    assert before.messages[1]["content"].splitlines()[:-1] == after.messages[1]["content"].splitlines()[:-1]
    silent = ByHand()
    assert summary(silent, tmp_path, rounds=(0, 1)) == "It rains." and silent.requests == []


def test_another_round_keeps_the_good_answers_of_the_one_before(tmp_path: Path) -> None:
    assert summary(ByHand(fields(caption="It rains.")), tmp_path) == "It rains."
    silent = ByHand()
    assert summary(silent, tmp_path, rounds=(0, 3)) == "It rains." and silent.requests == []


def test_forced_work_asks_anew_what_was_answered_well(tmp_path: Path) -> None:
    assert summary(ByHand(fields(caption="It rains.")), tmp_path) == "It rains."
    assert summary(ByHand(fields(caption="It pours.")), tmp_path, rounds=(1, 1)) == "It pours."


def test_a_failure_that_may_pass_begins_no_new_round(tmp_path: Path) -> None:
    def unreachable(request: Request) -> Reply:
        raise Failed("server_unreachable", transient=True)

    sender = ByHand(unreachable)
    assert refusal(sender, tmp_path, rounds=(0, 2)).reason == "server_unreachable"
    assert len(sender.requests) == 1


async def caption_all(sender: ByHand, folder: Path, count: int = 6) -> Journal:
    hand, answers = writer(sender, folder)
    asked = [hand.caption_clip(clip(index), (), pictures) for index in range(count)]
    for each in await asyncio.gather(*asked, return_exceptions=True):
        assert not isinstance(each, BaseException) or isinstance(each, Failed)
    return answers.journal


def segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("stage-*.jsonl"))


def kept(lines: Sequence[bytes]) -> list[Any]:
    return sorted((json.loads(line) for line in lines), key=lambda line: str(line.get("request", "")))


def test_the_joined_journal_holds_what_its_segments_held(tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is a joined file already
        journal = asyncio.run(caption_all(ByHand(), tmp_path))
    before = kept([line for path in segments(tmp_path) for line in path.read_bytes().splitlines()])
    usage = journal.usage("")
    journal.join()
    assert segments(tmp_path) == []
    (joined,) = tmp_path.rglob("stage.jsonl.gz")
    assert kept(gzip.decompress(joined.read_bytes()).splitlines()) == before and len(before) == 6
    silent = ByHand()
    again = asyncio.run(caption_all(silent, tmp_path))
    assert silent.requests == [] and again.usage("") == usage


def test_what_is_joined_later_stands_behind_what_was_joined_before(tmp_path: Path) -> None:
    asyncio.run(caption_all(ByHand(), tmp_path, count=4)).join()
    (joined,) = tmp_path.rglob("stage.jsonl.gz")
    before = joined.read_bytes()
    later = asyncio.run(caption_all(ByHand(), tmp_path, count=6))
    later.join()
    assert joined.read_bytes().startswith(before) and segments(tmp_path) == []
    silent = ByHand()
    again = asyncio.run(caption_all(silent, tmp_path, count=6))
    assert silent.requests == [] and again.usage("") == later.usage("")


def test_text_that_prompts_share_is_kept_once(tmp_path: Path) -> None:
    hand, answers = writer(ByHand(), tmp_path, part=TASK.task)

    async def ask() -> None:
        for format in ("open", "choice"):
            await hand.write_qa(TASK, format, Described(CLIPS, EVENTS, SUMMARY))

    asyncio.run(ask())
    answers.journal.join()
    (joined,) = tmp_path.rglob("stage.jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(joined.read_bytes()).splitlines()]
    (shared,) = [line for line in lines if "shared_text" in line]
    assert [line["shared"] for line in lines] == [shared["shared"]] * 3
    assert CLIPS[0].action in shared["shared_text"]
    assert all(CLIPS[0].action not in line.get("prompt", "") for line in lines)


@pytest.mark.parametrize("damage", ["torn", "noise", "emptied", "gone"])
def test_damaged_lines_of_a_journal_are_asked_again_and_no_others(damage: str, tmp_path: Path) -> None:
    journal = asyncio.run(caption_all(ByHand(), tmp_path))
    lines = [line for path in segments(tmp_path) for line in path.read_bytes().splitlines(keepends=True)]
    assert len(lines) == 6
    for path in segments(tmp_path)[1:]:
        path.unlink()
    first, *others = lines
    spoilt = {"torn": first[: len(first) // 2] + b"\n", "noise": b"\xff\x00[]\n5\n{}\n", "emptied": b"\n", "gone": b""}
    segments(tmp_path)[0].write_bytes(spoilt[damage] + b"".join(others))
    sender = ByHand()
    again = asyncio.run(caption_all(sender, tmp_path))
    assert len(sender.requests) == 1
    assert again.usage("") == journal.usage("")


def test_a_damaged_joined_journal_is_asked_again(tmp_path: Path) -> None:
    asyncio.run(caption_all(ByHand(), tmp_path)).join()
    (joined,) = tmp_path.rglob("stage.jsonl.gz")
    joined.write_bytes(joined.read_bytes()[:-40])
    sender = ByHand()
    asyncio.run(caption_all(sender, tmp_path)).join()
    assert len(sender.requests) == 6
    silent = ByHand()
    asyncio.run(caption_all(silent, tmp_path))
    assert silent.requests == []


def test_a_kill_between_joining_and_clearing_up_counts_nothing_twice(tmp_path: Path) -> None:
    journal = asyncio.run(caption_all(ByHand(), tmp_path))
    left = {path: path.read_bytes() for path in segments(tmp_path)}
    usage = journal.usage("")
    journal.join()
    for path, data in left.items():
        path.write_bytes(data)
    silent = ByHand()
    assert asyncio.run(caption_all(silent, tmp_path)).usage("") == usage
    assert silent.requests == []


def test_usage_is_the_sum_over_all_that_was_asked_repairs_and_mix_ups_too(tmp_path: Path) -> None:
    other = fields(reference="0badc0de", caption="Another video.")
    hand, answers = writer(ByHand(other, said("No."), fields(caption="It rains.")), tmp_path, part="a")
    asyncio.run(hand.summarize(EVENTS))
    (usage,) = answers.journal.usage("a")
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (3, 300, 120, 30)
    assert (usage.seconds, usage.gpu_seconds, usage.model) == (1.5, 0.75, "test")
    assert answers.journal.usage("another part") == ()


def test_what_arrives_while_a_segment_is_written_goes_into_the_next_one(tmp_path: Path) -> None:
    class Together(ByHand):
        async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
            await asyncio.sleep(0.05)
            return await super().send(request, asked, journal)

    asyncio.run(caption_all(Together(), tmp_path, count=40))
    assert 1 <= len(segments(tmp_path)) < 20


COMPLETION = {"id": "1", "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}


def test_a_completion_may_lack_what_nobody_needs() -> None:
    found = reply_of(COMPLETION, 1.0, 0.5)
    assert (found.text, found.prompt_tokens, found.refusal) == ("Yes.", 0, "")


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": None}, {"choices": [None]}, {"choices": [{}]}, {"choices": [{"message": None}]}],
)
def test_json_that_is_no_completion_is_told_apart(body: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        reply_of(body, 1.0, 0.5)


class Held(ByHand):
    """Answers nothing until it is told to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Request, asyncio.Future[Reply]]] = []

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        self.requests.append(request)
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.held.append((request, answer))
        return await answer


def about(request: Request) -> str:
    """The answer to a clip's request, which names the first of the pictures that were shown."""
    told = {field: f"{request.pictures[0].decode()}: {field}" for field in FIELDS}
    return json.dumps({"reference": code_of(request)} | told)


def shown_of(index: int) -> tuple[bytes, ...]:
    return tuple(asyncio.run(pictures(chosen_seconds(clip(index), 16), 336)))


MOMENTS = st.lists(
    st.tuples(st.sampled_from(["answer", "answer", "answer", "bad", "other", "cancel"]), st.integers(0, 1 << 30)),
    min_size=30,
    max_size=80,
)


@hypothesis_settings(max_examples=60)
@given(moments=MOMENTS)
def test_every_row_carries_the_answer_to_its_own_request_whatever_the_order_and_whoever_is_cancelled(
    moments: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    count, folder = 12, tmp_path_factory.mktemp("binding")

    async def run() -> tuple[list[Any], list[Request]]:
        sender = Held()
        hand, _ = writer(sender, folder)
        callers = [asyncio.ensure_future(hand.caption_clip(clip(index), (), pictures)) for index in range(count)]
        while len(sender.held) < count:
            await asyncio.sleep(0)
        for what, place in moments:
            if what == "cancel":
                callers[place % count].cancel()
            elif sender.held:
                request, answer = sender.held.pop(place % len(sender.held))
                another = sender.requests[place % len(sender.requests)]
                if not answer.done():
                    answer.set_result(reply({"answer": about(request), "bad": "No.", "other": about(another)}[what]))
            await asyncio.sleep(0.0005 if place % 2 else 0)
        while not all(caller.done() for caller in callers):
            for request, answer in sender.held:
                if not answer.done():
                    answer.set_result(reply(about(request)))
            sender.held.clear()
            await asyncio.sleep(0.0005)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        return await asyncio.gather(*callers, return_exceptions=True), sender.requests

    rows, requests = asyncio.run(run())
    own = {hash_of(request, settings()): request for request in requests}
    for index, row in enumerate(rows):
        if isinstance(row, BaseException):
            assert isinstance(row, asyncio.CancelledError | Failed)
            continue
        shown = shown_of(index)
        assert row.clip_id == f"c{index:04d}" and own[row.binding.request].pictures == shown
        assert all(getattr(row, field) == f"{shown[0].decode()}: {field}" for field in FIELDS)
    lines = [json.loads(line) for path in segments(folder) for line in path.read_text().splitlines()]
    for line in lines:
        answer = Answer.model_validate(line)
        assert own[answer.request].pictures == shown_of(int(answer.unit[1:]))

    silent = ByHand()  # the next run: good answers are kept, also those whose caller was cancelled meanwhile
    asyncio.run(caption_all(silent, folder, count))
    answered = {line["request"] for line in lines if code_of(own[line["request"]]) in line["text"]}
    assert not answered & {hash_of(request, settings()) for request in silent.requests}
