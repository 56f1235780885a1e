"""The ledger: the append-only record of what is done, filtered and failed, and from what.

JSON lines in numbered, immutable segments under `ledger/`; the later line counts. Where they are many, a snapshot
(`<number>.parquet`) takes the place of all segments of lower numbers. The run's driver is its only writer.
"""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from marathon_pipeline.dataset.columns import values
from marathon_pipeline.dataset.snapshot import KINDS, NUMBER, Fields, Snapshot, encode, table_of, whole
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Outcome, Status

Key = tuple[str, str]  # stage and part
_SEGMENTS = 64  # more are joined: a dataset that ran for weeks would otherwise take thousands of reads to open
_LINES = 2_000  # more become a snapshot where a run begins or ends: a million take a minute to be read
_SHARE = 8  # while a run is at work they do where they are an eighth of the snapshot: each is written anew some times
_KNOWN = 1024  # owners whose outcomes are at hand
_TRIES = 5  # at reading what a run at work replaces meanwhile
_AT_ONCE = 2**16  # rows as Python values


class Known(NamedTuple):
    """What is asked of an outcome again and again; as an object of its own it takes a tenth of the time."""

    status: Status
    reason: str
    transient: bool
    fingerprint: str
    content: str
    videos: Sequence[str]
    video_seconds: float


class _Line(NamedTuple):
    number: int  # the newer, the higher
    json: bytes  # objects of a million outcomes take gigabytes


