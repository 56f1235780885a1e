"""A site with a limit, as YouTube's is commonly described, on a clock that runs as fast as one likes."""

import heapq
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from marathon_pipeline.pipeline.fetches import Entry, Fetches
from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Governor, Ticket
from marathon_pipeline.sources.settings import LimitSettings


@dataclass
class Site:
    """Answers `downloads` requests in any `per_seconds`; more brings a bot check until that long after the last one."""

    downloads: int = 300
    per_seconds: float = 3600.0
    dead: float = 0.0  # share of the videos that are gone
    asked: Counter[str] = field(default_factory=Counter)  # by video
    times: list[float] = field(default_factory=list)
    checks: int = 0
    _recent: deque[float] = field(default_factory=deque)

    def ask(self, video: str, now: float) -> tuple[str, bool]:
        """The reason of the failure, empty for none, and whether it is transient."""
        self.asked[video] += 1
        self.times.append(now)
        while self._recent and self._recent[0] <= now - self.per_seconds:
            self._recent.popleft()
        self._recent.append(now)
        if len(self._recent) > self.downloads:
            self.checks += 1
            return "bot_check", True
        return ("removed", False) if random.Random(video).random() < self.dead else ("", False)

    def most(self) -> int:
        """The most requests in any stretch of `per_seconds`."""
        first = most = 0
        for last, time in enumerate(self.times):
            while self.times[first] <= time - self.per_seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


def best_time(count: int, limits: LimitSettings, seconds: float) -> float:
    """The least time that `count` downloads of so many seconds can take within the limits and with the mean wait."""
    site = limits.youtube
    assert site.downloads is not None
    wait = sum(site.wait_seconds) / 2
    return (count - 1) // site.downloads * site.per_seconds + (count - 1) % site.downloads * wait + seconds


@dataclass
class Played:
    seconds: float
    outcomes: dict[str, str]  # reason by video, empty: there
    begun: list[tuple[float, str]]  # when, site
    left: int  # given up for now


def play(
    governor: Governor,
    limits: LimitSettings,
    sites: dict[str, Site],
    videos: list[tuple[str, str]],
    *,
    workers: int = 8,
    seconds: float = 20.0,
    seed: int = 0,
    start: float = 1e9,
) -> Played:
    """Download (host, video)s as a run does, with a request a little after each beginning."""
    clock, rng = start, random.Random(seed)
    fetches = Fetches(governor, limits)
    for host, video in videos:
        fetches.push((0, 0.0, video, host), f"https://{host}/{video}")
    events: list[
        tuple[float, int, Entry, Ticket, Outcome | None]
    ] = []  # a request arrives, and with an outcome: its end
    under_way = 0
    outcomes: dict[str, str] = {}
    begun: list[tuple[float, str]] = []
    while True:
        while under_way < workers and (picked := fetches.next(clock)):
            under_way += 1
            begun.append((clock, picked[1].site))
            reaches = clock + rng.uniform(0.0, 3.0)  # a worker starts, yt-dlp is loaded
            heapq.heappush(events, (reaches, len(begun), *picked, None))
        wakes = fetches.wakes(clock) if under_way < workers else math.inf
        if not events and wakes == math.inf:
            break
        if not events or wakes < events[0][0]:
            clock = max(clock + 1e-6, wakes)
            continue
        clock, number, entry, ticket, outcome = heapq.heappop(events)
        if outcome is None:
            reason, transient = sites[entry[3]].ask(entry[2], clock)
            outcome = Outcome(
                video_id=entry[2],
                stage="download",
                status="failed" if reason else "ok",
                reason=reason,
                transient=transient,
                began=clock,
                fingerprint="",
            )
            lasts = 1.0 if reason else rng.uniform(0.5, 1.5) * seconds
            heapq.heappush(events, (clock + lasts, number, entry, ticket, outcome))
            continue
        under_way -= 1
        if not fetches.ended(entry, ticket, outcome, clock):
            outcomes[entry[2]] = outcome.reason
    return Played(clock - start, outcomes, begun, sum(len(queue) for queue in fetches.queues()))
