"""An object store that speaks S3 on loopback, and in front of it one that is slow, or asks to be asked less.

with object_store() as store, in_front(store, latency=0.02) as front: ...
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.error import URLError

BUCKET = "bucket"
_SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass
class Front:
    """What stands before the store. `storm`: the share of requests that it refuses while it is set.

    loses: to how many of the next it answers 500, whatever came of them.
    """

    url: str
    latency: float = 0.0
    storm: float = 0.0
    loses: int = 0
    answered: Counter[str] = field(default_factory=Counter)  # by method; refusals as `503`


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """The URL of an S3-speaking server with one empty bucket."""
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            url = next(line.split()[-1] for line in server.stderr if "Running on http://127" in line)
            threading.Thread(target=server.stderr.read, daemon=True).start()  # else its log fills the pipe
            _put_bucket(url)
            yield url
        finally:
            server.terminate()


def _put_bucket(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"))
            return
        except URLError:
            time.sleep(0.1)
    raise AssertionError("the object store does not start")


def environment(url: str) -> dict[str, str]:
    """What a process needs to find the store under `s3://`."""
    keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}
    return {**os.environ, **keys, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}


@contextlib.contextmanager
def in_front(store: str, *, latency: float = 0.0, storm: float = 0.0) -> Iterator[Front]:
    """A server that passes everything on to the store, late, or not at all."""
    ready, holder = threading.Event(), list[Any]()

    def serve() -> None:
        asyncio.run(_serve(store, latency, storm, holder, ready))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    front, loop, stop = holder
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _serve(store: str, latency: float, storm: float, holder: list[Any], ready: threading.Event) -> None:
    from aiohttp import ClientSession, TCPConnector, web

    front, stop, dice = Front("", latency, storm), asyncio.Event(), random.Random(7)

    async def passed_on(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(front.latency)
        if dice.random() < front.storm:
            front.answered["503"] += 1
            return web.Response(status=503, body=_SLOW_DOWN, content_type="application/xml")
        front.answered[request.method] += 1
        body = await request.read()
        async with session.request(
            request.method,
            f"{store}{request.raw_path}",
            headers=request.headers,
            data=body,
            skip_auto_headers=["Accept"],
        ) as answer:
            data = await answer.read()
            if front.loses:
                front.loses -= 1
                return web.Response(status=500)
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
            return web.Response(status=answer.status, headers=headers, body=data)

    application = web.Application(client_max_size=2**30)
    application.router.add_route("*", "/{key:.*}", passed_on)
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as session:
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        front.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        holder += [front, asyncio.get_running_loop(), stop]
        ready.set()
        await stop.wait()
        await runner.cleanup()
