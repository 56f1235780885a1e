"""Sending requests to servers that are slow, busy, broken, dead, or others than was thought."""

import asyncio
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import served
from by_hand import recorded
from served import answers

from marathon_pipeline.annotators.served import endpoints
from marathon_pipeline.annotators.served.pool import Pool, Reply, Request, body_of
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.errors import Failed, Unfinished

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reference", "caption"],
    "properties": {"reference": {"type": "string", "maxLength": 16}, "caption": {"type": "string", "maxLength": 400}},
}


def question(number: int, shared: str = "") -> Request:
    text = f'{shared}What happens in part {number}?\n\nIn "reference" copy this code: {number:08x}'
    messages = ({"role": "system", "content": "You tell."}, {"role": "user", "content": text})
    return Request(messages, "event_caption", SCHEMA, number, shared)


def model(*urls: str, **more: Any) -> ModelSettings:
    return ModelSettings(model="test", endpoints=urls, **({"timeout_seconds": 20.0} | more))


async def ask(pool: Pool, settings: ModelSettings, requests: Sequence[Request]) -> list[Any]:
    sent = (pool.send(request, *recorded(request, settings)) for request in requests)
    return await asyncio.gather(*sent, return_exceptions=True)


def all_of(settings: ModelSettings, requests: Sequence[Request], processes: int = 1) -> list[Any]:
    async def run() -> list[Any]:
        pool = Pool(settings)
        pool.share(processes)
        try:
            return await ask(pool, settings, requests)
        finally:
            await pool.close()

    return asyncio.run(run())


def is_own(reply: Reply, request: Request) -> bool:
    return json.loads(reply.text) == answers.answer(answers.asked(body_of(request, model("http://any"))))


@pytest.fixture(scope="module")
def server() -> Iterator[served.Server]:
    with served.running(latency=0.02, jitter=0.1, slots=64) as server:
        yield server


def test_answers_out_of_order_reach_whoever_asked_and_whoever_was_cancelled_frees_its_slot(
    server: served.Server,
) -> None:
    async def run() -> None:
        settings = model(server.url, max_in_flight=24)
        pool, requests = Pool(settings), [question(number) for number in range(200)]
        asked = [asyncio.ensure_future(pool.send(each, *recorded(each, settings))) for each in requests]
        chance = random.Random(4)
        for each in chance.sample(asked, 60):
            await asyncio.sleep(chance.uniform(0, 0.01))
            each.cancel()
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(reply, Reply) for reply in replies) >= 140
        for reply, request in zip(replies, requests, strict=True):
            assert isinstance(reply, asyncio.CancelledError) or is_own(reply, request)
        (endpoint,) = await pool._endpoints.current()
        assert endpoint.in_flight == 0
        await pool.close()

    asyncio.run(run())
    assert server.stats()["most_in_flight"] <= 24 + 60  # whom the server has not yet seen go


def test_no_more_is_under_way_than_the_setting_allows() -> None:
    with served.running(latency=0.05, slots=64) as server:
        replies = all_of(model(server.url, max_in_flight=5), [question(number) for number in range(60)])
        assert all(isinstance(reply, Reply) for reply in replies)
        assert server.stats()["most_in_flight"] == 5


@pytest.mark.parametrize(("processes", "part"), [(1, 9), (2, 4), (20, 1)])
def test_one_of_several_processes_sends_its_part(processes: int, part: int) -> None:
    with served.running(latency=0.1, slots=64) as server:
        replies = all_of(model(server.url, max_in_flight=9), [question(number) for number in range(40)], processes)
        assert server.stats()["most_in_flight"] == part
    if part == 1:  # then it sees all of its time, and counts its part of that
        assert all(reply.gpu_seconds == pytest.approx(reply.seconds / processes, abs=0.002) for reply in replies)


def test_width_grows_with_a_server_that_bears_it() -> None:
    with served.running(latency=0.5, slots=256) as server:
        replies = all_of(model(server.url), [question(number) for number in range(400)])
        assert all(isinstance(reply, Reply) for reply in replies)
        assert server.stats()["most_in_flight"] >= 64