class Ledger:
    """Raises UserError where its snapshot is damaged."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        for left in reversed(range(_TRIES)):
            try:
                self._load()
                break
            except FileNotFoundError:
                if not left:
                    raise

    def _begin(self, base: str, data: bytes) -> None:
        """With a snapshot, and nothing that is newer. base: its key, empty where there is none."""
        self._base = base
        self._snapshot = Snapshot(data, f"{self._storage.url}/{base}") if base else None
        self._number = self._rows = len(self._snapshot) if self._snapshot else 0
        self._lines: dict[str, dict[Key, _Line]] = {}  # by owner
        self._known: dict[str, dict[Key, Known]] = {}  # of some owners
        self._segments: dict[str, int] = {}  # their bytes
        self._pending: list[str] = []
        self._replaced: list[str] = []  # left by a process that was killed

    def _load(self) -> None:
        keys = self._storage.keys("ledger")
        base = max((key for key in keys if key.endswith(".parquet")), default="")
        self._begin(base, self._storage.read(base) if base else b"")
        self._replaced = [key for key in keys if key < base]
        own = [key for key in keys if key > base]
        for key, data in zip(own, self._storage.read_all(own), strict=True):
            self._segments[key] = len(data)
            for line in data.splitlines():
                self._replay(line)

    def _replay(self, line: bytes) -> None:
        try:
            self._put(Outcome.model_validate_json(line), line)
        except ValueError:  # a damaged line is work that will be done again, from its table file where that stands
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._lines.pop(json.loads(line)["forget"], None)

    def _put(self, outcome: Outcome, line: bytes) -> None:
        key = sys.intern(outcome.stage), sys.intern(outcome.part)
        self._lines.setdefault(outcome.video_id, {})[key] = _Line(self._number, line)
        self._number += 1

    def get(self, stage: str, video_id: str, part: str = "") -> Outcome | None:
        line = self._lines.get(video_id, {}).get((stage, part))
        if line is not None:
            return Outcome.model_validate_json(line.json)
        row = self._snapshot.row(video_id, stage, part) if self._snapshot else None
        return None if row is None else _outcome(row)

    def known(self, stage: str, video_id: str, part: str = "") -> Known | None:
        """`get` for who asks a million times."""
        own = self._known.get(video_id)
        if own is None:
            if len(self._known) >= _KNOWN:
                del self._known[next(iter(self._known))]
            own = self._known[video_id] = self._known_of(video_id)
        return own.get((stage, part))

    def _known_of(self, owner: str) -> dict[Key, Known]:
        rows = self._snapshot.of(owner, ("stage", "part", *Known._fields)) if self._snapshot else ()
        known = {(stage, part): Known(*fields) for stage, part, *fields in rows}
        for key, line in self._lines.get(owner, {}).items():
            fields = whole(from_json(line.json))
            known[key] = Known(*(fields[name] for name in Known._fields))
        return known

    def contents(self, owner: str) -> dict[Key, str]:
        """The content hashes of the rows that stages wrote, by stage and part."""
        rows = self._snapshot.of(owner, ("stage", "part", "content")) if self._snapshot else ()
        found = {(stage, part): content for stage, part, content in rows}
        for key, line in self._lines.get(owner, {}).items():
            found[key] = whole(from_json(line.json))["content"]
        return found

    def __iter__(self) -> Iterator[Outcome]:
        """The newest last."""
        return self._outcomes(newest_first=False)

    def of_stage(self, stage: str) -> Iterator[Outcome]:
        """The outcomes of one stage, the newest first."""
        return self._outcomes(stage, newest_first=True)

    def _outcomes(self, *stages: str, newest_first: bool) -> Iterator[Outcome]:
        if stages and not len(self.table("stage", stages=stages)):
            return  # else every column of all stages is decoded for nothing
        table = self.table(*KINDS, stages=stages)
        order = np.argsort(table[NUMBER].to_numpy())
        for first in range(0, len(order), _AT_ONCE):
            part = order[::-1][first : first + _AT_ONCE] if newest_first else order[first : first + _AT_ONCE]
            for row in _rows(table.take(pa.array(part))):
                yield _outcome(dict(zip(KINDS, row, strict=True)))

    def rows(self, *names: str, stages: Sequence[str] = ()) -> Iterator[tuple[Any, ...]]:
        """Some fields of every outcome, in no order: of a million in seconds. stages: of these alone."""
        return _rows(self.table(*names, stages=stages))

    def table(self, *names: str, stages: Sequence[str] = ()) -> pa.Table:
        """The same as Arrow columns, for who counts them."""
        table = pa.concat_tables(self._tables([*names, "stage"])).unify_dictionaries().combine_chunks()
        if stages:
            table = table.filter(pc.is_in(table["stage"].cast(pa.string()), pa.array(stages)))
        return table.select(list(names))

    def _tables(self, names: Iterable[str]) -> list[pa.Table]:
        wanted = list(dict.fromkeys(names))
        tables = [table_of([], wanted)]
        if self._snapshot:
            rows = self._snapshot.table(wanted)
            tables.append(rows.filter(self._standing(self._snapshot)) if self._lines else rows)
        lines = (line for own in self._lines.values() for line in own.values())
        while fields := [{**whole(from_json(line.json)), NUMBER: line.number} for line in islice(lines, _AT_ONCE)]:
            tables.append(table_of(fields, wanted))
        return tables

    def _standing(self, snapshot: Snapshot) -> pa.Array:
        """Which rows of the snapshot no newer line has taken the place of."""
        standing = np.ones(len(snapshot), bool)
        for owner, lines in self._lines.items():
            place = snapshot.places.get(owner, slice(0))
            stages, parts = (values(snapshot.column(name)[place]) for name in ("stage", "part"))
            standing[place] = [key not in lines for key in zip(stages, parts, strict=True)]
        return pa.array(standing)

    def __len__(self) -> int:
        return len(self.table("stage"))

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes; they are durable after the next `flush`."""
        for outcome in outcomes:
            line = outcome.model_dump_json(exclude_defaults=True)
            self._put(outcome, line.encode())
            self._pending.append(line)
            self._known.pop(outcome.video_id, None)

    def forget(self, *owners: str) -> None:
        """Drop all that is on record of sources and videos, from the segments that lie there too."""
        gone = frozenset(owners)
        known = self._lines.keys() | (self._snapshot.places.keys() if self._snapshot else ())
        behind = (self._storage.read(key) for key in (*self._replaced, *self._segments))
        if gone.isdisjoint(known) and not any(f'"{owner}"'.encode() in data for data in behind for owner in gone):
            return
        self._rewrite(gone)

    def flush(self) -> None:
        if self._pending:
            self._write("jsonl", "".join(f"{line}\n" for line in self._pending).encode())
            self._pending = []
            if self._newer > max(_LINES * _SHARE, self._rows / _SHARE):
                self._rewrite()
            elif len(self._segments) > _SEGMENTS:
                self._join()

    def compact(self) -> None:
        """Where a run begins and where it ends, so that all who read it afterwards have less to read."""
        if self._newer > _LINES or len(self._segments) > _SEGMENTS:
            self._rewrite()

    @property
    def _newer(self) -> int:
        return sum(map(len, self._lines.values()))

    def _rewrite(self, gone: frozenset[str] = frozenset()) -> None:
        """All of it anew, without some owners. The new one is there before an old one goes: a kill loses nothing."""
        old = [*self._replaced, *([self._base] if self._base else ()), *self._segments]
        left = {owner: lines for owner, lines in self._lines.items() if owner not in gone}
        if self._snapshot or sum(map(len, left.values())) > _LINES:
            tables = self._tables(KINDS)
            if gone:
                tables = [each.filter(_without(each["video_id"], gone)) for each in tables]
            data = encode(tables)
            self._begin(self._write("parquet", data), data)
        else:
            lines = sorted(line for own in left.values() for line in own.values())
            self._write("jsonl", b"".join(line.json + b"\n" for line in lines))
            self._lines, self._known, self._pending, self._replaced = left, {}, [], []
        self._storage.remove_all(old)
        for key in old:
            self._segments.pop(key, None)

    def _join(self) -> None:
        """Join the newest segments, so that each that is left is larger than all behind it: few are left, and a line is
        written anew a few times at most."""
        joined_bytes, old = 0, list[str]()
        for key, size in reversed(self._segments.items()):
            if old and size > joined_bytes:
                break
            old.insert(0, key)
            joined_bytes += size
        self._write("jsonl", b"".join(self._storage.read_all(old)))
        self._storage.remove_all(old)
        for key in old:
            del self._segments[key]

    def _write(self, suffix: str, data: bytes) -> str:
        """Never over what somebody else wrote: a store may keep a request for longer than a lease lives without beats.
        Lines go behind theirs then. All of it anew would hide theirs: raises UserError.
        """
        last = max([self._base, *self._segments])
        number = int(last.rpartition("/")[2].partition(".")[0]) + 1 if last else 1
        while not self._storage.create(key := f"ledger/{number:08d}.{suffix}", data):
            if suffix != "jsonl":
                raise UserError(f"{self._storage.url}: another run writes its ledger; let that one end, then run again")
            number += 1
        self._segments[key] = len(data)
        return key


def _outcome(fields: Fields) -> Outcome:
    return Outcome.model_validate({name: fields[name] for name in Outcome.model_fields})


def _without(owners: pa.ChunkedArray, gone: frozenset[str]) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(owners.cast(pa.string()), pa.array(sorted(gone))))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        yield from zip(*map(values, batch.columns), strict=True)
