"""Which download may begin now: buckets of tokens, waits, and a breaker for each site and each address out.

It decides and remembers; it does not wait, ask or hide. All times are seconds since 1970 that the caller gives, so that
a state that was written down means the same to the next run.
"""

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.sources.settings import LimitSettings, SiteLimits

_MARGIN = (
    1.01  # between a download's beginning here and its first request there pass a few milliseconds, never the same
)
SHARED = "shared"  # the one address out, where all nodes have the same


@dataclass
class _Bucket:
    """`count` tokens; each comes back `seconds` after the download began that took it. So no stretch of that length
    sees more than `count` beginnings, and none sees fewer than work and waits allow."""

    count: int | None
    seconds: float
    taken: deque[float] = field(default_factory=deque)  # when, in order
    held: int = 0  # by downloads under way, of which it is not known yet when they reached the site

    def frees(self, now: float) -> float:
        """When there is a token: now, later, or (inf) once a download under way has ended."""
        if self.count is None:
            return now
        while self.taken and self.taken[0] <= now - self.seconds * _MARGIN:
            self.taken.popleft()
        over = len(self.taken) + self.held - self.count
        if over < 0:
            return now
        return self.taken[over] + self.seconds * _MARGIN if over < len(self.taken) else math.inf

    def kept(self, now: float) -> list[float]:
        """Those that are not back yet, without those of downloads under way."""
        self.frees(now)
        return [*self.taken]

    def restore(self, taken: Iterable[float], under_way: int, now: float) -> None:
        if self.count is not None:
            self.taken = deque(sorted([*(min(each, now) for each in taken), *[now] * under_way]))

    def give(self, began: float) -> None:
        """A download has ended that began then."""
        self.held -= 1
        if self.count is not None:
            self.taken.append(began)
            if len(self.taken) > 1 and began < self.taken[-2]:
                self.taken = deque(sorted(self.taken))


@dataclass
class _Lane:
    """One site from one address."""

    limits: SiteLimits
    bucket: _Bucket
    earliest: float = 0.0  # for the next beginning
    under_way: int = 0
    refusals: int = 0  # in a row; the breaker is closed where there is none
    until: float = 0.0  # no download begins before; then, where the breaker is open, one is sent ahead
    since: float = 0.0  # when that began: the first refusal in the row
    reason: str = ""
    ahead: bool = False  # the one that was sent ahead is under way

    def opens(self, now: float) -> float:
        """When the next download may begin; inf where that hangs on one under way."""
        if self.refusals and self.ahead:
            return math.inf
        if self.limits.at_once is not None and self.under_way >= self.limits.at_once:
            return math.inf
        return max(now, self.until, self.earliest, self.bucket.frees(now))


@dataclass(frozen=True)
class Ticket:
    """Leave to begin one download."""

    site: str
    egress: str
    refusals: int  # that the site had given in a row when it began
    at: float


class Paused(BaseModel):
    """A site that refused, or asked to be left alone, and what is known of that."""

    model_config = ConfigDict(frozen=True)

    site: str
    egress: str
    reason: str
    since: float
    until: float
    given_up: bool  # for now: this run does not wait for it


class _SavedBucket(BaseModel):
    taken: list[float] = []
    under_way: int = 0


class _SavedLane(_SavedBucket):
    earliest: float = 0.0
    refusals: int = 0
    until: float = 0.0
    since: float = 0.0
    reason: str = ""


class _Saved(BaseModel):
    at: float = 0.0  # when it was saved
    lanes: dict[str, dict[str, _SavedLane]] = {}  # by site and address
    egresses: dict[str, _SavedBucket] = {}