def test_what_fails_for_a_passing_reason_is_tried_until_it_is_answered() -> None:
    faults = {"rate_limit": 0.15, "error": 0.15, "unavailable": 0.15, "cut": 0.15}
    with served.running(latency=0.01, faults=faults) as server:
        requests = [question(number) for number in range(60)]
        for reply, request in zip(all_of(model(server.url), requests), requests, strict=True):
            assert is_own(reply, request)
        assert set(server.stats()["faults"]) == set(faults)
        assert server.stats()["answered_well_more_than_once"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rate_limit", "server_busy"),
        ("error", "server_error"),
        ("unavailable", "server_error"),
        ("cut", "server_error"),
        ("hang", "timeout"),
    ],
)
def test_what_does_not_pass_is_a_failure_that_the_next_run_tries_again(fault: str, reason: str) -> None:
    with served.running(faults={fault: 1.0, "most": 99}) as server:
        settings = model(server.url, retries=1, timeout_seconds=2 if fault == "hang" else 20)
        (failed,) = all_of(settings, [question(1)])
        assert isinstance(failed, Failed) and failed.reason == reason and failed.transient
        assert server.stats()["requests"] == 2


@pytest.mark.parametrize(
    ("options", "more", "reason", "words"),
    [
        ({"key": "right"}, {"api_key_env": "SOME_KEY"}, "unauthorized", "api_key_env"),
        ({"model": "another"}, {}, "rejected", "does not exist"),
        ({"max_model_len": 50}, {}, "context", "context_tokens"),
    ],
)
def test_what_a_server_will_never_answer_is_asked_once(
    options: dict[str, Any], more: dict[str, Any], reason: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "a-wrong-secret")
    with served.running(**options) as server:
        (failed,) = all_of(model(server.url, **more), [question(1)])
        assert isinstance(failed, Failed) and failed.reason == reason and not failed.transient
        assert words in failed.message and "secret" not in failed.message
        assert server.stats()["requests"] == 1


def test_the_right_key_comes_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with served.running(key="right") as server:
        settings = model(server.url, api_key_env="SOME_KEY")
        monkeypatch.setenv("SOME_KEY", "right")
        assert isinstance(all_of(settings, [question(1)])[0], Reply)


def test_a_machine_that_lacks_the_key_fails_a_video_for_now_and_says_where_it_has_to_be_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(Failed, match="SOME_KEY") as failed:
        all_of(model(CLOSED, api_key_env="SOME_KEY"), [question(1)])
    assert failed.value.reason == "server_unreachable" and failed.value.transient
    assert socket.gethostname() in failed.value.message


def test_a_server_that_is_killed_and_comes_back_answers_everything() -> None:
    with served.running(latency=0.1, slots=16) as server:

        async def run() -> list[Any]:
            settings = model(server.url)
            pool, requests = Pool(settings), [question(number) for number in range(300)]
            asking = asyncio.ensure_future(ask(pool, settings, requests))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.restart)
            replies = await asking
            await pool.close()
            return replies

        assert all(isinstance(reply, Reply) for reply in asyncio.run(run()))


CLOSED = "http://127.0.0.1:9/v1"


def test_a_server_that_stays_away_is_waited_for_as_long_as_the_setting_says() -> None:
    began = time.monotonic()
    for failed in all_of(model(CLOSED, patience_seconds=2.0, retries=0), [question(number) for number in range(1200)]):
        assert isinstance(failed, Failed) and failed.reason == "server_unreachable" and failed.transient, failed
        assert CLOSED in failed.message
    assert time.monotonic() - began > 2


def test_a_run_that_is_stopped_does_not_wait_for_a_server_that_is_away() -> None:
    async def run() -> Any:
        settings = model(CLOSED, patience_seconds=1000.0)
        pool = Pool(settings)
        asking = asyncio.ensure_future(ask(pool, settings, [question(1)]))
        await asyncio.sleep(0.2)
        pool.stop()
        return await asyncio.wait_for(asking, timeout=20)

    (ended,) = asyncio.run(run())
    assert isinstance(ended, Unfinished)


def test_what_is_stopped_asks_nothing_more_and_sees_the_rest_to_its_end() -> None:
    with served.running(latency=2) as server:

        async def run() -> list[Any]:
            settings = model(server.url, max_in_flight=4)
            pool = Pool(settings)
            asking = asyncio.ensure_future(ask(pool, settings, [question(number) for number in range(20)]))
            while (await asyncio.to_thread(server.stats))["in_flight"] < 4:
                await asyncio.sleep(0.02)
            pool.stop()
            return await asking

        ended = asyncio.run(run())
        assert sum(isinstance(each, Reply) for each in ended) == 4
        assert sum(isinstance(each, Unfinished) for each in ended) == 16
        assert server.stats()["requests"] == 4


def test_another_endpoint_takes_over_what_a_dead_one_had() -> None:
    with served.running(latency=0.05) as one, served.running(latency=0.05) as other:

        async def run() -> list[Any]:
            settings = model(one.url, other.url)
            pool = Pool(settings)
            asking = asyncio.ensure_future(ask(pool, settings, [question(number) for number in range(400)]))
            while not one.requests():
                await asyncio.sleep(0.01)
            await asyncio.to_thread(one.kill)
            return await asking

        assert all(isinstance(reply, Reply) for reply in asyncio.run(run()))


