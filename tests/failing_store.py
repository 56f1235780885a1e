"""A store that speaks enough of S3, keeps its objects in memory, and fails as it is told to.

with failing_store() as store: store.fails = lambda request: 503 if request.command == "GET" else None
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def _well(request: BaseHTTPRequestHandler) -> int | None:
    return None


@dataclass
class FailingStore:
    """`fails`: the status that a request gets instead of what it asks for. `most`: bytes, then an answer breaks off."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)  # by their paths, `/bucket/key`
    fails: Callable[[BaseHTTPRequestHandler], int | None] = _well
    most: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)  # methods, and from which byte on


@contextmanager
def failing_store() -> Iterator[FailingStore]:
    store = FailingStore()

    class Answers(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, *_: object) -> None: ...

        def answer(self, code: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: store.most])
                self.close_connection = self.close_connection or len(data[: store.most]) < len(data)

        def do_GET(self) -> None:
            store.asked.append((self.command, self.headers.get("Range", "")))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if fault := store.fails(self):
                return self.answer(fault)
            if self.command == "PUT":
                store.objects[self.path] = body
                return self.answer(200, ETag='"e"')
            if self.command == "POST":  # of the kind `/bucket?delete`
                keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
                for key in keys:
                    store.objects.pop(f"{self.path.partition('?')[0]}/{key}", None)
                told = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
                return self.answer(200, f"<DeleteResult>{told}</DeleteResult>".encode())
            data = store.objects.get(self.path)
            if data is None:
                return self.answer(404)
            etag = f'"{md5(data).hexdigest()}"'
            if self.headers.get("If-Match", etag) != etag:
                return self.answer(412)
            found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = (int(found[1]), int(found[2] or len(data) - 1)) if found else (0, len(data) - 1)
            part = data[first : last + 1]
            headers = {"ETag": etag, "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
            if found:
                headers["Content_Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            self.answer(206 if found else 200, part, **headers)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
