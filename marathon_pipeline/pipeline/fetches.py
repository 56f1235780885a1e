"""Downloads that wait their turn, by site: so that one which is paused holds up no other, and no worker."""

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Any

from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Governor, Ticket
from marathon_pipeline.sources.reasons import is_answer, rule_of
from marathon_pipeline.sources.settings import LimitSettings

Entry = tuple[Any, ...]  # as in the queues of the loop: what comes first goes first; the last but one is its owner


class Fetches:
    def __init__(self, governor: Governor, limits: LimitSettings) -> None:
        self._governor, self._limits = governor, limits
        self._queues: dict[str, list[Entry]] = {}  # by site, heaps
        self._later: list[Entry] = []  # that failed for now
        self._due: dict[str, tuple[float, str]] = {}  # by owner, of those: when to try again, and the site
        self._tries: Counter[str] = Counter()  # in this run, by owner

    def __bool__(self) -> bool:
        return any(self.queues())

    def queues(self) -> Iterator[list[Entry]]:
        """All that waits. Who takes something out of one heapifies it."""
        yield from self._queues.values()
        yield self._later

    def push(self, entry: Entry, url: str) -> None:
        heapq.heappush(self._queues.setdefault(self._limits.site_of(url), []), entry)

    def next(self, now: float) -> tuple[Entry, Ticket] | None:
        """What may begin now, if anything may."""
        self._take_up(now)
        ticket = self._governor.next((site for site, queue in self._queues.items() if queue), now)
        if ticket is None:
            return None
        entry = heapq.heappop(self._queues[ticket.site])
        self._tries[entry[-2]] += 1
        return entry, ticket

    def wakes(self, now: float) -> float:
        """When the next one may begin; inf where that hangs on one under way, or is left to a later run."""
        self._take_up(now)
        known = self._governor.wakes((site for site, queue in self._queues.items() if queue), now)
        return min([known, *(max(due, self._governor.wakes([site], now)) for due, site in self._waits())])

    def ended(self, entry: Entry, ticket: Ticket, outcome: Outcome | None, now: float, *, last: bool = False) -> bool:
        """Whether it is tried again in this run, by the rule of its reason; last: it is not, whatever that says.

        outcome: None where its worker died, and another one takes it.
        """
        failed = outcome is not None and outcome.status == "failed"
        rule = rule_of(outcome.reason, outcome.transient) if outcome is not None and failed else ""
        self._governor.ended(
            ticket,
            now,
            began=(outcome.began or None) if outcome else None,
            answered=outcome is not None and (not failed or is_answer(outcome.reason, outcome.transient)),
            refusal=outcome.reason if outcome is not None and rule == "source" else "",
            busy=outcome.reason if outcome is not None and rule == "later" else "",
            retry_after=outcome.retry_after if outcome is not None else 0.0,
        )
        owner = entry[-2]
        if outcome is None:
            self._tries[owner] -= 1
            heapq.heappush(self._queues[ticket.site], entry)
            return True
        if last or rule not in ("source", "later") or self._tries[owner] >= self._limits.tries:
            return False
        wait = 0.0 if rule == "source" else self._limits.backoff_seconds * 2.0 ** (self._tries[owner] - 1)
        self._due[owner] = now + max(wait, outcome.retry_after if rule == "later" else 0.0), ticket.site
        self._later.append(entry)
        return True

    def _waits(self) -> Iterator[tuple[float, str]]:
        return (self._due[entry[-2]] for entry in self._later)

    def _take_up(self, now: float) -> None:
        """Put those whose time has come back to the others."""
        if any(due <= now for due, _ in self._waits()):
            rest = []
            for entry in self._later:
                due, site = self._due[entry[-2]]
                if due <= now:
                    heapq.heappush(self._queues.setdefault(site, []), entry)
                else:
                    rest.append(entry)
            self._later[:] = rest