@pytest.mark.parametrize("at_once", [1, 40], ids=["idle", "crowded"])
def test_what_shares_a_prefix_goes_to_one_endpoint(at_once: int) -> None:
    """A full server is no reason to leave it where the others are as full."""
    videos, each = 40, 8
    with served.running(latency=0.01) as one, served.running(latency=0.01) as other:
        settings = model(one.url, other.url, max_in_flight=16)
        shared = [f"Notes on video {video}. " * 40 for video in range(videos)]
        asked = [[question(video * 100 + number, shared[video]) for number in range(each)] for video in range(videos)]

        async def run() -> None:
            pool, free = Pool(settings), asyncio.Semaphore(at_once)

            async def ask_of(video: int) -> None:
                async with free:
                    assert all(isinstance(reply, Reply) for reply in await ask(pool, settings, asked[video]))

            await asyncio.gather(*map(ask_of, range(videos)))
            await pool.close()

        asyncio.run(run())
        places = [{entry["conversation"] for entry in server.requests()} for server in (one, other)]
        assert all(len(place) > videos * each / 5 for place in places)
        whole = [{answers.asked(body_of(request, settings)).conversation for request in group} for group in asked]
        split = [group for group in whole if not any(group <= place for place in places)]
        assert len(split) <= (0 if at_once == 1 else videos / 10)


def test_a_file_of_endpoints_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_READ_AGAIN_SECONDS", 0.1)
    listed = tmp_path / "endpoints.txt"
    with served.running() as one, served.running() as other:
        listed.write_text(f"# replicas\n{one.url}\n")

        async def run() -> None:
            settings = ModelSettings(model="test", endpoints=str(listed))
            pool = Pool(settings)
            await ask(pool, settings, [question(1)])
            listed.write_text(f"{other.url}\n")
            await asyncio.sleep(0.2)
            await ask(pool, settings, [question(2)])
            listed.unlink()  # as where it is replaced: the last one counts on
            await asyncio.sleep(0.2)
            await ask(pool, settings, [question(3)])
            await pool.close()

        asyncio.run(run())
        assert [server.stats()["requests"] for server in (one, other)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "cannot be read"), ("10.0.0.7:8000\n", "no URL"), ("# all gone\n", "names no endpoint")],
)
def test_a_machine_that_finds_no_endpoint_is_patient_and_fails_a_video_for_now(
    text: str | None, words: str, tmp_path: Path
) -> None:
    listed = tmp_path / "endpoints.txt"
    if text is not None:
        listed.write_text(text)
    began = time.monotonic()
    (failed,) = all_of(ModelSettings(model="test", endpoints=str(listed), patience_seconds=1.5), [question(1)])
    assert time.monotonic() - began > 1.5
    assert isinstance(failed, Failed) and failed.reason == "server_unreachable" and failed.transient
    assert words in failed.message and socket.gethostname() in failed.message


def test_endpoints_that_a_machine_finds_late_are_still_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_READ_AGAIN_SECONDS", 0.1)
    listed = tmp_path / "endpoints.txt"

    async def run() -> list[Any]:
        async def answer(number: int) -> bytes:
            return completion("well")

        async with raw(answer) as url:
            settings = ModelSettings(model="test", endpoints=str(listed))
            asking = asyncio.ensure_future(ask(Pool(settings), settings, [question(1)]))
            await asyncio.sleep(0.3)
            listed.write_text(f"{url}\n")
            return await asking

    assert isinstance(asyncio.run(run())[0], Reply)


