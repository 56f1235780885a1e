"""The review page's server: for this machine alone, or behind a token; nothing that another site could ask of it."""

import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.dataset.proxies import Proxies
from marathon_pipeline.dataset.reviews import REASONS, tidy
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.review.desk import Desk, Refused, Table

_LOG = logging.getLogger("uvicorn.error")  # prints on the console
_PAGE = Path(__file__).parent / "page"
_COOKIE = "marathon_review"
_QUERY = "token"  # in the first address: from then on a cookie holds it
_PIECE = 1 << 20  # bytes of a video read at a time
_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Said(BaseModel):
    """What a page sends: a judgement, or with `withdrawn` that the last one is taken back."""

    model_config = ConfigDict(extra="forbid")

    reviewer: str = Field(max_length=100)
    qa_id: str
    shown: str
    verdict: str
    reason: str = ""
    note: str = Field("", max_length=2000)


def app_of(desk: Desk, storage: Storage, title: str, token: str = "") -> FastAPI:
    """token: without it nobody is let in; none: only who calls it by a name of this machine is."""
    proxies = Proxies(storage)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _turned_away(request, token) or await call(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=409)

    @app.exception_handler(UserError)
    @app.exception_handler(Failed)
    def broken(request: Request, error: UserError | Failed) -> Response:
        line = (error.message or error.reason) if isinstance(error, Failed) else str(error)
        _LOG.error(line)
        return JSONResponse({"detail": line}, status_code=503)

    @app.get("/")
    def page() -> Response:
        return FileResponse(_PAGE / "review.html")

    @app.get("/review.css")
    def style() -> Response:
        return FileResponse(_PAGE / "review.css")

    @app.get("/review.js")
    def script() -> Response:
        return FileResponse(_PAGE / "review.js")

    @app.get("/api/about")
    def about() -> dict[str, object]:
        return {"title": title, "reasons": REASONS}

    @app.get("/api/table")
    def table(reviewer: str) -> Table:
        return desk.table(_named(reviewer))

    @app.post("/api/judgements")
    def judge(said: Said) -> Table:
        return desk.judge(_named(said.reviewer), said.qa_id, said.shown, said.verdict, said.reason, said.note)

    @app.get("/media/{video_id}.mp4")
    def media(video_id: str, request: Request) -> Response:
        if video_id not in desk.videos():
            return PlainTextResponse("not a video of this sample", status_code=404)
        return _video(*proxies.of(video_id), request.headers.get("range", ""))

    return app


def _named(reviewer: str) -> str:
    if not tidy(reviewer):
        raise Refused("sign in with your name first")
    return tidy(reviewer)


def _turned_away(request: Request, token: str) -> Response | None:
    """Why a request is not answered; None: it is."""
    host = request.headers.get("host", "")
    if request.method not in ("GET", "HEAD"):
        origin = request.headers.get("origin")
        elsewhere = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if elsewhere or (origin is not None and urlsplit(origin).netloc != host):
            return PlainTextResponse("judgements are taken from the review page alone", status_code=403)
    if not token:
        # A name that somebody else's DNS points here would make their page one of this origin.
        name = urlsplit(f"//{host}").hostname or ""
        return None if is_loopback(name) else PlainTextResponse("call it localhost", status_code=403)
    if request.url.path == "/" and _same(request.query_params.get(_QUERY, ""), token):
        response = RedirectResponse("/", status_code=303)  # out of the address, which gets copied and logged
        response.set_cookie(_COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86_400)
        return response
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    if _same(request.cookies.get(_COOKIE, ""), token) or _same(bearer, token):
        return None
    return PlainTextResponse("open the address that `marathon review` printed, with its token", status_code=401)


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _video(storage: Storage, key: str, wanted: str) -> Response:
    """A file, or the one stretch of it that `Range` names (RFC 9110, 14.2)."""
    try:
        size = storage.size(key)
    except FileNotFoundError:
        return PlainTextResponse("the video's proxy is not kept", status_code=404)
    found = _ONE_RANGE.fullmatch(wanted.strip())
    first, last = found.groups() if found else ("", "")
    start, end, status = 0, size, 200
    if first or last:
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        status = 206
        if start >= end:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})

    def pieces() -> Iterator[bytes]:
        for at in range(start, end, _PIECE):
            yield storage.read_range(key, at, min(end, at + _PIECE))

    headers = {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(pieces(), status_code=status, headers=headers, media_type="video/mp4")


def serve(desk: Desk, storage: Storage, title: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until told to stop. say: is given the address to open. Raises UserError where the port cannot be had."""
    token = "" if is_loopback(host) else secrets.token_urlsafe(24)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: {error.strerror or error}; give another one (--port 0: any)"
        ) from None
    with listening:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listening.getsockname()[1]}/{f'?{_QUERY}={token}' if token else ''}")
        app = app_of(desk, storage, title, token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
