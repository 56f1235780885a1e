"""An S3-speaking server that keeps what it is given in a folder, so that it may be killed: `python -m kept_store FOLDER
PORT`.

As much of S3 as the storage of the project asks for: objects of one part and of several, ranges,
creation, listing, deletion.
"""

import asyncio
import hashlib
import shutil
import sys
import tempfile
import uuid
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web


class Kept:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path = self._folder / unquote(request.raw_path.partition("?")[0]).lstrip("/")
        match request.method:
            case "PUT" if "x-amz-copy-source" in request.headers:
                source = self._folder / unquote(request.headers["x-amz-copy-source"]).lstrip("/")
                self._put(path, source.read_bytes(), create=False)
                return _xml("<CopyObjectResult><ETag>copied</ETag></CopyObjectResult>")
            case "PUT" if "partNumber" not in request.query:
                data = await request.read()
                if not self._put(path, data, create=request.headers.get("If-None-Match") == "*"):
                    return _problem(412, "PreconditionFailed")
                return web.Response(headers={"ETag": _tag(data)})
            case "GET" if "list-type" in request.query:
                return self._listed(path, request.query.get("prefix", ""))
            case "GET" | "HEAD":
                return self._given(path, request)
            case "POST" if "uploads" in request.query:
                upload = uuid.uuid4().hex
                (self._folder / ".uploads" / upload).mkdir(parents=True)
                return _xml(
                    f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                )
            case "PUT":
                part = self._parts(request) / f"{int(request.query['partNumber']):05d}"
                part.write_bytes(await request.read())
                return web.Response(headers={"ETag": f'"{part.name}"'})
            case "POST" if "uploadId" in request.query:
                parts = sorted(self._parts(request).iterdir())
                self._put(path, b"".join(part.read_bytes() for part in parts), create=False)
                shutil.rmtree(self._parts(request))
                return _xml("<CompleteMultipartUploadResult><ETag>joined</ETag></CompleteMultipartUploadResult>")
            case "DELETE" if "uploadId" in request.query:
                shutil.rmtree(self._parts(request), ignore_errors=True)
                return web.Response(status=204)
            case "DELETE":
                path.unlink(missing_ok=True)
                return web.Response(status=204)
            case "POST" if "delete" in request.query:
                asked = ElementTree.fromstring(await request.text()).iter()
                keys = [each.text or "" for each in asked if each.tag.endswith("Key")]
                for key in keys:
                    (path / key).unlink(missing_ok=True)
                return _xml(f"<DeleteResult>{''.join(map(_deleted, keys))}</DeleteResult>")
        return _problem(501, "NotImplemented")

    def _parts(self, request: web.Request) -> Path:
        return self._folder / ".uploads" / request.query["uploadId"]

    def _put(self, path: Path, data: bytes, *, create: bool) -> bool:
        """Whole or not at all; False where it was to be new and is not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new", delete=False) as file:
            file.write(data)
        made = Path(file.name)
        if not create:
            made.replace(path)
            return True
        try:
            path.hardlink_to(made)
        except FileExistsError:
            return False
        finally:
            made.unlink()
        return True

    def _given(self, path: Path, request: web.Request) -> web.Response:
        if not path.is_file():
            return _problem(404, "NoSuchKey")
        data = path.read_bytes()
        headers = {"ETag": _tag(data), "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(data))})
        asked = request.http_range
        if asked.start is None and asked.stop is None:
            return web.Response(body=data, headers=headers)
        start, stop, _ = asked.indices(len(data))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return web.Response(status=206, body=data[start:stop], headers=headers)

    def _listed(self, bucket: Path, prefix: str) -> web.Response:
        top = bucket / prefix
        found = sorted(path for path in (top if top.is_dir() else top.parent).rglob("*") if path.is_file())
        contents = []
        for path in found:
            key = path.relative_to(bucket).as_posix()
            if key.startswith(prefix):
                size = path.stat().st_size
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    f"<ETag>kept</ETag><Size>{size}</Size></Contents>"
                )
        return _xml(f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(contents)}</ListBucketResult>")


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _deleted(key: str) -> str:
    return f"<Deleted><Key>{escape(key)}</Key></Deleted>"


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0"?>{text}', content_type="application/xml")


def _problem(status: int, code: str) -> web.Response:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=body, content_type="application/xml")


async def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{key:.*}", Kept(folder).serve)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
