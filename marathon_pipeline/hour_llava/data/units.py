"""The unit of work: the conversations of one class of a release's videos, read from their media tar or the cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.data.conversation import turn_of
from marathon_pipeline.hour_llava.data.mix import Kind
from marathon_pipeline.hour_llava.data.plan import batched, generator, let_out, share
from marathon_pipeline.hour_llava.data.proxies import decoded
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.data.shards import ReleaseShards
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.features import read_features

Estimate = Callable[[float, int], int]


def estimated_tokens(seconds: float, characters: int) -> int:
    """Tokens that reach the LLM: of a quarter of the frames, at least 32 and at most 512, 17 each; and of the text."""
    frames = max(1, round(seconds))
    kept = min(frames, max(32, min(512, -(-frames // 4))))
    return 17 * kept + characters // 4


class Unit(NamedTuple):
    """Some of the videos of a media tar (`tar`: its key), or of a class of a release whose features are cached."""

    release: int  # its number in the settings
    tar: str
    own_class: int  # without a tar
    part: int  # of how many, by a hash of the video's id
    parts: int

    def holds(self, video_id: str) -> bool:
        return self.parts == 1 or int(share("part", video_id) * self.parts) == self.part


@dataclass(frozen=True)
class Unreadable:
    """A sample that is missing from its batch. Nothing takes its place."""

    key: str
    reason: str


@dataclass(frozen=True)
class Pack:
    """A conversation to be had. `rows`: of the unit's table."""

    video_id: str
    number: int  # of the video's conversations
    rows: tuple[int, ...]
    seconds: float
    tokens: int


class UnitPlan:
    """A unit's conversations and in which batches they come, from its QA alone.

    All videos have their first conversation, then all their second one, and so on, each round in the order of the tar.
    """

    def __init__(
        self,
        unit: Unit,
        release: ReleaseShards,
        rates: Mapping[Kind, float],
        settings: LoaderSettings,
        estimate: Estimate,
        epoch: int,
    ) -> None:
        self.unit = unit
        own_class = release.class_of_tar(unit.tar) if unit.tar else unit.own_class
        table = release.pairs(own_class, unit.holds if unit.parts > 1 else None)
        seed = (settings.seed, epoch, release.name)
        self._table = table
        self.packs = packs_of(table, rates, settings, estimate, seed)
        held = settings.window if unit.tar else max(1, len(self.packs))
        order = let_out(len(self.packs), held, generator("order", *seed, unit))
        tokens = [pack.tokens for pack in self.packs]
        rng = generator("batches", *seed, unit)
        self.batches = batched(order, tokens, settings.window, settings.batch_size, settings.max_tokens, rng)

    def rows_of(self, pack: Pack) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._table.take(list(pack.rows)).to_pylist()
        return rows


def packs_of(
    table: pa.Table,
    rates: Mapping[Kind, float] | None,
    settings: LoaderSettings,
    estimate: Estimate,
    seed: tuple[object, ...],
) -> list[Pack]:
    """The conversations about the videos of a table. rates: the share of each kind of pairs to take; None: all."""
    by_video: dict[str, list[int]] = {}
    if not len(table):
        return []
    columns = ("video_id", "qa_id", "task", "topic", "data_source", "start", "end")
    values = zip(*(table[name].to_pylist() for name in columns), strict=True)
    seconds: dict[str, float] = {}
    for row, (video_id, qa_id, task, topic, source, start, end) in enumerate(values):
        kind = Kind(task, topic, source, end - start >= settings.mix.long_seconds)
        rate = 1.0 if rates is None else rates.get(kind, 0.0)
        if rate >= 1 or (rate > 0 and share("taken", *seed, qa_id) < rate):
            by_video.setdefault(video_id, []).append(row)
            seconds[video_id] = end - start
    lengths = [sum(map(len, (q, *options))) + len(a) for q, options, a in texts_of(table)]
    packs = []
    for video_id, rows in by_video.items():
        generator("pairs", *seed, video_id).shuffle(rows)
        for number, first in enumerate(range(0, len(rows), settings.turns)):
            own = tuple(rows[first : first + settings.turns])
            tokens = max(1, estimate(seconds[video_id], sum(lengths[row] for row in own)))
            packs.append(Pack(video_id, number, own, seconds[video_id], tokens))
    return sorted(packs, key=lambda pack: (pack.number, pack.video_id))


def texts_of(table: pa.Table) -> Iterator[tuple[str, list[str], str]]:
    """Of each pair, its question, its options and its answer."""
    if not len(table):
        return iter(())
    return zip(*(table[name].to_pylist() for name in ("question", "options", "answer")), strict=True)


class Media(Protocol):
    """Where a pack's picture comes from. Raises Failed where it cannot be read."""

    def of(self, index: int) -> dict[str, Any]: ...


