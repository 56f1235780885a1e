"""What a job says about downloads."""

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


class DownloadSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_height: int = Field(480, gt=0)  # of the shorter side, where there is one: decoding is the cost later
    audio: bool = False  # nothing here listens: sound costs bytes and a merge
    max_bytes: int = Field(8 * 2**30, gt=0)  # one endless answer would fill the disk for all
    retries: int = Field(3, ge=0)  # of one request that broke off; the next run tries a transient failure again
    max_wait_seconds: float = Field(60.0, ge=0)  # a server that says `come back in a day` would hold its place a day
    timeout_seconds: float = Field(30.0, gt=0)  # a silent server would hold its place for ever
    max_seconds: float = Field(4 * 3600.0, gt=0)  # and one that sends a byte a second, which is never silent
    cookies: Path | None = None  # a Netscape cookie file; an account that downloads much risks a ban