class Governor:
    """Decides for a whole run. egresses: the addresses that downloads may leave by."""

    def __init__(self, limits: LimitSettings, random: random.Random, egresses: Iterable[str] = (SHARED,)) -> None:
        self._limits, self._random = limits, random
        self.egresses = tuple(egresses)
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._out: dict[str, _Bucket] = {}
        self._served: dict[str, float] = {}  # by site, when one of its downloads began last
        self._named = limits.named
        self.changed = False  # since `state` was asked for last

    def next(self, sites: Iterable[str], now: float) -> Ticket | None:
        """Leave for one of the sites that have downloads to begin, if for any: for who has waited longest."""
        free = [(self._served.get(site, 0.0), site) for site in sites if self._opens(site, now) <= now]
        if not free:
            return None
        site = min(free)[1]
        egress = min(
            (each for each in self.egresses if self._opens_by(site, each, now) <= now),
            key=lambda each: self._lane(site, each).under_way,
        )
        lane = self._lane(site, egress)
        lane.under_way += 1
        lane.bucket.held += 1
        self._egress(egress).held += 1
        lane.ahead = lane.refusals > 0
        lane.earliest = now + self._random.uniform(*lane.limits.wait_seconds)
        self._served[site] = now
        self.changed = self.changed or self._is_limited(lane)
        return Ticket(site, egress, lane.refusals, now)

    def wakes(self, sites: Iterable[str], now: float) -> float:
        """When one of the sites' downloads may begin, so far as it is known; inf where none may before one ends."""
        return min((self._opens(site, now) for site in sites), default=math.inf)

    def ended(
        self,
        ticket: Ticket,
        now: float,
        *,
        began: float | None = None,
        answered: bool = False,
        refusal: str = "",
        busy: str = "",
        retry_after: float = 0.0,
    ) -> None:
        """A download is over.

        began: when it reached the site; None: that is not known, and it counts as just now. answered: the site gave the
        video, or said that it has none. refusal: the reason, where the site wants fewer requests; busy: where it only
        cannot answer now; retry_after: for how long, where it said so. What began before a site refused the first time
        says nothing new of it.
        """
        lane = self._lane(ticket.site, ticket.egress)
        lane.under_way -= 1
        for bucket in (lane.bucket, self._egress(ticket.egress)):
            bucket.give(now if began is None else min(max(ticket.at, began), now))
        if news := ticket.refusals == lane.refusals:
            lane.ahead = False
        if refusal:
            if news:
                self._open(lane, now, refusal, retry_after)
            lane.until, self.changed = max(lane.until, now + retry_after), True
        elif busy and retry_after and now + retry_after > lane.until:
            if not lane.refusals:
                lane.since, lane.reason = now, busy
            lane.until, self.changed = now + retry_after, True
        elif answered and news and lane.refusals:
            lane.refusals, self.changed = 0, True
            if lane.until <= now:  # else an older one has brought a wait meanwhile
                lane.reason = ""
        self.changed = self.changed or self._is_limited(lane)

    def _open(self, lane: _Lane, now: float, reason: str, retry_after: float) -> None:
        first = retry_after or self._limits.cool_down_seconds
        pause = min(first * 2.0 ** min(lane.refusals, 60), max(first, self._limits.longest_cool_down_seconds))
        lane.since = lane.since if lane.refusals else now
        lane.refusals, lane.reason, lane.until = lane.refusals + 1, reason, max(lane.until, now + pause)

    def paused(self, now: float) -> list[Paused]:
        """The sites that are not asked for now."""
        return [
            Paused(
                site=site,
                egress=egress,
                reason=lane.reason,
                since=lane.since,
                until=lane.until,
                given_up=self._given_up(lane, now),
            )
            for (site, egress), lane in sorted(self._lanes.items())
            if lane.until > now
        ]

    def state(self, now: float) -> str:
        """What a later run has to know, as JSON."""
        saved = _Saved(at=now)
        for name, bucket in self._out.items():
            if bucket.count is not None:
                saved.egresses[name] = _SavedBucket(taken=bucket.kept(now), under_way=bucket.held)
        for (site, egress), lane in self._lanes.items():
            if self._is_limited(lane) or lane.refusals or lane.until > now:
                saved.lanes.setdefault(site, {})[egress] = _SavedLane(
                    taken=lane.bucket.kept(now),
                    under_way=lane.under_way,
                    earliest=lane.earliest,
                    refusals=lane.refusals,
                    until=lane.until,
                    since=lane.since,
                    reason=lane.reason,
                )
        self.changed = False
        return saved.model_dump_json(exclude_defaults=True)

    def restore(self, state: str | bytes, now: float) -> None:
        """Take up what an earlier run left; a damaged state is as none.

        What was under way when it was killed may have reached the site until just now. Where its clock was ahead of
        this one, all its times go back by the difference.
        """
        try:
            saved = _Saved.model_validate_json(state)
        except ValidationError:
            return
        ahead = max(0.0, saved.at - now)
        for site, lanes in saved.lanes.items():
            for egress, each in lanes.items():
                lane = self._lane(site, egress)
                lane.bucket.restore((time - ahead for time in each.taken), each.under_way, now)
                lane.earliest = min(each.earliest - ahead, now + lane.limits.wait_seconds[1])
                lane.until, lane.since = each.until - ahead, each.since - ahead
                lane.refusals, lane.reason = each.refusals, each.reason
        for egress, out in saved.egresses.items():
            self._egress(egress).restore((time - ahead for time in out.taken), out.under_way, now)

    def _opens(self, site: str, now: float) -> float:
        return min((self._opens_by(site, egress, now) for egress in self.egresses), default=math.inf)

    def _opens_by(self, site: str, egress: str, now: float) -> float:
        lane = self._lane(site, egress)
        return math.inf if self._given_up(lane, now) else max(lane.opens(now), self._egress(egress).frees(now))

    def _given_up(self, lane: _Lane, now: float) -> bool:
        pause = lane.until - now
        often = lane.refusals >= self._limits.give_up_after
        return pause > 0 and (often or pause > self._limits.longest_cool_down_seconds)

    def _lane(self, site: str, egress: str) -> _Lane:
        if (site, egress) not in self._lanes:
            limits = self._named.get(site, self._limits.others)
            self._lanes[site, egress] = _Lane(limits, _Bucket(limits.downloads, limits.per_seconds))
        return self._lanes[site, egress]

    def _egress(self, egress: str) -> _Bucket:
        limits = self._limits
        return self._out.setdefault(egress, _Bucket(limits.egress_downloads, limits.egress_per_seconds))

    def _is_limited(self, lane: _Lane) -> bool:
        counted = lane.limits.downloads is not None or self._limits.egress_downloads is not None
        return counted or lane.limits.wait_seconds[1] > 0