class OpenUnit:
    """A unit while it is read, from one of its batches on."""

    def __init__(
        self, plan: UnitPlan, release: ReleaseShards, settings: LoaderSettings, label: str, first: int
    ) -> None:
        self.plan, self.next, self._label = plan, first, label
        remaining = {index for batch in plan.batches[first:] for index in batch}
        self._media: Media = (
            _Tar(plan, release, settings, remaining) if plan.unit.tar else _Features(plan, release, settings)
        )

    @property
    def ended(self) -> bool:
        return self.next >= len(self.plan.batches)

    def batch(self) -> tuple[list[Example], list[Unreadable]]:
        """The next batch, and what is missing from it. Their order is the same whatever was read before."""
        examples, lost = [], []
        for index in self.plan.batches[self.next]:
            pack = self.plan.packs[index]
            key = f"{self._label}/{pack.video_id}/{pack.number}"
            try:
                shown = self._media.of(index)
            except Failed as failure:
                if failure.transient:  # the store fails: what it holds is not known
                    raise
                lost.append(Unreadable(key, f"{failure.reason}: {failure.message}"))
                continue
            rows = self.plan.rows_of(pack)
            examples.append(
                Example(
                    key=key,
                    video_id=pack.video_id,
                    turns=tuple(turn_of(row) for row in rows),
                    qa_ids=tuple(row["qa_id"] for row in rows),
                    frames=shown.get("frames"),
                    features=shown.get("features"),
                    seconds=pack.seconds,
                )
            )
        self.next += 1
        return examples, lost


class _Tar:
    """A media tar, read forward, once for each round of conversations; what is asked for later is held as it came."""

    def __init__(self, plan: UnitPlan, release: ReleaseShards, settings: LoaderSettings, remaining: set[int]) -> None:
        self._packs, self._release, self._tar, self._side = plan.packs, release, plan.unit.tar, settings.side
        self._remaining = remaining
        self._index = {(pack.number, pack.video_id): index for index, pack in enumerate(plan.packs)}
        self._held: dict[int, bytes] = {}
        self._passed = -1  # all up to this one were seen, or will not come any more
        self._stream = self._samples()

    def of(self, index: int) -> dict[str, Any]:
        pack = self._packs[index]
        proxy = self._found(index)
        self._remaining.discard(index)
        if proxy is None:
            raise Failed("no_media", f"{self._tar} does not hold {pack.video_id}")
        return {"frames": decoded(proxy, pack.video_id, self._side)}

    def _found(self, index: int) -> bytes | None:
        while index not in self._held and self._passed < index:
            arrived = next(self._stream, None)
            if arrived is None:
                self._passed = len(self._packs)
                break
            self._passed, proxy = arrived
            if proxy is not None:
                self._held[self._passed] = proxy
        return self._held.pop(index, None)

    def _samples(self) -> Iterator[tuple[int, bytes | None]]:
        """The index of each pack whose video comes by, with its proxy; at a round's end that of its last pack."""
        first = min(self._remaining, default=0)
        rounds = sorted({self._packs[index].number for index in self._remaining})
        ends: dict[int, int] = {}
        for index, pack in enumerate(self._packs):
            ends[pack.number] = index
        for number in rounds:

            def select(name: str, number: int = number) -> bool:
                index = self._index.get((number, name.partition(".")[0]), -1)
                return name.endswith(".mp4") and index >= first

            for sample in self._release.samples(self._tar, select):
                index = self._index.get((number, sample["__key__"]), -1)
                if index > self._passed:
                    yield index, sample.get("mp4") if index in self._remaining else None
            if ends[number] > self._passed:
                yield ends[number], None


class _Features:
    def __init__(self, plan: UnitPlan, release: ReleaseShards, settings: LoaderSettings) -> None:
        self._packs, self._storage, self._fingerprint = plan.packs, release.dataset, settings.fingerprint

    def of(self, index: int) -> dict[str, Any]:
        video_id = self._packs[index].video_id
        cached = read_features(self._storage, video_id)
        if self._fingerprint and cached.fingerprint != self._fingerprint:
            raise UserError(
                f"features of {video_id} were made by other settings ({cached.fingerprint}) than asked for "
                f"({self._fingerprint}); run the job that makes them again"
            )
        return {"features": cached.features}


def units_of(releases: Sequence[ReleaseShards], parts: int) -> list[Unit]:
    """All units of some releases, each of their classes cut into so many parts."""
    return [
        Unit(number, tar, own_class, part, parts)
        for number, release in enumerate(releases)
        for tar, own_class in ([(tar, 0) for tar in release.tars] or [("", each) for each in range(release.classes)])
        for part in range(parts)
    ]
