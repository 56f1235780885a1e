"""The downloads of a run: which has leave to begin, what is on record of that, and what becomes of one that ended."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.cluster import nodes_by_address
from marathon_pipeline.pipeline.fetches import Entry, Fetches
from marathon_pipeline.pipeline.plan import Work
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.governor import Governor, Paused, Ticket
from marathon_pipeline.sources.settings import LimitSettings

_MEMORY = "downloads.json"
_NODES_SECONDS = 10.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first goes on while the machine sleeps


class Downloads:
    def __init__(self, dataset: Dataset, sources: Mapping[str, Source], limits: LimitSettings) -> None:
        self._dataset, self._sources, self._limits = dataset, sources, limits
        self._governor = Governor(limits, random.SystemRandom())
        self._fetches = Fetches(self._governor, limits)
        self._tickets: dict[str, tuple[Entry, Ticket]] = {}  # of those under way, by owner
        self._nodes: dict[str, str] = {}  # by address out, where each has its own
        self._nodes_at = float("-inf")  # when that was looked up
        self._lost: Counter[str] = Counter()  # workers that each has cost, by owner
        self._began, self._started = time.time(), time.clock_gettime(_CLOCK)

    def _now(self) -> float:
        """Seconds since 1970, by a clock that nobody sets while the run lasts: a jump would open what is closed."""
        return self._began + time.clock_gettime(_CLOCK) - self._started

    def takes(self, work: Work) -> bool:
        source = self._sources[work.source_id]
        return work.stage.name == "download" and bool(source.url) and not source.opt_out

    def queues(self) -> Iterator[list[Entry]]:
        return self._fetches.queues()

    def push(self, entry: Entry) -> None:
        self._fetches.push(entry, self._sources[entry[3].source_id].url)

    def wakes(self) -> float:
        """In how many seconds the next one may begin; inf where that hangs on one under way, or on a later run."""
        if self._limits.egress == "node" and self._fetches:
            if time.monotonic() - self._nodes_at > _NODES_SECONDS:
                self._leave_by(nodes_by_address())
                self._nodes_at = time.monotonic()
            if not self._nodes:
                return _NODES_SECONDS  # one may join
        now = self._now()
        return max(0.0, self._fetches.wakes(now) - now)

    def next(self) -> Work | None:
        """One that may begin now."""
        picked = self._fetches.next(self._now())
        if picked is None:
            return None
        work: Work = picked[0][3]
        self._tickets[work.owner] = picked
        self.remember()
        return work

    def node_of(self, work: Work) -> str:
        """The node that it has to run on; empty where any will do."""
        _, ticket = self._tickets[work.owner]
        return self._nodes.get(ticket.egress, "")

    def unplaced(self, work: Work) -> None:
        """The node that it was to run on is gone. It waits for another one, and has cost no worker."""
        entry, ticket = self._tickets.pop(work.owner)
        self._fetches.ended(entry, ticket, None, self._now())
        self._leave_by({address: node for address, node in self._nodes.items() if address != ticket.egress})
        self.remember()

    def _leave_by(self, nodes: dict[str, str]) -> None:
        self._nodes = nodes
        self._governor.egresses = tuple(nodes)

    def lost_by(self, work: Work) -> int:
        """How many workers it has cost."""
        return self._lost[work.owner]

    def goes_on(self, work: Work, outcome: Outcome | None, *, last: bool) -> bool:
        """Whether one that has ended so is tried again in this run. outcome: None where another worker takes it."""
        entry, ticket = self._tickets.pop(work.owner)
        again = self._fetches.ended(entry, ticket, outcome, self._now(), last=last)
        if outcome is None:
            self._lost[work.owner] += 1
        elif again:
            work.attempts = {part: work.attempts.get(part, 0) + 1 for part in work.stale}
        self.remember()
        return again

    def dated(self, outcome: Outcome) -> Outcome:
        """With the first time that the source ended so."""
        known = self._dataset.ledger.get(outcome.stage, outcome.video_id)
        same = known is not None and (known.status, known.reason) == (outcome.status, outcome.reason)
        since = known.since if known is not None and same and known.since else outcome.began or time.time()
        return outcome.model_copy(update={"since": round(since, 3)})

    def paused(self) -> Sequence[Paused]:
        return self._governor.paused(self._now())

    def remember(self) -> None:
        """What the sites were asked for is on record before they are asked: a killed run's share counts too."""
        if self._governor.changed:
            self._dataset.storage.write(_MEMORY, self._governor.state(self._now()).encode())

    def recall(self) -> None:
        try:
            self._governor.restore(self._dataset.storage.read(_MEMORY), self._now())
        except FileNotFoundError:
            return