@asynccontextmanager
async def raw(answer: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[str]:
    """A server that sends these bytes. It is told which request it is."""
    count = 0

    async def serve(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        nonlocal count
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(size)
        count += 1
        out.write(await answer(count))
        await out.drain()
        out.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def http(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


COMPLETION = {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant"}}]}


def completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return http(json.dumps(COMPLETION | {"choices": [choice]}).encode())


def saying(status: str, code: str = "") -> bytes:
    return http(json.dumps({"error": {"message": "no", "code": code}}).encode(), status=status)


def one_by_one(strange: dict[int, bytes], count: int, **more: Any) -> list[Any]:
    """What comes of so many requests, to a server that answers all well but the ones with these numbers, from 1."""

    async def run() -> list[Any]:
        async def answer(number: int) -> bytes:
            return strange.get(number, completion("well"))

        async with raw(answer) as url:
            settings = model(url, **more)
            pool = Pool(settings)
            ended = [(await ask(pool, settings, [question(number)]))[0] for number in range(count)]
            await pool.close()
            return ended

    return asyncio.run(run())


@pytest.mark.parametrize("status", ["501 Not Implemented", "507 Full", "520 Web server error", "526 No certificate"])
def test_what_stands_before_a_server_may_fail_with_any_5xx(status: str) -> None:
    first, second = one_by_one({2: saying(status)}, 2)
    assert isinstance(first, Reply) and isinstance(second, Reply)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
def test_a_server_that_answered_before_and_knows_nobody_for_a_while_is_waited_for(status: str) -> None:
    ended = one_by_one({2: saying(status), 3: saying(status)}, 3, retries=0)
    assert all(isinstance(each, Reply) for each in ended), ended


def test_a_key_that_ran_out_is_a_failure_that_may_pass_and_no_video_s_fault() -> None:
    no = dict.fromkeys(range(2, 99), saying("401 Unauthorized"))
    _, *failures = one_by_one(no, 3, patience_seconds=1.5)
    for failed in failures:
        assert isinstance(failed, Failed) and failed.reason == "server_unreachable" and failed.transient
        assert "HTTP 401" in failed.message


def test_one_that_is_turned_away_while_others_are_answered_holds_up_nobody_for_long() -> None:
    async def run() -> list[Any]:
        async def answer(number: int) -> bytes:
            if number == 2:
                await asyncio.sleep(0.3)
                return saying("403 Forbidden")
            return completion("well")

        async with raw(answer) as url:
            settings = model(url, retries=0)
            pool = Pool(settings)
            await ask(pool, settings, [question(0)])
            strange = asyncio.ensure_future(ask(pool, settings, [question(1)]))
            await asyncio.sleep(0.1)
            others = await ask(pool, settings, [question(2)])
            return [*await strange, *others, *(each.up for each in await pool._endpoints.current())]

    failed, other, up = asyncio.run(run())
    assert isinstance(failed, Failed) and failed.transient and "HTTP 403" in failed.message
    assert isinstance(other, Reply) and up


def test_a_prompt_that_a_provider_filters_is_refused_like_one_that_the_model_refuses() -> None:
    (failed,) = one_by_one({1: saying("400 Bad Request", "content_filter")}, 1)
    assert isinstance(failed, Failed) and failed.reason == "refused" and not failed.transient


@pytest.mark.parametrize(
    "said",
    [
        http(b"<html>Welcome to the hotel's network</html>", "text/html"),
        http(b"{}"),
        http(b"[]"),
        http(b"null"),
        http(b'{"choices": [{"message": null}]}'),
        http(b'{"choices": []}'),
        http(b'{"choices": '),
        http(b"\xff\xfe"),
        b"this is no HTTP\r\n\r\n",
    ],
    ids=["a web page", "empty", "list", "null", "no message", "no choice", "half", "no UTF-8", "no HTTP"],
)
def test_what_is_no_completion_is_a_failure_that_may_pass(said: bytes) -> None:
    async def run() -> Any:
        async def answer(number: int) -> bytes:
            return said

        async with raw(answer) as url:
            settings = model(url, retries=1)
            return await ask(Pool(settings), settings, [question(1)])

    (failed,) = asyncio.run(run())
    assert isinstance(failed, Failed) and failed.transient and failed.reason in ("server_error", "server_error"), failed


def test_half_a_character_in_an_answer_is_replaced() -> None:
    async def run() -> Any:
        async def answer(number: int) -> bytes:
            return completion("It rains \ud800.")

        async with raw(answer) as url:
            settings = model(url)
            return await ask(Pool(settings), settings, [question(1)])

    (reply,) = asyncio.run(run())
    assert reply.text == "It rains ?."


def test_the_first_of_a_prefix_goes_ahead_of_the_others() -> None:
    async def run() -> tuple[int, list[Any]]:
        there, go, seen = asyncio.Event(), asyncio.Event(), 0

        async def answer(number: int) -> bytes:
            nonlocal seen
            seen = max(seen, number)
            there.set()
            if number == 1:
                await go.wait()
            return completion("{}")

        async with raw(answer) as url:
            settings = model(url)
            requests = [question(number, "The same notes. ") for number in range(6)]
            asking = asyncio.ensure_future(ask(Pool(settings), settings, requests))
            await there.wait()
            await asyncio.sleep(0.3)  # for the others, which must not come
            before = seen
            go.set()
            return before, await asking

    before, replies = asyncio.run(run())
    assert before == 1
    assert all(isinstance(reply, Reply) for reply in replies)
