"""What served models are asked: what requests share, what each one shows, how a long video is shortened."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from by_hand import FIELDS, SUMMARY, TAXONOMY, ByHand, annotator, captions, clip, events, pictures, settings, writer

from marathon_pipeline.annotators.protocol import Described
from marathon_pipeline.annotators.served import prompts
from marathon_pipeline.annotators.served.pool import Request, body_of
from marathon_pipeline.annotators.served.views import View, views
from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import ClipCaption, Event
from marathon_pipeline.taxonomy import Task

CLIP_ID = re.compile(r"^(c\d{4}) \(", re.MULTILINE)
SHORT = captions(8), events(captions(8), 3)
LONG = captions(180, words=100), events(captions(180), 9)
SMALL = {"context_tokens": 8192, "answer_tokens": 1024}
HEADINGS = {
    "Change over time": "temporality",
    "Positions": "spatiality",
    "Persons and things": "object",
    "Action": "action",
    "Scene": "scene",
}
Asked = dict[tuple[str, str], Request]


def asked_of(folder: Path, clips: Sequence[ClipCaption], parts: Sequence[Event], **model: Any) -> Asked:
    """What is sent for every task and format."""
    requests: Asked = {}
    sender = ByHand()
    served = annotator(sender, **model)
    for task in TAXONOMY.tasks.values():
        hand = served.for_work(Answers(Journal(Storage(str(folder)), "qa", "video"), task.task))
        for format in ("open", "choice") if task.reads != ("global",) else ():
            asyncio.run(hand.write_qa(task, format, Described(clips, parts, SUMMARY)))
            requests[task.task, format] = sender.requests[-1]
    return requests


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return asked_of(tmp_path_factory.mktemp("short"), *SHORT)


@pytest.fixture(scope="module", params=["8k", "32k"])
def long(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return asked_of(tmp_path_factory.mktemp("long"), *LONG, **(SMALL if request.param == "8k" else {}))


def text(request: Request) -> str:
    return request.messages[1]["content"]


def siblings(asked: Asked) -> list[list[Request]]:
    """The requests of each topic whose tasks read the same."""
    groups = defaultdict(list)
    for (task, _), request in asked.items():
        groups[TAXONOMY.tasks[task].topic, frozenset(TAXONOMY.tasks[task].reads)].append(request)
    return list(groups.values())


def test_the_requests_of_a_topic_begin_with_the_same_bytes_that_tell_the_whole_video(short: Asked) -> None:
    for group in siblings(short):
        (shared,) = {request.shared for request in group}
        assert len({request.messages[0]["content"] for request in group}) == 1
        assert all(text(request).startswith(shared) for request in group)
        assert CLIP_ID.findall(shared) == [caption.clip_id for caption in SHORT[0]]
        assert len({text(request)[len(shared) :] for request in group}) == len(group)


def test_topics_that_read_the_same_fields_share_their_notes_too(short: Asked) -> None:
    assert short["temporal_order", "open"].shared == short["action_sequence", "open"].shared


def test_notes_hold_the_fields_that_the_task_reads_and_no_others(short: Asked) -> None:
    for (task, _), request in short.items():
        reads = TAXONOMY.tasks[task].reads
        for caption in SHORT[0]:
            told = {field for field in FIELDS if getattr(caption, field) in request.shared}
            assert told == set(FIELDS) & set(reads), task
        assert (SUMMARY.text in request.shared) == ("global" in reads)


def test_a_long_video_is_shared_by_the_tasks_that_show_the_same_view(long: Asked) -> None:
    for group in siblings(long):
        assert all(text(request).startswith(request.shared) for request in group)
        shown = {tuple(CLIP_ID.findall(request.shared)) for request in group}
        assert len({request.shared for request in group}) == len(shown) <= len(group) // 2


def test_no_task_sees_the_instructions_of_a_sibling(short: Asked, long: Asked) -> None:
    for asked in (short, long):
        for (task, format), request in asked.items():
            own, said = TAXONOMY.tasks[task], text(request) + request.messages[0]["content"]
            assert own.instructions in said
            assert not own.wrong_options or (own.wrong_options in said) == (format == "choice")
            for sibling in TAXONOMY.tasks.values():
                if sibling is own:
                    continue
                assert sibling.instructions not in said, (task, sibling.task)
                assert not sibling.wrong_options or sibling.wrong_options not in said, (task, sibling.task)
                assert not [shown for shown in sibling.demonstrations if shown.question in said], (task, sibling.task)


def offered(request: Request) -> list[str]:
    questions = request.schema["properties"]["questions"]["items"]
    item = request.schema["$defs"][questions["$ref"].rpartition("/")[2]]
    return list(item["properties"]["evidence"]["items"]["enum"])


def test_every_id_that_may_be_named_is_shown_and_the_other_way_round(short: Asked, long: Asked) -> None:
    for request in (*short.values(), *long.values()):
        assert offered(request) == CLIP_ID.findall(request.shared)


@pytest.mark.parametrize("room", [12_000, 77_000])
def test_the_views_of_a_long_video_are_together_the_whole_and_each_fits(room: int) -> None:
    clips, parts = LONG
    for task in TAXONOMY.tasks.values():

        def tell(view: View, task: Task = task) -> str:
            return prompts.notes(TAXONOMY, task, view, parts, SUMMARY)

        if task.reads == ("global",):
            continue
        found = views(clips, parts, tell, room)
        assert [caption for view, _ in found for caption in view.captions] == clips
        assert all(text == tell(view) and len(text) <= room for view, text in found)
        sizes = [len(view.captions) for view, _ in found]
        assert len(sizes) > 1 and max(sizes) <= min(sizes) + 1


def test_every_prompt_fits_the_context_with_its_answer(long: Asked) -> None:
    most = 32768 - 4096 if len(offered(long["spatial_reasoning", "open"])) > 20 else 8192 - 1024
    for request in long.values():
        assert sum(len(message["content"]) for message in request.messages) + len(json.dumps(request.schema)) < 3 * most


def test_what_a_view_leaves_out_is_told_by_its_events(long: Asked) -> None:
    for (task, _), request in long.items():
        told = {event.event_id for event in LONG[1] if event.caption in request.shared}
        shown = set(offered(request))
        for event in LONG[1]:
            if "event" in TAXONOMY.tasks[task].reads or not shown.issuperset(event.clip_ids):
                assert event.event_id in told, task


def test_the_tasks_of_a_topic_look_at_different_parts_of_a_long_video(long: Asked) -> None:
    seen = {request.shared for (task, _), request in long.items() if TAXONOMY.tasks[task].topic == "object"}
    assert len(seen) > 1


@pytest.mark.parametrize("tokens", [2048, 5000])
def test_a_context_that_is_too_small_is_said(tokens: int, tmp_path: Path) -> None:
    task = TAXONOMY.tasks["temporal_order"]
    sender = ByHand()
    asked = writer(sender, tmp_path, context_tokens=tokens)[0].write_qa(task, "open", Described(*LONG, SUMMARY))
    with pytest.raises(Failed) as failed:
        asyncio.run(asked)
    assert failed.value.reason == "context" and not failed.value.transient and sender.requests == []


def left_out(said: str) -> set[str]:
    return {HEADINGS[line.partition(":")[0]] for line in said.splitlines() if line.endswith(": (left out)")}


def shortened(folder: Path, clips: Sequence[ClipCaption], ask: Any) -> Iterator[set[str]]:
    """The fields left out of what is asked about the clips as the context gets smaller, until nothing helps."""
    for tokens in range(60000, 4096, -1000):
        sender = ByHand()
        try:
            asyncio.run(ask(writer(sender, folder / str(tokens), context_tokens=tokens)[0]))
        except Failed as failure:
            assert failure.reason == "context"
            assert sender.requests == []
            return
        room = (tokens - 4096) * 3
        (request, *_) = sender.requests
        assert sum(len(message["content"]) for message in request.messages) <= room
        assert all(caption.summary in text(request) for caption in clips)
        yield left_out(text(request))


def test_an_event_s_prompt_leaves_out_the_fields_in_the_stated_order(tmp_path: Path) -> None:
    clips = LONG[0][:50]
    found = list(shortened(tmp_path, clips, lambda hand: hand.caption_event(LONG[1][0], None, LONG[1][1], clips)))
    steps = [set(prompts.EXPENDABLE[:count]) for count in range(len(prompts.EXPENDABLE) + 1)]
    assert [each for index, each in enumerate(found) if index == 0 or found[index - 1] != each] == steps


def test_the_split_s_prompt_leaves_out_the_scene_then_the_action(tmp_path: Path) -> None:
    clips = LONG[0][:90]
    found = list(shortened(tmp_path, clips, lambda hand: hand.split_events("video", clips)))
    steps = [each for index, each in enumerate(found) if index == 0 or found[index - 1] != each]
    assert steps == [set(), {"scene"}, {"scene", "action"}]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def all_requests(folder: Path) -> list[Request]:
    sender = ByHand()
    clips, parts = SHORT

    async def ask() -> None:
        hand = writer(sender, folder)[0]
        await hand.caption_clip(clip(0), (), pictures)
        await hand.split_events("video", clips)
        await hand.caption_event(parts[1], parts[0], parts[2], clips[2:5])
        await hand.summarize(parts)
        for format in ("open", "choice"):
            await hand.write_qa(TAXONOMY.tasks["temporal_order"], format, Described(clips, parts, SUMMARY))

    asyncio.run(ask())
    return sender.requests


def test_schemas_bound_all_that_a_model_may_write(tmp_path: Path) -> None:
    requests = all_requests(tmp_path)
    names = ["clip_caption", "event_split", "event_caption", "global_caption", "qa_open", "qa_choice"]
    assert [request.schema_name for request in requests] == names
    for request in requests:
        assert next(iter(request.schema["properties"])) == "reference"
        for part in objects(request.schema):
            if part.get("type") == "object":
                assert part["additionalProperties"] is False
                assert part["required"] == list(part["properties"])
            elif part.get("type") == "array":
                assert "maxItems" in part
            elif part.get("type") == "string":
                assert "maxLength" in part or "enum" in part
    assert "clip_ids" not in json.dumps([request.schema for request in requests])


def test_each_request_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    requests = all_requests(tmp_path)
    lines = [text(request).splitlines()[-1] for request in requests]
    assert all(re.fullmatch(r'In "reference" copy this code: [0-9a-f]{8}', line) for line in lines)
    assert len(set(lines)) == len(requests) == len({request.seed for request in requests})


@pytest.mark.parametrize("send", ["video", "images"])
def test_pictures_go_before_the_text_that_tells_their_times(send: str, tmp_path: Path) -> None:
    sender = ByHand()
    asyncio.run(writer(sender, tmp_path, frames={"count": 4})[0].caption_clip(clip(3), (), pictures))
    (request,) = sender.requests
    assert request.pictures == tuple(f"picture of second {second}, 336 high".encode() for second in (63, 71, 78, 86))
    assert "1:03, 1:11, 1:18, 1:26" in text(request)
    body = body_of(request, settings(frames={"count": 4, "send": send}))
    kinds = [part["type"] for part in body["messages"][1]["content"]]
    assert kinds == (["video_url", "text"] if send == "video" else ["image_url"] * 4 + ["text"])


def test_an_event_s_neighbours_are_context_by_their_titles_alone(tmp_path: Path) -> None:
    request = all_requests(tmp_path)[2]
    before, _, after = SHORT[1]
    assert before.title in text(request) and after.title in text(request)
    assert before.caption not in text(request) and after.caption not in text(request)
