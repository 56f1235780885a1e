"""What a job says about downloads."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all where known


class SiteLimits(BaseModel):
    """How much may be asked of one site, from one address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...] = ()  # patterns, `*` stands for anything
    downloads: int | None = Field(None, gt=0)  # begun in any stretch of `per_seconds`; none: as many as there is work
    per_seconds: float = Field(3600.0, gt=0)
    wait_seconds: tuple[float, float] = (0.0, 0.0)  # from one beginning to the next, drawn between the two
    at_once: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 0 <= self.wait_seconds[0] <= self.wait_seconds[1]:
            raise ValueError("wait_seconds are the shortest and the longest wait, from 0 on")
        return self


class YouTubeLimits(SiteLimits):
    """What its guests are commonly allowed; more brings a bot check for everybody behind the same address."""

    hosts: tuple[str, ...] = ("youtube.com", "*.youtube.com", "youtu.be")
    downloads: int | None = Field(300, gt=0)
    wait_seconds: tuple[float, float] = (5.0, 10.0)
    at_once: int | None = Field(4, gt=0)


class LimitSettings(BaseModel):
    """How downloads are paced, and what is done where a site wants fewer of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    youtube: SiteLimits = YouTubeLimits()
    sites: dict[str, SiteLimits] = {}  # others, by a name of your own; they go before `youtube` and `others`
    others: SiteLimits = SiteLimits()  # for each host that is not named
    egress: Literal["shared", "node"] = "shared"  # `node`: every node of the cluster has an address of its own
    egress_downloads: int | None = Field(None, gt=0)  # of all sites, by address and `egress_per_seconds`
    egress_per_seconds: float = Field(3600.0, gt=0)
    tries: int = Field(2, ge=1)  # of one download in one run, where trying again may help
    backoff_seconds: float = Field(30.0, ge=0)  # before the second try, twice as long before each further one
    cool_down_seconds: float = Field(600.0, gt=0)  # of a site that refuses without `Retry-After`; doubles each time
    longest_cool_down_seconds: float = Field(6 * 3600.0, gt=0)
    give_up_after: int = Field(
        4, ge=1
    )  # refusals in a row, each after a pause: the site's downloads wait for a later run

    @model_validator(mode="before")
    @classmethod
    def _youtube_keeps_its_own(cls, value: object) -> object:
        """What a job does not say of YouTube stays what it is."""
        if isinstance(value, dict) and isinstance(value.get("youtube"), dict):
            return value | {"youtube": YouTubeLimits.model_validate(value["youtube"])}
        return value

    @property
    def named(self) -> dict[str, SiteLimits]:
        return {name: site for name, site in {**self.sites, "youtube": self.youtube}.items() if site.hosts}

    def site_of(self, url: str) -> str:
        """The site that a URL belongs to: its name here, else its host."""
        host = (urlsplit(url).hostname or "").rstrip(".")
        for name, site in self.named.items():
            if any(fnmatchcase(host, pattern) for pattern in site.hosts):
                return name
        return host


class DownloadSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    max_height: int = Field(480, gt=0)  # of the shorter side, where there is one: decoding is the cost later
    audio: bool = False  # nothing here listens: sound costs bytes and a merge
    max_bytes: int = Field(8 * 2**30, gt=0)  # one endless answer would fill the disk for all
    retries: int = Field(3, ge=0)  # of one request that broke off, at once; `limits.tries` are of the whole download
    max_wait_seconds: float = Field(60.0, ge=0)  # a server that says `come back in a day` would hold its place a day
    timeout_seconds: float = Field(30.0, gt=0)  # a silent server would hold its place for ever
    max_seconds: float = Field(4 * 3600.0, gt=0)  # and one that sends a byte a second, which is never silent
    cookies: Path | None = None  # a Netscape cookie file; an account that downloads much risks a ban
    limits: LimitSettings = LimitSettings()
