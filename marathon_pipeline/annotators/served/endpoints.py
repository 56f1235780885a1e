"""The endpoints of a model: which there are, which of them answer, and which one a request goes to."""

import asyncio
import hashlib
import heapq
import itertools
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.annotators.served.width import Width
from marathon_pipeline.errors import Failed, Unfinished, UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_DNS = "dns+"
_READ_AGAIN_SECONDS = 10.0
_DOWN_SECONDS = (1.0, 30.0)  # after the first failure to connect, and at most
_CONNECT_SECONDS = 10.0
_CONNECTIONS = 32  # of one client
_CROWDED = 2.0  # times as much to do as another, and no less than so many widths: what it knows is not worth the wait


class Endpoint:
    """One replica: its connections, its slots, and whether it answers."""

    def __init__(self, url: str, settings: ModelSettings, key: str) -> None:
        self.url, self._settings, self._key = url, settings, key
        self.width = Width(settings.max_in_flight)
        self.in_flight = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._clients: list[AsyncOpenAI] = []
        self.down_since = self.down_until = 0.0
        self.down_because = ""  # where more is known than that it took no connection
        self.answered = 0  # requests
        self._failures = 0
        self._shared_seconds, self._told = 0.0, time.monotonic()

    def client(self) -> "AsyncOpenAI":
        """The next of several in turn, since one looks at all of its connections for every request."""
        if not self._clients:
            self._clients = [self._new_client() for _ in range(-(-self._settings.max_in_flight // _CONNECTIONS))]
        return self._clients[next(self._number) % len(self._clients)]

    def _new_client(self) -> "AsyncOpenAI":
        import openai

        seconds = self._settings.timeout_seconds
        timeout = openai.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds))
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=_CONNECTIONS)
        http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
        return openai.AsyncOpenAI(base_url=self.url, api_key=self._key or "none", max_retries=0, http_client=http)

    @property
    def load(self) -> float:
        return (self.in_flight + len(self._waiting)) / self.width.value

    @asynccontextmanager
    async def slot(self, urgent: bool) -> AsyncIterator[None]:
        """Wait for one; what is urgent goes ahead of what is not."""
        if self.in_flight >= int(self.width.value) or self._waiting:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (not urgent, next(self._number), turn))
            self._wake()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        self._tick()
        self.in_flight += 1

    def _leave(self) -> None:
        self._tick()
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self.in_flight < int(self.width.value):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.cancelled():
                self._enter()
                turn.set_result(None)

    def _tick(self) -> None:
        now = time.monotonic()
        self._shared_seconds += (now - self._told) / max(1, self.in_flight)
        self._told = now

    def shared_seconds(self) -> float:
        """A clock that runs the slower the more requests share the server; a request's own time is read off it."""
        self._tick()
        return self._shared_seconds

    @property
    def up(self) -> bool:
        return time.monotonic() >= self.down_until

    def answers(self) -> None:
        self._failures = 0

    def is_down(self, because: str = "") -> None:
        """Whoever finds it so while it counts as up; those that were on their way with that one say nothing new."""
        if not self.up:
            return
        now, (first, most) = time.monotonic(), _DOWN_SECONDS
        self.down_since = self.down_since if self._failures else now
        self.down_until = now + min(most, first * 2 ** min(self._failures, 10))
        self._failures += 1
        self.down_because = because

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        self._clients = []


class Endpoints:
    """All replicas of a model."""

    def __init__(self, settings: ModelSettings, key: str) -> None:
        self._settings, self._key = settings, key
        self.stopped = False
        self._all: dict[str, Endpoint] = {}
        self._most = settings.max_in_flight
        self._read = float("-inf")
        self._none_since = 0.0  # where there is none
        self._problem = ""  # with what the setting names
        self._reading = asyncio.Lock()

    def bound(self, most: int) -> None:
        """No more requests at each of them."""
        self._most = most
        for endpoint in self._all.values():
            endpoint.width.bound(most)

    async def current(self) -> list[Endpoint]:
        """Read again what the setting names, now and then; those that are gone finish what they have."""
        async with self._reading:
            if time.monotonic() - self._read > _READ_AGAIN_SECONDS:
                try:
                    urls, self._problem = await asyncio.to_thread(urls_of, self._settings), ""
                except UserError as error:  # a file that is being replaced, a name server that is away
                    urls, self._problem = list(self._all), str(error)
                if self._all or self._read < 0:
                    self._none_since = time.monotonic()
                self._all = {url: self._all.get(url) or Endpoint(url, self._settings, self._key) for url in urls}
                self._read = time.monotonic()
                self.bound(self._most)
        return list(self._all.values())

    async def choose(self, key: str, home: Endpoint | None = None) -> Endpoint:
        """The replica for a key: `home` if it is up, else by rendezvous hashing always the same of those not crowded.

        Raises Failed `server_unreachable` where all have been down, or there was none, for longer than the job's
        patience, and Unfinished where the run is to end first.
        """
        while not self.stopped:
            endpoints, now = await self.current(), time.monotonic()
            up = [endpoint for endpoint in endpoints if endpoint.up]
            if home in up:
                return home
            if up:
                ranked = sorted(up, key=lambda endpoint: _rank(endpoint.url, key), reverse=True)
                bearable = _CROWDED * max(1.0, min(endpoint.load for endpoint in up))
                return next(endpoint for endpoint in ranked if endpoint.load <= bearable)
            since = max((endpoint.down_since for endpoint in endpoints), default=self._none_since)
            if now - since > self._settings.patience_seconds:
                raise self._unreachable(endpoints)
            await asyncio.sleep(min(1.0, max(0.05, min(e.down_until for e in endpoints) - now) if endpoints else 1.0))
        raise Unfinished

    def _unreachable(self, endpoints: Sequence[Endpoint]) -> Failed:
        if endpoints:
            names = ", ".join(f"{each.url} ({each.down_because or 'no connection'})" for each in endpoints)
            return Failed("server_unreachable", f"{self._settings.model}: no answer from {names}", transient=True)
        problem = self._problem or f"{self._settings.endpoints} names no endpoint of {self._settings.model}"
        what = f"{problem} on host {socket.gethostname()}; mend it there, or correct `endpoints`, and run again"
        return Failed("server_unreachable", what, transient=True)

    async def close(self) -> None:
        for endpoint in self._all.values():
            await endpoint.close()


def urls_of(settings: ModelSettings) -> list[str]:
    """The URLs that the setting `endpoints` stands for now. Raises UserError."""
    named = settings.endpoints
    if isinstance(named, tuple):
        return [url.rstrip("/") for url in named]
    if named.startswith(_DNS):
        return _addresses(named.removeprefix(_DNS).rstrip("/"))
    if named.startswith(("http://", "https://")):
        return [named.rstrip("/")]
    try:
        lines = Path(named).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"endpoints of {settings.model}: {named}: cannot be read ({type(error).__name__})") from None
    urls = [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    if wrong := [url for url in urls if not url.startswith(("http://", "https://"))]:
        raise UserError(f"{named}: `{wrong[0]}` is no URL, such as http://10.0.0.7:8000/v1")
    return list(dict.fromkeys(urls))


def _addresses(url: str) -> list[str]:
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"endpoints {_DNS}{url}: the name does not resolve ({error.strerror})") from None
    hosts = sorted({str(address[4][0]) for address in found})
    return [
        urlunsplit(parts._replace(netloc=f"{f'[{host}]' if ':' in host else host}:{parts.port or 80}"))
        for host in hosts
    ]


def _rank(url: str, key: str) -> bytes:
    return hashlib.sha256(f"{url}\n{key}".encode()).digest()
