"""The server itself: `PYTHONPATH=tests python -m served.server --port 0 --slots 256 --latency 2`.

It serves `POST /v1/chat/completions`, `GET /v1/models` and `GET /stats`, prints one line once it listens, and logs
one JSON line a request when that ends.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, TextIO

from aiohttp import web

from served import answers, faults, judge
from served.answers import Asked
from served.faults import Choice, Faults, Strike

TOKEN = 4  # characters
BLOCK = 16 * TOKEN  # of the prefix cache
PROBE = "support_check"  # asked once to see whether schemas are obeyed at all: no fault strikes it
MOST_TOKENS = 4096  # of an answer, where the request sets no bound
REMEMBERED = 512  # requests, whose answers a later one may get instead of its own


@dataclass
class PrefixCache:
    """Blocks of prompts seen before, each known by all that stands before it; the longest unused are dropped."""

    blocks: int
    _known: dict[int, None] = field(default_factory=dict)

    def cached_tokens(self, prompt: str) -> int:
        known, before, hits = self._known, 0, 0
        for start in range(0, len(prompt) - BLOCK, BLOCK):
            before = hash((before, prompt[start : start + BLOCK]))
            if before in known:
                del known[before]
                hits += hits * BLOCK == start
            known[before] = None
        while len(known) > self.blocks:
            del known[next(iter(known))]
        return hits * BLOCK // TOKEN


@dataclass
class Entry:
    """A request's line in the log. `gone`: the client did not wait for the answer."""

    body: str  # sha256
    conversation: str = ""  # of what is asked, which retries and repairs have in common
    schema: str = ""
    task: str = ""
    status: int = 0
    fault: str = ""
    finish: str = ""
    seconds: float = 0.0
    ended: float = 0.0  # seconds since 1970
    gone: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Completions:
    """Answers chat completions, and counts them."""

    def __init__(self, options: argparse.Namespace, faults: Faults, log: TextIO | None) -> None:
        self.options, self.faults, self.log = options, faults, log
        self.slots = asyncio.Semaphore(options.slots)
        self.cache = PrefixCache(options.cache_tokens // 16)
        self.recent: deque[Asked] = deque(maxlen=REMEMBERED)
        self.in_flight = self.most_in_flight = self.requests = self.gone = 0
        self.statuses: Counter[int] = Counter()
        self.struck: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()  # by schema
        self.answered_well: Counter[str] = Counter()  # by body
        self.tokens: Counter[str] = Counter()

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "answered": self.statuses[200],
            "answered_by_schema": self.answered,
            "answered_well_more_than_once": sum(count > 1 for count in self.answered_well.values()),
            "statuses": self.statuses,
            "faults": self.struck,
            "gone": self.gone,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "tokens": self.tokens,
            "cpu_seconds": round(time.process_time(), 3),
        }

    async def respond(self, request: web.Request) -> web.StreamResponse:
        began, self.requests, self.in_flight = time.monotonic(), self.requests + 1, self.in_flight + 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        entry = Entry("")
        try:
            body = await request.read()
            entry.body = hashlib.sha256(body).hexdigest()
            response = await self._respond(request, body, entry)
            entry.status = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            entry.gone = True
            raise
        finally:
            self.in_flight -= 1
            entry.seconds, entry.ended = round(time.monotonic() - began, 4), time.time()
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        self.gone += entry.gone
        if entry.status:
            self.statuses[entry.status] += 1
        if entry.fault:
            self.struck[entry.fault] += 1
        if entry.status == 200:
            self.answered[entry.schema] += 1
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
                self.tokens[name] += getattr(entry, name)
            if entry.fault in ("", "late") and entry.finish == "stop":
                self.answered_well[entry.body] += 1
        if self.log:
            self.log.write(json.dumps(entry.__dict__) + "\n")

    async def _respond(self, request: web.Request, body: bytes, entry: Entry) -> web.StreamResponse:
        if (refusal := self.unauthorized(request)) is not None:
            return refusal
        try:
            sent = json.loads(body)
            asked = answers.asked(sent)
            good = self._good(asked) if asked.schema is None or not self.options.no_schemas else "Certainly! Yes."
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return problem(400, f"{type(error).__name__}: {error}", "BadRequestError")
        entry.conversation, entry.schema, entry.task = asked.conversation, asked.name, asked.task
        entry.prompt_tokens = len(asked.prompt) // TOKEN
        most_tokens = sent.get("max_completion_tokens") or sent.get("max_tokens")
        if (refusal := self._unfit(sent.get("model"), entry.prompt_tokens, most_tokens or 0)) is not None:
            return refusal
        strike, source = Strike("", Random(entry.body)), asked
        if asked.name != PROBE:
            strike, source = self._struck(entry.body, asked)
            self.recent.append(asked)
        entry.fault = strike.kind
        if (failure := await self._failure(strike)) is not None:
            return failure
        async with self.slots:
            entry.cached_tokens = self.cache.cached_tokens(asked.prompt)
            await asyncio.sleep(self.options.latency + self.options.jitter * strike.random.random())
        if strike.kind == "late":
            await asyncio.sleep(self.faults.settings["late_seconds"] * strike.random.uniform(0.25, 1))
        value = good if source is asked else self._good(source)
        choice = chosen(asked, value, strike, most_tokens or MOST_TOKENS)
        entry.finish, entry.completion_tokens = choice.finish_reason, len(choice.content or "") // TOKEN + 1
        answer = json.dumps(completion(sent, entry, choice), ensure_ascii=False).encode()
        if strike.kind == "cut":
            return await cut_off(request, answer)
        return web.Response(body=answer, content_type="application/json")

    def _good(self, asked: Asked) -> Any:
        if self.options.judge is not None and asked.name in judge.NAMES:
            return judge.answer(asked, self.options.judge)
        return answers.answer(asked)

    def unauthorized(self, request: web.Request) -> web.Response | None:
        if self.options.key and request.headers.get("Authorization") != f"Bearer {self.options.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return None

    def _unfit(self, model: object, prompt_tokens: int, most_tokens: int) -> web.Response | None:
        """What vLLM refuses, in its words: clients read them."""
        if self.options.model and model not in self.options.model.split(","):
            return problem(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
        bound = self.options.max_model_len
        start = f"This model's maximum context length is {bound} tokens. However, "
        if bound and prompt_tokens >= bound:
            found = f"your request has {prompt_tokens} input tokens. Please reduce the length of the input messages."
            return problem(400, start + found, "BadRequestError", "input_tokens")
        if bound and prompt_tokens + most_tokens > bound:
            found = (
                f"you requested {most_tokens} output tokens and your prompt contains {prompt_tokens} input tokens, "
                f"for a total of {prompt_tokens + most_tokens} tokens. Please reduce the length of the input prompt or "
                "the number of requested output tokens."
            )
            return problem(400, start + found, "BadRequestError", "input_tokens")
        return None

    def _struck(self, body: str, asked: Asked) -> tuple[Strike, Asked]:
        """What strikes a request, and the request whose answer it gets: its own, or in a swap another's."""
        strike = self.faults.strike(bytes.fromhex(body), asked.conversation)
        if not strike.kind.startswith("swap"):
            return strike, asked
        others = [other for other in self.recent if other.conversation != asked.conversation]
        if strike.kind == "swap_frames":
            others = [other for other in others if asked.frames and other.frames not in ("", asked.frames)]
        elif strike.random.random() < 0.5:
            others = [other for other in others if other.name != asked.name] or others
        if not others:
            return Strike("", strike.random), asked
        other = strike.random.choice(others)
        if strike.kind == "swap_frames":
            other = replace(asked, frames=other.frames, conversation=other.conversation)
        return strike, other

    async def _failure(self, strike: Strike) -> web.Response | None:
        if strike.kind == "rate_limit":
            response = problem(429, "Rate limit reached, please try again later.", "rate_limit_error")
            if strike.random.random() < 0.5:
                response.headers["Retry-After"] = f"{strike.random.uniform(0.2, 1):.2f}"
            return response
        if strike.kind == "error":
            return problem(500, "Internal server error", "InternalServerError")
        if strike.kind == "unavailable":
            return web.Response(status=503, text="no healthy upstream")  # as a proxy says it: no JSON
        if strike.kind == "hang":
            await asyncio.Event().wait()
        return None


def chosen(asked: Asked, value: Any, strike: Strike, most_tokens: int) -> Choice:
    """What is said: a value as it is, or spoilt by what struck."""
    if strike.kind.startswith("refuse"):
        return faults.refused(strike.random)
    if strike.kind == "schema":
        return faults.unlike_schema(value, strike.random)
    if strike.kind == "fill" and asked.schema is not None:
        value = faults.filled(asked.schema, value, "blue")
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if strike.kind == "truncate":
        return faults.truncated(content, strike.random)
    if strike.kind == "repeat":
        return faults.repeated(content, most_tokens, strike.random)
    if len(content) > most_tokens * TOKEN:
        return Choice(content[: most_tokens * TOKEN], "length")
    return Choice(content)


def completion(sent: dict[str, Any], entry: Entry, choice: Choice) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.content, "refusal": choice.refusal}
    return {
        "id": f"chatcmpl-{entry.body[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": sent.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": choice.finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": entry.prompt_tokens,
            "completion_tokens": entry.completion_tokens,
            "total_tokens": entry.prompt_tokens + entry.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": entry.cached_tokens},
        },
    }


