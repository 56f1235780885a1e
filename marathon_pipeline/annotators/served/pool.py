"""Sending requests: to the right replica, as many at once as it bears, again where trying again can help."""

import asyncio
import base64
import hashlib
import os
import random
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.annotators.served.endpoints import Endpoint, Endpoints
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.dataset.journal import Asked, Journal
from marathon_pipeline.errors import Failed, Unfinished, UserError
from marathon_pipeline.records import digest

_PAUSE_SECONDS = (0.5, 30.0)  # before the first retry, and at most
_KNOWN_PREFIXES = 4096
_NOT_TAKEN = ("ConnectError", "ConnectTimeout")  # of whichever HTTP library `openai` uses
_NO_COUNT = 2**40  # tokens
# What JSON brings that is something else.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_PASSING = (408, 409, 425, 429)  # and all from 500 on
_TURNED_AWAY = (401, 403, 404)  # by who has answered before: a key ran out, or a balancer's servers are replaced
_FILTERED = ("content_filter", "content_policy_violation")  # what OpenAI and Azure call a prompt that they refuse


class Request(NamedTuple):
    """What is asked of a model, without where and by whom. `pictures`: JPEGs, shown before the first question."""

    messages: tuple[Mapping[str, str], ...]  # role and content
    schema_name: str
    schema: Mapping[str, Any]
    seed: int
    shared: str  # what the first question begins with; requests that share it are asked after one another
    pictures: tuple[bytes, ...] = ()


class Reply(NamedTuple):
    id: str
    finish: str
    text: str
    refusal: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    gpu_seconds: float


@dataclass
class _Prefix:
    """What several requests begin with: whether a first one went ahead, and who has computed it."""

    key: str
    led: asyncio.Event = field(default_factory=asyncio.Event)
    home: Endpoint | None = None


class Sender(Protocol):
    """What a request is given to."""

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        """`asked`: what `journal` will say of the request. Raises Failed, or Unfinished where no answer comes now."""
        ...

    def share(self, processes: int) -> None:
        """So many processes ask the same servers, this one among them."""
        ...

    def stop(self) -> None:
        """Begin nothing more; what is under way may end."""
        ...

    async def close(self) -> Written | None:
        """All has ended: put away what is open."""
        ...


def hash_of(request: Request, settings: ModelSettings) -> str:
    """sha256 of all that decides the answer."""
    return digest(
        [
            settings.name,
            settings.temperature,
            settings.answer_tokens,
            list(request.messages),
            [request.schema_name, request.schema],
            request.seed,
            [settings.frames.send, [hashlib.sha256(picture).hexdigest() for picture in request.pictures]],
        ]
    )


def body_of(request: Request, settings: ModelSettings) -> dict[str, Any]:
    """The request as OpenAI's chat completions take it."""
    messages: list[dict[str, Any]] = [dict(message) for message in request.messages]
    if request.pictures:
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = [*_shown(request.pictures, settings), {"type": "text", "text": first["content"]}]
    return {
        "model": settings.model,
        "messages": messages,
        "temperature": settings.temperature,
        "seed": request.seed,
        "max_tokens": settings.answer_tokens,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": request.schema_name, "strict": True, "schema": request.schema},
        },
    }


