"""The ledger: the append-only record of what is done, filtered and failed, and from what.

JSON lines in numbered, immutable segments under `ledger/`; the later line counts. The run's driver is its only writer.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import Outcome

Key = tuple[str, str, str]  # stage, video, part
_COMPACT_ABOVE = 64  # segments: a dataset that ran for weeks would otherwise take thousands of reads to open


class Ledger:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._outcomes: dict[Key, bytes] = {}  # as JSON: a video has fifty, and their objects take 80 KB
        self._pending: list[str] = []
        self._segments = storage.keys("ledger")
        for key in self._segments:
            for line in storage.read(key).splitlines():
                self._replay(line)

    def _replay(self, line: bytes) -> None:
        try:
            self._put(Outcome.model_validate_json(line), line)
        except ValueError:  # a damaged line is work that will be done again, from its table file where that stands
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._drop(json.loads(line)["forget"])

    def _put(self, outcome: Outcome, line: bytes) -> None:
        key = sys.intern(outcome.stage), sys.intern(outcome.video_id), sys.intern(outcome.part)
        self._outcomes.pop(key, None)  # the newest stands last
        self._outcomes[key] = line

    def _drop(self, video_id: str) -> None:
        self._outcomes = {key: line for key, line in self._outcomes.items() if key[1] != video_id}

    def get(self, stage: str, video_id: str, part: str = "") -> Outcome | None:
        line = self._outcomes.get((stage, video_id, part))
        return None if line is None else Outcome.model_validate_json(line)

    def __iter__(self) -> Iterator[Outcome]:
        return (Outcome.model_validate_json(line) for line in self._outcomes.values())

    def content(self, stage: str, video_id: str, part: str = "") -> str:
        """The content hash of the rows that a stage wrote; nothing where it wrote none."""
        line = self._outcomes.get((stage, video_id, part))
        return "" if line is None else str(from_json(line).get("content", ""))

    def fields(self) -> Iterator[dict[str, Any]]:
        """Of every outcome what does not have its default: a fifth of the time, where there are a million."""
        return (from_json(line, cache_strings="keys") for line in self._outcomes.values())

    def of_stage(self, stage: str) -> Iterator[Outcome]:
        """The outcomes of one stage, the newest first, without a look at the others."""
        lines = (line for key, line in reversed(self._outcomes.items()) if key[0] == stage)
        return map(Outcome.model_validate_json, lines)

    def __len__(self) -> int:
        return len(self._outcomes)

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes; they are durable after the next `flush`."""
        for outcome in outcomes:
            line = outcome.model_dump_json(exclude_defaults=True)
            self._put(outcome, line.encode())
            self._pending.append(line)

    def forget(self, *owners: str) -> None:
        """Drop all that is on record of sources and videos, from the segments that lie there too."""
        gone = frozenset(owners)
        lines = (self._storage.read(key) for key in self._segments)
        if not any(key[1] in gone for key in self._outcomes) and not any(
            f'"{owner}"'.encode() in segment for segment in lines for owner in gone
        ):
            return
        self._outcomes = {key: line for key, line in self._outcomes.items() if key[1] not in gone}
        self._pending = []
        self._rewrite()

    def flush(self) -> None:
        if self._pending:
            self._write(self._pending)
            self._pending = []

    def compact(self) -> None:
        """Replace many segments by one."""
        if len(self._segments) > _COMPACT_ABOVE:
            self._rewrite()

    def _rewrite(self) -> None:
        """The new segment is there before an old one goes, so a kill loses nothing."""
        old = list(self._segments)
        self._write([line.decode() for line in self._outcomes.values()])
        for key in old:
            self._storage.remove(key)
        self._segments = self._segments[-1:]

    def _write(self, lines: list[str]) -> None:
        number = int(self._segments[-1].rpartition("/")[2].removesuffix(".jsonl")) + 1 if self._segments else 1
        key = f"ledger/{number:08d}.jsonl"
        self._storage.write(key, "".join(f"{line}\n" for line in lines).encode())
        self._segments.append(key)
