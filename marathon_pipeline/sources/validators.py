"""A part of a download is only resumed while the server still holds the same file (RFC 9110, 13.1.5)."""

import json
from pathlib import Path

from yt_dlp.networking.common import Request, Response

_KEPT = 8  # of the last requests: a stream has thousands of pieces, and only the last one can be half there


class Validators:
    """What servers call the versions of their files, by URL, kept beside the parts: `If-Range` for the next request."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "validators.json"
        try:
            self._known: dict[str, str] = dict(json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def ask(self, request: Request) -> None:
        """Have a server that holds another version now send all of it."""
        known = self._known.get(request.url)
        if known and "Range" in request.headers:
            request.headers["If-Range"] = known

    def keep(self, request: Request, response: Response) -> None:
        """Note the version that comes. A look at an address before its part is resumed tells nothing of the part."""
        if request.url in self._known and "Range" not in request.headers:
            return
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        validator = etag if etag and not etag.startswith("W/") else modified  # a weak one does not vouch for bytes
        if validator and self._known.get(request.url) != validator:
            others = [item for item in self._known.items() if item[0] != request.url]
            self._known = dict([*others[1 - _KEPT :], (request.url, validator)])
            self._file.write_text(json.dumps(self._known))