def _shown(pictures: Sequence[bytes], settings: ModelSettings) -> list[dict[str, Any]]:
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    if settings.frames.send == "video":
        return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(encoded)}"}}]
    return [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{each}"}} for each in encoded]


class Pool:
    """Sends to a model's endpoints. For one event loop."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._key = _key_here(settings)
        self._endpoints = Endpoints(settings, self._key)
        self._prefixes: OrderedDict[str, _Prefix] = OrderedDict()
        self._processes = 1

    def share(self, processes: int) -> None:
        self._processes = processes
        self._endpoints.bound(max(1, self._settings.max_in_flight // processes))

    def stop(self) -> None:
        self._endpoints.stopped = True

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        """The first request of a prefix goes ahead, so that the server computes it once; the others follow."""
        if not request.shared:
            return await self._until_answered(request, _Prefix(asked.request), urgent=False)
        key = digest([request.messages[0], request.shared])
        prefix = self._prefixes.get(key)
        if prefix is None:
            prefix = self._prefixes[key] = _Prefix(key)
            while len(self._prefixes) > _KNOWN_PREFIXES:
                self._prefixes.popitem(last=False)[1].led.set()
            try:
                return await self._until_answered(request, prefix, urgent=False)
            finally:
                prefix.led.set()
        await prefix.led.wait()
        return await self._until_answered(request, prefix, urgent=True)

    async def _until_answered(self, request: Request, prefix: "_Prefix", *, urgent: bool) -> Reply:
        failure, wait = Failed("server_error"), 0.0
        for attempt in range(self._settings.retries + 1):
            if attempt:
                first, most = _PAUSE_SECONDS
                await asyncio.sleep(max(wait, random.uniform(0, min(most, first * 2**attempt))))  # noqa: S311
            reply = await self._sent(request, prefix, urgent)
            if isinstance(reply, Reply):
                return reply
            failure, wait = reply
        raise failure

    async def _sent(self, request: Request, prefix: "_Prefix", urgent: bool) -> "Reply | tuple[Failed, float]":
        """What came of it at the first endpoint that took it: what none took was not tried, and may be sent later."""
        while True:
            endpoint = prefix.home = await self._endpoints.choose(prefix.key, prefix.home)
            async with endpoint.slot(urgent):
                if self._endpoints.stopped:
                    raise Unfinished
                if endpoint.up and (came := await self._once(endpoint, request)) is not None:
                    return came

    async def _once(self, endpoint: Endpoint, request: Request) -> "Reply | tuple[Failed, float] | None":
        """The reply, or a failure that may pass with how long the server asks to wait; None where nobody took it.

        Raises any other failure.
        """
        import openai

        began, shared, answered = time.monotonic(), endpoint.shared_seconds(), endpoint.answered
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                # not `chat.completions.create`, which spends a quarter of the CPU on classes that nothing here needs
                completion = await endpoint.client().post(
                    "/chat/completions", cast_to=dict[str, Any], body=body_of(request, self._settings)
                )
            took = time.monotonic() - began
            gpu_seconds = (endpoint.shared_seconds() - shared) * self._settings.gpus / self._processes
            reply = reply_of(completion, took, gpu_seconds)
        except openai.APIStatusError as error:
            return self._refused(endpoint, error, answered)
        except (TimeoutError, openai.APIConnectionError) as error:
            if type(error.__cause__).__name__ in _NOT_TAKEN:
                endpoint.is_down()
                return None
            if isinstance(error, TimeoutError | openai.APITimeoutError):
                endpoint.width.refused()
                return self._passing("timeout", endpoint, f"no answer within {self._settings.timeout_seconds:g} s"), 0.0
            return self._passing("server_error", endpoint, str(error.__cause__ or error)), 0.0
        except (openai.OpenAIError, *UNREADABLE) as error:  # an answer that is none
            return self._passing("server_error", endpoint, f"unreadable: {error}"), 0.0
        endpoint.answers()
        endpoint.answered += 1
        endpoint.width.answered(took)
        return reply

    def _refused(self, endpoint: Endpoint, error: Any, answered: int) -> "tuple[Failed, float] | None":
        """As `_once`. answered: what the endpoint had answered when the request was sent."""
        said = _said(error)
        if error.status_code in _TURNED_AWAY and endpoint.answered:
            if endpoint.answered == answered:
                endpoint.is_down(f"HTTP {error.status_code}")
                return None
            # others were answered meanwhile, so that it may be about this one
            return self._passing("server_error", endpoint, f"HTTP {error.status_code}"), 0.0
        if error.code in _FILTERED:
            raise Failed("refused", f"{self._settings.model} at {endpoint.url}: {said[:200]}")
        if error.status_code not in _PASSING and error.status_code < 500:
            raise rejected(self._settings, endpoint.url, error.status_code, said)
        endpoint.answers()
        if error.status_code == 429:
            endpoint.width.refused()
            return self._passing("server_busy", endpoint, said), _retry_after(error.response.headers)
        return self._passing("server_error", endpoint, f"HTTP {error.status_code} {said}"), 0.0

    def _passing(self, reason: str, endpoint: Endpoint, said: str) -> Failed:
        return Failed(reason, f"{self._settings.model} at {endpoint.url}: {said[:200]}", transient=True)

    async def close(self) -> None:
        await self._endpoints.close()


def rejected(settings: ModelSettings, url: str, status: int, said: str) -> Failed:
    """What a server will answer again, however often it is asked."""
    where = f"{settings.model} at {url}"
    if status in (401, 403):
        return Failed("unauthorized", f"{where}: HTTP {status}: set api_key_env, and the variable that it names")
    if "context length" in said or "maximum context" in said or "max_model_len" in said:
        return Failed("context", f"{where}: {said[:200]}; set context_tokens to what the server holds")
    return Failed("rejected", f"{where}: HTTP {status}: {said[:200]}")


def reply_of(completion: Mapping[str, Any], seconds: float, gpu_seconds: float) -> Reply:
    """Raises one of `UNREADABLE` where a server's JSON is no completion."""
    (choice, *_), usage = completion["choices"], dict(completion.get("usage") or {})
    message = dict(choice["message"])
    return Reply(
        id=_whole(str(completion.get("id") or "")),
        finish=_whole(str(choice.get("finish_reason") or "")),
        text=_whole(message.get("content")),
        refusal=_whole(message.get("refusal")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=round(seconds, 3),
        gpu_seconds=round(gpu_seconds, 4),
    )


def _count(said: object) -> int:
    """Of tokens, which a bill is reckoned from; 0 where what is said is none."""
    return said if isinstance(said, int) and 0 <= said < _NO_COUNT else 0


def _whole(text: str | None) -> str:
    """JSON may hold half a character, which no file can."""
    return (text or "").encode("utf-8", "replace").decode()


def key_of(settings: ModelSettings) -> str:
    """Raises UserError where the variable that a job names is not set."""
    if not settings.api_key_env:
        return ""
    key = os.environ.get(settings.api_key_env, "")
    if not key:
        raise UserError(f"{settings.model}: the environment variable {settings.api_key_env} (api_key_env) is not set")
    return key


def _key_here(settings: ModelSettings) -> str:
    """In a worker, where it says nothing about the video. Raises Failed."""
    try:
        return key_of(settings)
    except UserError as error:
        what = f"{error} on host {socket.gethostname()}; set it for the workers there, and run again"
        raise Failed("server_unreachable", what, transient=True) from None


def _said(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(60.0, max(0.0, float(headers.get("retry-after", ""))))
    except ValueError:
        return 0.0