async def cut_off(request: web.Request, answer: bytes) -> web.StreamResponse:
    """Half of an answer, and the end of the connection."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(answer))})
    await response.prepare(request)
    await response.write(answer[: len(answer) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def problem(status: int, message: str, kind: str, parameter: str | None = None) -> web.Response:
    error = {"message": message, "type": kind, "param": parameter, "code": status}
    return web.json_response({"error": error}, status=status)


async def serve(options: argparse.Namespace, faults: Faults) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.stop_with_stdin:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    log = options.log.open("a", buffering=1) if options.log else None  # by line: a killed server loses none
    completions = Completions(options, faults, log)

    async def models(request: web.Request) -> web.Response:
        model = {"object": "model", "created": 0, "owned_by": "tests", "max_model_len": options.max_model_len or None}
        data = [model | {"id": name, "root": name} for name in (options.model or "any").split(",")]
        return completions.unauthorized(request) or web.json_response({"object": "list", "data": data})

    async def stats(request: web.Request) -> web.Response:
        return web.json_response(completions.stats())

    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/v1/chat/completions", completions.respond)
    application.router.add_get("/v1/models", models)
    application.router.add_get("/stats", stats)
    # a client that gives up frees its slot, as in vLLM
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port, backlog=1024)
    await site.start()
    print(f"listening http://{options.host}:{runner.addresses[0][1]}/v1", flush=True)
    await stop.wait()
    await runner.cleanup()
    if log:
        log.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="served.server", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--faults", type=Path, help="JSON: a share of the requests by kind, see served/faults.py")
    parser.add_argument("--log", type=Path, help="JSON lines, appended to")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that an answer takes once it has a slot")
    parser.add_argument("--jitter", type=float, default=0.0, help="up to so many seconds more: answers out of order")
    parser.add_argument("--slots", type=int, default=256, help="answers made at once; the others wait in order")
    parser.add_argument("--judge", type=json.loads, help="JSON: judge by rule, with these errors (served/judge.py)")
    parser.add_argument("--key", default="", help="the API key, if one is asked for")
    parser.add_argument("--model", default="", help="the models served, with commas (default: any name)")
    parser.add_argument("--max-model-len", type=int, default=0, help="tokens of prompt and answer (default: no bound)")
    parser.add_argument("--cache-tokens", type=int, default=2_000_000, help="size of the prefix cache")
    parser.add_argument("--no-schemas", action="store_true", help="a server that takes a schema and does not obey it")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when stdin does")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        shares = json.loads(options.faults.read_text()) if options.faults else {}
        struck = Faults(shares)
    except (OSError, ValueError, TypeError) as error:
        print(f"served.server: {options.faults}: {error}", file=sys.stderr)
        return 2
    asyncio.run(serve(options, struck))
    return 0


if __name__ == "__main__":
    sys.exit(main())
