"""Netscape cookie files. yt-dlp is given none that it would complain of: it writes out such a line, secret and all."""

import re
from pathlib import Path

from marathon_pipeline.errors import UserError

_HEAD = re.compile(r"#( Netscape)? HTTP Cookie File")
_HTTP_ONLY = "#HttpOnly_"
_FIELDS = 7
_EXPIRES = re.compile(r"([0-9]{1,15}(\.[0-9]+)?)?")


def cookies_of(path: Path) -> str:
    """The text of a cookie file. Raises UserError, which names a line and never what it holds."""
    mend = "export it anew, or leave download.cookies out"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(f"download.cookies: {path} cannot be read ({mend})") from None
    lines = text.split("\n")
    if not _HEAD.match(lines[0]):
        raise UserError(f"download.cookies: {path} line 1: is not `# Netscape HTTP Cookie File` ({mend})")
    for number, line in enumerate(lines, start=1):
        if not _is_fine(line):
            raise UserError(
                f"download.cookies: {path} line {number}: is no cookie of seven fields between tabs ({mend})"
            )
    return text


def _is_fine(line: str) -> bool:
    if not line.startswith(_HTTP_ONLY) and (line.startswith("#") or not line.strip()):
        return True
    fields = line.removeprefix(_HTTP_ONLY).split("\t")
    if len(fields) != _FIELDS:
        return False
    domain, of_subdomains, _, _, expires, _, _ = fields
    return (
        not domain.startswith("#")
        and domain.startswith(".") == (of_subdomains == "TRUE")
        and _EXPIRES.fullmatch(expires) is not None
    )
