"""The log of a run: an event a line, with its time. It tells what the ledger cannot: when, where, what came between.

`logs/<run>/<number>.jsonl` in the dataset. What was done and from what is in the ledger; the log is never read back.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.pipeline.cluster import nodes
from marathon_pipeline.pipeline.watcher import Load, Watcher
from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Paused

FOLDER = "logs"
_FLUSH_SECONDS = 10.0
_SEGMENT_BYTES = 2**20  # a run of weeks writes dozens of them, and none takes long to write anew
_NODES_SECONDS = 30.0


class EventLog(Watcher):
    def __init__(self, storage: Storage, run: str) -> None:
        self._storage, self._run = storage, run
        self._pending: list[str] = []
        self._segment = 1
        self._flushed = time.monotonic()
        self._nodes: dict[str, str] = {}
        self._nodes_at = float("-inf")  # when that was looked up
        self._paused: dict[tuple[str, str], Paused] = {}

    def say(self, event: str, **fields: Any) -> None:
        """Write an event down. Its fields name videos as `video_id`, under which a takedown finds them."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._pending.append(json.dumps({"time": now, "event": event, **fields}, ensure_ascii=False))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what is pending behind what lies there, of which a takedown may have taken something out meanwhile."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        key = f"{FOLDER}/{self._run}/{self._segment:06d}.jsonl"
        with contextlib.suppress(Failed):  # a full disk, a store that fails: it is for the ledger to say so
            try:
                segment = self._storage.read(key)
            except FileNotFoundError:
                segment = b""
            segment += "".join(f"{line}\n" for line in self._pending).encode()
            self._storage.write(key, segment)
            self._pending = []
            self._segment += len(segment) > _SEGMENT_BYTES

    def loaded(self, load: Load) -> None:
        self._see_nodes()
        self._see_paused(load.paused)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """A line for a video's work in a stage: of its tasks, their counts."""
        if not outcomes:
            return
        counts: dict[str, Counter[str]] = {"filtered": Counter(), "failed": Counter()}
        for outcome in outcomes:
            if outcome.status != "ok":
                counts[outcome.status][outcome.reason] += 1
        ok = sum(outcome.status == "ok" for outcome in outcomes)
        self.say(
            "work_ended",
            stage=outcomes[0].stage,
            video_id=outcomes[0].video_id,
            seconds=round(sum(outcome.seconds for outcome in outcomes), 3),
            ok=ok,
            **({"host": host} if (host := max(outcome.host for outcome in outcomes)) else {}),
            **{status: dict(reasons) for status, reasons in counts.items() if reasons},
        )

    def killed(self, stage: str, video_id: str, reason: str) -> None:
        self.say("work_killed", stage=stage, video_id=video_id, reason=reason)

    def stopping(self, why: str) -> None:
        self.say("stopping", why=why)

    def _see_nodes(self) -> None:
        if time.monotonic() - self._nodes_at < _NODES_SECONDS:
            return
        before, self._nodes, self._nodes_at = self._nodes, nodes(), time.monotonic()
        for node, address in sorted(before.items() - self._nodes.items()):
            self.say("node_lost", node=node, address=address)
        for node, address in sorted(self._nodes.items() - before.items()):
            self.say("node_joined", node=node, address=address)

    def _see_paused(self, paused: Sequence[Paused]) -> None:
        now = {(pause.site, pause.egress): pause for pause in paused}
        for place, pause in now.items():
            if self._paused.get(place) != pause:
                until = datetime.fromtimestamp(pause.until, UTC).isoformat(timespec="seconds")
                self.say("site_paused", site=pause.site, egress=pause.egress, reason=pause.reason, until=until)
        for site, egress in self._paused.keys() - now.keys():
            self.say("site_resumed", site=site, egress=egress)
        self._paused = now
