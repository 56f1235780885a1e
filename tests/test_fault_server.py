"""The test server is judged before it judges: what it answers, and that its faults are those that were asked for."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import aiohttp
import openai
import psutil
import pytest
import served
from jsonschema import validate
from served.faults import KINDS

from marathon_pipeline.audit.measures import measure, words
from marathon_pipeline.records import Binding, Clip, QAPair, Span
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy

pytestmark = pytest.mark.slow  # as many starts of a server as there are tests

TAXONOMY = load_taxonomy()
CLIPS = [f"c{index:04}" for index in range(30)]
Schema = dict[str, Any]


def closed(**properties: Schema) -> Schema:
    properties = {"reference": text(16), **properties}
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def text(longest: int) -> Schema:
    return {"type": "string", "maxLength": longest}


def array(items: Schema, least: int, most: int) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def item(**properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def event_split(clips: Sequence[str]) -> Schema:
    first = {"type": "string", "enum": list(clips)}
    return closed(events=array(item(title=text(120), first=first), 1, 12))


ASKED = {"question": text(400), "answer": text(400)}
EVIDENCE = {"evidence": array({"type": "string", "enum": CLIPS}, 1, 8)}
SCHEMAS = {
    "clip_caption": closed(
        **{field: text(900) for field in ("temporality", "spatiality", "object", "action", "scene", "summary")}
    ),
    "event_split": event_split(CLIPS),
    "event_caption": closed(caption=text(3000)),
    "global_caption": closed(caption=text(6000)),
    "qa_open": closed(questions=array(item(**ASKED, **EVIDENCE), 0, 3)),
    "qa_choice": closed(questions=array(item(**ASKED, wrong=array(text(200), 3, 3), **EVIDENCE), 0, 3)),
}


def request(name: str, about: str = "Notes on a video.", code: str = "k3f9x2a1", **more: Any) -> dict[str, Any]:
    schema = more.pop("schema", SCHEMAS.get(name))
    said = f'{about}\nIn "reference" copy this code: {code}'
    frames = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{f}"}} for f in more.pop("images", ())
    ]
    if video := more.pop("video", ()):
        frames = [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(video)}"}}]
    content = [*frames, {"type": "text", "text": said}] if frames else said
    return {
        "model": "tiny",
        "messages": [{"role": "system", "content": "You write."}, {"role": "user", "content": content}],
        "response_format": {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}},
    } | more


def repair(of: dict[str, Any], bad: str = "{}") -> dict[str, Any]:
    turns = [{"role": "assistant", "content": bad}, {"role": "user", "content": "That was no good: try again."}]
    return of | {"messages": of["messages"] + turns}


@dataclass
class Reply:
    status: int = 0
    headers: Any = None
    body: Any = None
    failure: str = ""  # of the connection

    @property
    def choice(self) -> dict[str, Any]:
        assert self.status == 200, self
        return dict(self.body["choices"][0])

    @property
    def value(self) -> Any:
        return json.loads(self.choice["message"]["content"])


def ask(server: served.Server, *requests: dict[str, Any], at_once: bool = True, key: str = "", patience: float = 60):
    """The replies, in the order of the requests."""

    async def one(session: aiohttp.ClientSession, body: dict[str, Any]) -> Reply:
        try:
            async with session.post(f"{server.url}/chat/completions", json=body) as answer:
                raw = await answer.read()
                found = json.loads(raw) if answer.content_type == "application/json" else raw.decode()
                return Reply(answer.status, answer.headers, found)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Reply(failure=type(error).__name__)

    async def everything() -> list[Reply]:
        timeout = aiohttp.ClientTimeout(total=patience)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connector = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as session:
            if at_once:
                return await asyncio.gather(*(one(session, body) for body in requests))
            return [await one(session, body) for body in requests]

    return asyncio.run(everything())


def get(server: served.Server, path: str, **headers: str) -> Reply:
    async def one() -> Reply:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(server.url + path) as answer:
            return Reply(answer.status, answer.headers, await answer.json())

    return asyncio.run(one())


@pytest.fixture(scope="module")
def server() -> Iterator[served.Server]:
    with served.running() as server:
        yield server


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_answer_depends_on_what_is_asked_and_on_nothing_else(name: str, server: served.Server) -> None:
    one = request(name, "One video.")
    same = [
        one,
        one | {"seed": 7, "temperature": 0.9},
        repair(one),
        repair(repair(one, "[]")),
        request(name, "One video.", code="zzzz9999"),
    ]
    with served.running() as another:
        answers = [reply.value for reply in ask(server, *same) + ask(another, *reversed(same))]
    assert {answer.pop("reference") for answer in answers} == {"k3f9x2a1", "zzzz9999"}
    assert all(answer == answers[0] for answer in answers)
    others = ask(server, request(name, "Another video."), one | {"messages": one["messages"][1:]})
    for other in others:
        assert other.value | {"reference": ""} != answers[0] | {"reference": ""}


def test_answers_obey_their_schema(server: served.Server) -> None:
    names = [name for name in SCHEMAS for _ in range(20)]
    replies = ask(server, *(request(name, f"Video {index}.") for index, name in enumerate(names)))
    for name, reply in zip(names, replies, strict=True):
        validate(reply.value, SCHEMAS[name])
        assert next(iter(reply.value)) == "reference"
        assert reply.choice["finish_reason"] == "stop"


ODD: list[Schema] = [
    closed(word={"type": "string", "enum": ["yes"]}),
    closed(count={"type": "integer", "minimum": 3, "maximum": 4}, caption=text(12)),
    closed(caption=text(1), items=array(array({"type": "integer"}, 2, 2), 1, 2)),
    closed(deep=item(deeper=item(text=text(30)))),
    closed(evidence=array({"type": "string", "enum": ["c0000"]}, 0, 5)),
    closed(questions=array(item(**ASKED, **EVIDENCE), 1, 1)),
    event_split(CLIPS[:1]),
    {**closed(things=array({"$ref": "#/$defs/Thing"}, 2, 3)), "$defs": {"Thing": item(name=text(40))}},
]


@pytest.mark.parametrize("schema", ODD)
def test_any_schema_of_the_common_kinds_is_obeyed(schema: Schema, server: served.Server) -> None:
    for reply in ask(server, *(request("something", f"Video {index}.", schema=schema) for index in range(10))):
        validate(reply.value, schema)


def test_a_schema_that_it_cannot_obey_is_a_bad_request(server: served.Server) -> None:
    (reply,) = ask(server, request("something", schema=closed(part={"type": "null"})))
    assert reply.status == 400
    assert "null" in reply.body["error"]["message"]


def test_every_question_passes_the_audit(server: served.Server) -> None:
    asked = [
        request(name, f"# {TAXONOMY.tasks[task].name}, {name}\nVideo {video}.")
        for task in TASK_IDS
        for name in ("qa_open", "qa_choice")
        for video in range(3)
    ]
    task_of = [task for task in TASK_IDS for _ in range(6)]
    clips = {
        clip: Clip(video_id="v", clip_id=clip, start=20 * at, end=20 * at + 30, shots=(), frame_hashes=())
        for at, clip in enumerate(CLIPS)
    }
    questions = []
    for task, reply in zip(task_of, ask(server, *asked), strict=True):
        items = reply.value["questions"]
        assert len({item["question"] for item in items}) == 3
        questions += [item["question"] for item in items]
        for item in items:
            assert 1 <= len(item["evidence"]) <= 3
            options = tuple([item["answer"], *item["wrong"]] if "wrong" in item else [])
            form = "choice" if options else "open"
            content = ("v", task, form, item["question"], options, item["answer"])
            shown = [clips[clip] for clip in item["evidence"]]
            pair = QAPair(
                qa_id=QAPair.id_of(*content),
                video_id="v",
                task=task,
                topic=TAXONOMY.tasks[task].topic,
                format=form,
                question=item["question"],
                options=options,
                answer=item["answer"],
                letter="A" if options else "",
                evidence=tuple(Span(start=clip.start, end=clip.end) for clip in shown),
                clip_ids=tuple(clip.clip_id for clip in shown),
                binding=Binding(annotator="served/1", template_version=1, request=""),
            )
            assert measure(pair, 610, clips, TAXONOMY.tasks[task], TAXONOMY.rules).problems == ()
    assert len(set(questions)) == len(questions)


def test_no_caption_says_a_word_that_the_rules_forbid(server: served.Server) -> None:
    names = ("clip_caption", "event_split", "event_caption", "global_caption")
    for reply in ask(server, *(request(name, f"Video {index}.") for name in names for index in range(20))):
        said = re.sub(r'"\w+": "', '"', json.dumps(reply.value))  # without the names of the fields
        assert "the" in said and not TAXONOMY.rules.forbidden_in(said)


@pytest.mark.parametrize("clips", (1, 2, 5, 30, 180))
def test_events_follow_one_another_from_the_first_clip_on(clips: int, server: served.Server) -> None:
    known = [f"c{index:04}" for index in range(clips)]
    asked = (request("event_split", f"Video {index}.", schema=event_split(known)) for index in range(10))
    for reply in ask(server, *asked):
        events = reply.value["events"]
        assert min(clips, 4) <= len(events) <= min(clips, 6)
        assert events[0]["first"] == known[0]
        assert all(before["first"] < after["first"] for before, after in pairwise(events))
        assert len({event["title"] for event in events}) == len(events)


def likeness(one: dict[str, str], other: dict[str, str]) -> float:
    """The share of the rarer words of two captions that both have."""
    said = [{word for word in words(" ".join(caption.values())) if len(word) > 4} for caption in (one, other)]
    return len(said[0] & said[1]) / len(said[0] | said[1])


def test_the_frames_decide_a_caption(server: served.Server) -> None:
    sets = [[f"AAAA{index:04}", f"BBBB{index:04}"] for index in range(12)]
    captions = [reply.value for reply in ask(server, *(request("clip_caption", images=frames) for frames in sets))]
    assert max(likeness(one, other) for one, other in combinations(captions, 2)) < 0.5
    others = [request("clip_caption", f"In other words, {at}.", images=sets[at]) for at in range(12)]
    for one, other in zip(captions, ask(server, *others), strict=True):
        assert likeness(one, other.value) > 0.9


def test_images_and_a_video_of_the_same_frames_are_the_same(server: served.Server) -> None:
    frames = ["AAAA", "BBBB", "CCCC"]
    images, video, fewer = ask(
        server,
        *(request("clip_caption", **shown) for shown in ({"images": frames}, {"video": frames}, {"video": frames[:2]})),
    )
    assert images.value == video.value != fewer.value
    assert images.body["usage"]["prompt_tokens"] == video.body["usage"]["prompt_tokens"]
    assert video.body["usage"]["prompt_tokens"] - fewer.body["usage"]["prompt_tokens"] == 256


def test_a_prefix_that_was_seen_is_cached() -> None:
    shared = "The same notes, again and again. " * 60
    with served.running() as server:
        replies = ask(
            server,
            request("qa_open", shared + "First task."),
            request("qa_open", shared + "Second task.", code="other"),
            request("qa_open", "Third task." + shared),
            at_once=False,
        )
        usages = [reply.body["usage"] for reply in replies]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert cached[0] == cached[2] == 0
        assert len(shared) // 4 - 32 < cached[1] <= len(shared) // 4 + 16
        assert cached[1] % 16 == 0
        assert server.stats()["tokens"]["cached_tokens"] == sum(cached)
    for usage in usages:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert abs(usage["prompt_tokens"] - len(shared) // 4) < 50


def test_an_answer_longer_than_its_bound_is_cut(server: served.Server) -> None:
    whole, cut = ask(server, request("global_caption"), request("global_caption", max_tokens=50))
    assert cut.choice["finish_reason"] == "length"
    assert cut.choice["message"]["content"] == whole.choice["message"]["content"][:200]


def test_what_does_not_fit_the_context_is_refused_in_the_words_of_vllm() -> None:
    with served.running(max_model_len=500) as server:
        long, much = ask(server, request("qa_open", "Many words. " * 200), request("qa_open", max_tokens=490))
        assert get(server, "/models").body["data"][0]["max_model_len"] == 500
    for reply in (long, much):
        assert reply.status == 400
        assert "This model's maximum context length is 500 tokens" in reply.body["error"]["message"]


def test_keys_and_models_are_checked_where_they_are_set() -> None:
    with served.running(key="secret", model="tiny") as server:
        assert [reply.status for reply in ask(server, request("qa_open"))] == [401]
        good, unknown = ask(server, request("qa_open"), request("qa_open") | {"model": "huge"}, key="secret")
        assert (good.status, unknown.status) == (200, 404)
        assert unknown.body["error"]["message"] == "The model `huge` does not exist."
        assert get(server, "/models").status == 401
        assert get(server, "/models", Authorization="Bearer secret").body["data"][0]["id"] == "tiny"


def test_a_server_may_ignore_schemas() -> None:
    probe = request("support_check", schema=item(word={"type": "string", "enum": ["kite"]}))
    with served.running(no_schemas=True) as server, served.running(faults={"schema": 1}) as obeying:
        assert ask(server, probe)[0].choice["message"]["content"] == "Certainly! Yes."
        assert ask(obeying, probe)[0].value == {"word": "kite"}


def test_texts_are_filled_in_a_schema_of_parts() -> None:
    with served.running(faults={"fill": 1}) as server:
        (reply,) = ask(server, request("something", schema=ODD[-1]))
    validate(reply.value, ODD[-1])
    assert {name for thing in reply.value["things"] for name in thing["name"].split()} == {"blue"}


def is_good(reply: Reply) -> bool:
    try:
        validate(reply.value, SCHEMAS["clip_caption"])
    except Exception:
        return False
    return reply.choice["finish_reason"] == "stop" and reply.value["reference"] == "struck"


def is_refusal(reply: Reply) -> bool:
    return bool(reply.choice["message"]["refusal"]) or reply.choice["finish_reason"] == "content_filter"


SHOWS: dict[str, Callable[[Reply], bool]] = {
    "late": is_good,
    "rate_limit": lambda reply: reply.status == 429,
    "error": lambda reply: reply.status == 500,
    "unavailable": lambda reply: reply.status == 503,
    "cut": lambda reply: reply.failure == "ClientPayloadError",
    "hang": lambda reply: reply.failure == "TimeoutError",
    "truncate": lambda reply: reply.choice["finish_reason"] == "length" and not is_good(reply),
    "schema": lambda reply: reply.choice["finish_reason"] == "stop" and not is_good(reply),
    "refuse": is_refusal,
    "repeat": lambda reply: (
        reply.choice["finish_reason"] == "length" and len(set(reply.choice["message"]["content"][-200:].split())) < 6
    ),
    "fill": lambda reply: is_good(reply) and set(reply.value["summary"].split()) == {"blue"},
    "swap": lambda reply: reply.status == 200 and reply.value["reference"] == "first",
    "swap_frames": is_good,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_what_its_name_says_and_strikes_no_more_often_than_it_may(kind: str) -> None:
    first = request("clip_caption", "The first.", code="first", images=["AAAA"])
    struck = [request("clip_caption", f"Request {at}.", code="struck", images=[f"BB{at:02}"]) for at in range(8)]
    with served.running(faults={kind: 1, "most": 1, "late_seconds": 0.1}) as server:
        ask(server, first, patience=1)
        hit = ask(server, *struck, patience=1 if kind == "hang" else 60)
        others = [reply.value for reply in ask(server, first, *struck)]  # each was struck once: no more
        stats = server.stats()
    assert all(is_good(Reply(200, None, reply.body)) for reply in hit if kind in ("late", "fill", "swap_frames"))
    if kind != "swap":  # any of those before it can be the other one
        assert all(SHOWS[kind](reply) for reply in hit)
    else:
        assert any(SHOWS[kind](reply) for reply in hit)
    for reply, own in zip(hit, others[1:], strict=True):
        assert own["reference"] == "struck"
        if kind == "late":
            assert reply.value == own
        if kind in ("swap", "swap_frames"):
            assert reply.value["summary"] != own["summary"]
            assert reply.value["summary"] in {other["summary"] for other in others}
    assert stats["faults"][kind] == (8 if kind.startswith("swap") else 9)  # the very first has nobody to swap with


def test_some_429_say_when_to_come_back() -> None:
    with served.running(faults={"rate_limit": 1}) as server:
        replies = ask(server, *(request("qa_open", f"Video {index}.") for index in range(20)))
    waits = [reply.headers.get("Retry-After") for reply in replies]
    assert None in waits
    assert all(0.2 <= float(wait) <= 1 for wait in waits if wait)
    assert any(waits)


MIX = {kind: 0.05 for kind in KINDS if kind not in ("hang", "late")}


def test_a_run_meets_the_same_faults_whatever_its_timing() -> None:
    asked = [request("qa_open", f"Video {index}.") for index in range(60)]
    struck = []
    for order, options in ((asked * 3, {"jitter": 0.02}), (asked[::-1] * 3, {"slots": 3})):
        with served.running(faults=MIX, **options) as server:
            for start in range(0, 180, 60):
                ask(server, *order[start : start + 60])
            seen: dict[str, list[str]] = {}
            for entry in server.requests():
                if not entry["fault"].startswith("swap"):  # with whom, if with anybody, is a matter of time
                    seen.setdefault(entry["body"], []).append(entry["fault"])
            struck.append(seen)
    assert struck[0] == struck[1]
    assert len({fault for faults in struck[0].values() for fault in faults}) == len(MIX) - 1  # and none


def test_what_is_asked_has_its_answer_after_two_strikes_repairs_included() -> None:
    asked = [request("clip_caption", f"Video {index}.", code="struck") for index in range(40)]
    with served.running(faults={"schema": 0.4, "truncate": 0.3, "error": 0.3}) as server:
        for attempt in (asked, [repair(each) for each in asked]):
            assert not any(reply.status == 200 and is_good(reply) for reply in ask(server, *attempt))
        assert all(is_good(reply) for reply in ask(server, *asked))
        assert server.stats()["answered_well_more_than_once"] == 0
        ask(server, *[asked[0]] * 4)
        assert server.stats()["answered_well_more_than_once"] == 1


def test_some_things_are_refused_whatever_is_tried() -> None:
    asked = [request("qa_open", f"Video {index}.") for index in range(60)]
    tries = (asked, asked, [repair(each) for each in asked], [each | {"seed": 3} for each in asked])
    with served.running(faults={"refuse_always": 0.2}) as server:
        refused = [{at for at, reply in enumerate(ask(server, *each)) if is_refusal(reply)} for each in tries]
    assert 2 <= len(refused[0]) <= 30
    assert all(each == refused[0] for each in refused)


def test_slots_are_taken_in_turn() -> None:
    with served.running(slots=2, latency=0.05) as server:
        ask(server, *(request("qa_open", f"Video {index}.") for index in range(8)))
        assert server.stats()["most_in_flight"] > 2
        assert max(entry["seconds"] for entry in server.requests()) > 0.15  # three had to end before it began


def test_a_client_that_gives_up_frees_its_slot_and_is_noted() -> None:
    with served.running(slots=1, latency=30) as server:
        assert ask(server, request("qa_open"), patience=0.3)[0].failure
        deadline = time.monotonic() + 20
        while not server.requests() and time.monotonic() < deadline:
            time.sleep(0.05)
        (entry,) = server.requests()
        assert entry["gone"] and not entry["status"]
        assert server.stats()["in_flight"] == 0


def test_the_log_tells_one_line_a_request(server: served.Server) -> None:
    body = request("qa_choice", "Notes.\n# Scene Transition\nNothing that belongs to scene_recognition.")
    with served.running() as server:
        ask(server, body, request("clip_caption"), request("qa_open", "task: temporal_order, not action_sequence"))
        (entry,) = [entry for entry in server.requests() if entry["schema"] == "qa_choice"]
        assert {entry["task"] for entry in server.requests()} == {"scene_transition", "temporal_order", ""}
        assert (entry["status"], entry["fault"], entry["finish"], entry["gone"]) == (200, "", "stop", False)
        assert re.fullmatch("[0-9a-f]{64}", entry["body"]) and entry["seconds"] >= 0
        stats = server.stats()
    assert (stats["requests"], stats["answered"], stats["in_flight"]) == (3, 3, 0)
    assert stats["answered_by_schema"] == {"qa_choice": 1, "clip_caption": 1, "qa_open": 1}


def completed(server: served.Server, body: dict[str, Any], timeout: float = 30) -> Any:
    """The same through the client that Marathon uses."""
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=timeout) as client:
        return client.chat.completions.create(**body)


def test_the_openai_client_reads_its_answers(server: served.Server) -> None:
    found = completed(server, request("qa_open"))
    assert json.loads(found.choices[0].message.content)["reference"] == "k3f9x2a1"
    assert found.usage.prompt_tokens_details.cached_tokens <= found.usage.prompt_tokens
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["any"]
    with served.running(faults={"refuse_always": 1}) as refusing:
        found = [completed(refusing, request("qa_open", f"Video {index}.")).choices[0] for index in range(8)]
    assert {(choice.finish_reason, bool(choice.message.refusal)) for choice in found} == {
        ("stop", True),
        ("content_filter", False),
    }


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", openai.RateLimitError),
        ("error", openai.InternalServerError),
        ("unavailable", openai.InternalServerError),
        ("cut", openai.APIConnectionError),
        ("hang", openai.APITimeoutError),
    ],
)
def test_the_openai_client_meets_its_faults(kind: str, error: type[Exception]) -> None:
    with served.running(faults={kind: 1, "most": 1}) as server:
        with pytest.raises(error):
            completed(server, request("qa_open"), timeout=1)
        assert completed(server, request("qa_open")).choices[0].finish_reason == "stop"


def test_it_dies_and_comes_back_at_the_same_address() -> None:
    with served.running() as server:
        url, before = server.url, ask(server, request("qa_open"))[0]
        server.kill()
        assert ask(server, request("qa_open"))[0].failure == "ClientConnectorError"
        server.restart()
        assert server.url == url
        assert ask(server, request("qa_open"))[0].value == before.value
        assert server.stats()["requests"] == 1
        assert len(server.requests()) == 2


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, served\n"
        "with served.running() as server:\n"
        "    server.stats()\n"
        "    print(server.pid, flush=True)\n"
        "    os._exit(1)"  # sudden death: nothing is tidied up
    )
    started = subprocess.run([sys.executable, "-c", code], cwd=served.TESTS, stdout=subprocess.PIPE, text=True)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(started.stdout)).wait(timeout=20)


@pytest.mark.parametrize(
    ("shares", "said"), [({"colour": 0.1}, "`colour` is none of"), ({"cut": 0.6, "error": 0.6}, "more than 1")]
)
def test_wrong_faults_are_told(shares: dict[str, float], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="exit 2"), served.running(faults=shares):
        pass
    assert said in capfd.readouterr().err
