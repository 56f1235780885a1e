"""The run: one small loop that decides which video is ready for which stage; Ray places the work and does it."""

import asyncio
import heapq
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.annotators.served.settings import Price
from marathon_pipeline.dataset.dataset import Dataset, original_key, originals
from marathon_pipeline.dataset.lease import Lease
from marathon_pipeline.dataset.removals import Removals
from marathon_pipeline.pipeline.callers import Callers
from marathon_pipeline.pipeline.cluster import drained_on_signals, gpus, ray_started
from marathon_pipeline.pipeline.downloads import Downloads
from marathon_pipeline.pipeline.fetches import Entry
from marathon_pipeline.pipeline.plan import Planner, Selection, Work
from marathon_pipeline.pipeline.purge import begin, holds_removed
from marathon_pipeline.pipeline.settings import RunSettings
from marathon_pipeline.pipeline.spending import Budget, Spending, reached
from marathon_pipeline.pipeline.watcher import Load, Watcher
from marathon_pipeline.pipeline.weight import Weight
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.governor import Paused
from marathon_pipeline.sources.settings import LimitSettings
from marathon_pipeline.stages.stage import Stage, is_served, uses_gpu

_FLUSH_SECONDS = 1.0
_STEP_SECONDS = 0.5
# Workers or decoders that a video may cost before its last try, which it has by itself: a process that many share, a
# node that is lost and a stranger's kill -9 say nothing about it, and a death with nothing else under way does. For a
# download nothing else waits, since it may take hours: its last try goes beside the others, and never condemns it.
_LIVES = 2
_GPUS_SECONDS = 10.0  # between looks for them: nodes come and go
_TELL_SECONDS = 2.0  # between looks at the load: of a queue of 30,000 one takes ten milliseconds
_KILLED = ("worker_died", "decoder_killed")  # by somebody else, such as the out-of-memory killer: tried again


@dataclass
class RunResult:
    failed: list[Outcome] = field(default_factory=list)  # in this run
    stopped: bool = False  # by a signal or a full disk, with work left
    budget: str = ""  # which limit of it is reached
    unfinished: bool = False  # some work waits for answers that are not to be had in this run
    full: bool = False  # what lies on the disk has reached the limit, and nothing in this run deletes any of it
    written: list[Written] = field(default_factory=list)  # requests that it wrote instead of sending them
    paused: list[Paused] = field(default_factory=list)  # sites that refuse, and whose downloads wait for a later run


def run(
    dataset: Dataset,
    stages: Sequence[Stage],
    sources: Mapping[str, Source],
    settings: RunSettings,
    selection: Selection,
    lease: Lease,
    watcher: Watcher | None = None,
    budget: Budget | None = None,
    prices: Mapping[str, Price] | None = None,
    limits: LimitSettings | None = None,
) -> RunResult:
    """Bring every selected video as far as the selection says. The lease is held by the caller.

    A first SIGINT or SIGTERM lets what is in flight end and be recorded; a second one drops it.
    """
    loop = _Loop(dataset, stages, sources, settings, selection, lease, watcher or Watcher(), limits or LimitSettings())
    loop.keep_to(budget or Budget(), prices or {})
    loop.fill()
    loop.check_annotators()
    if loop.waiting:
        with drained_on_signals(loop.stop), ray_started(settings):
            loop.go()
    return loop.result


def rebuild_ledger(dataset: Dataset, stages: Sequence[Stage]) -> None:
    """Put what the table files say of themselves into a ledger that was lost."""
    for stage in stages:
        dataset.ledger.append(dataset.tables.stamps(stage.writes[-1]))
    dataset.ledger.flush()


class _Loop:
    def __init__(
        self,
        dataset: Dataset,
        stages: Sequence[Stage],
        sources: Mapping[str, Source],
        settings: RunSettings,
        selection: Selection,
        lease: Lease,
        watcher: Watcher,
        limits: LimitSettings,
    ) -> None:
        self.dataset, self.sources, self.settings, self.selection = dataset, sources, settings, selection
        self.lease, self.watcher = lease, watcher
        self.planner = Planner(stages, dataset.ledger, selection)
        self.rank = {stage.name: index for index, stage in enumerate(stages)}
        self.ready: list[Entry] = []
        self.for_gpu: list[Entry] = []  # what is faster on one, and takes a worker's place where there is none
        self.served: list[Entry] = []  # what only waits for servers
        self.aside: list[Entry] = []  # what has lost its worker again and again: tried by itself
        self.downloads = Downloads(dataset, sources, limits)  # those from the network, which need leave and room
        self.in_flight: dict[Any, tuple[Work, int]] = {}
        self.gpus, self.gpus_at = 0, float("-inf")  # in the cluster, and when that was looked up
        self.result = RunResult()
        self.stop = threading.Event()
        self.flushed = time.monotonic()
        self.told = float("-inf")
        self.spending: Spending | None = None
        self.weight = Weight(dataset.storage)
        self.removals = Removals(dataset.storage)  # its own: what others read first would not be new to it
        self.gone: set[str] = set()  # sources that were purged while this runs
        self.unsettled: set[str] = set()  # those of them that are still to be removed

    @property
    def waiting(self) -> bool:
        return any(self.queues())

    def queues(self) -> tuple[list[Entry], ...]:
        return self.ready, self.for_gpu, self.served, self.aside, *self.downloads.queues()

    def keep_to(self, budget: Budget, prices: Mapping[str, Price]) -> None:
        self.budget = budget
        if any(limit is not None for _, limit in budget):  # else a large ledger is not read for nothing
            self.spending = Spending(prices, self.dataset.ledger)
            self.check_budget()

    def check_budget(self) -> None:
        """Stop where it is reached."""
        if self.spending is None:
            return
        totals = self.spending.totals()
        if self.budget.storage_bytes is not None:
            totals["storage_bytes"] = self.weight.bytes()
        self.result.budget = reached(self.budget, totals)
        if self.result.budget:
            self.stop.set()

    def check_annotators(self) -> None:
        """Before anything is begun that leads to them."""
        begins = min((self.rank[entry[3].stage.name] for queue in self.queues() for entry in queue), default=None)
        if begins is None or self.stop.is_set():
            return
        served = [stage for stage in self.planner.stages if is_served(stage) and self.rank[stage.name] >= begins]
        for annotator in {id(stage.annotator): stage.annotator for stage in served}.values():
            assert annotator is not None
            annotator.check()

    def fill(self) -> None:
        """Find what is ready before anything has run."""
        for source in self.sources.values():
            work = self.planner.of_source(source)
            if not work.stale:
                self.watcher.expect(self.after_download(source.source_id))
            elif self.selection.takes(source.source_id, *self.planner.videos_of(source.source_id)):
                self.watcher.expect(1)
                self.push(work)
        if not self.selection.videos and any(stage.name == "segment" for stage in self.planner.stages):
            self.drop_leftovers()

    def push(self, work: Work, *, aside: bool = False) -> None:
        """Oldest commitments first: the later stage, then the longer video."""
        known = self.dataset.ledger.known("segment", work.owner)
        seconds = known.video_seconds if known else 0.0
        entry = -self.rank[work.stage.name], -seconds, work.owner, work
        own = self.served if is_served(work.stage) else self.for_gpu if uses_gpu(work.stage) else self.ready
        if self.downloads.takes(work):
            self.downloads.push(entry)
        else:
            heapq.heappush(self.aside if aside else own, entry)

    def pick(self) -> Work | None:
        """What to begin next, if anything can."""
        if self.stop.is_set() or any(lives == 0 for _, lives in self.in_flight.values()):
            return None
        waiting = sum(is_served(work.stage) for work, _ in self.in_flight.values())
        if self.served and waiting < self.settings.served_at_once:
            return _work(heapq.heappop(self.served))
        on_gpu = sum(uses_gpu(work.stage) for work, _ in self.in_flight.values()) if self.gpus else 0
        if self.for_gpu and on_gpu < self.gpus:
            return _work(heapq.heappop(self.for_gpu))
        # One more than there are workers: the next order is there before a worker comes back for it.
        if len(self.in_flight) - waiting - on_gpu > self.settings.workers:
            return None
        for_workers = (self.ready,) if self.gpus else (self.ready, self.for_gpu)
        if first := min(filter(None, for_workers), key=lambda queue: queue[0][:-1], default=None):
            return _work(heapq.heappop(first))
        return self.downloads.next() if self.downloads.wakes() == 0 and self.has_room() else None

    def has_room(self) -> bool:
        """Whether one more download may begin. Those under way may still carry the disk above the limit."""
        limit, storage = self.settings.max_local_bytes, self.dataset.storage
        if limit is None:
            return True
        if storage.originals_bytes() + storage.partial_bytes() < limit:
            return len(self.fetching()) < self.settings.workers
        if self.in_flight:
            return False  # it may delete some when it ends
        storage.empty_partial()  # what broke off earlier only saves a download its beginning
        self.result.full = storage.originals_bytes() >= limit
        return not self.result.full

    def after_download(self, source_id: str) -> int:
        """Push what the source's videos wait for; returns how many of them do."""
        works = [self.next_work(video_id, source_id) for video_id in self.planner.videos_of(source_id)]
        ready = [work for work in works if work is not None]
        if any(work.stage.name == "segment" for work in ready) and self.original_is_gone(source_id):
            self.push(self.planner.again(self.planner.of_source(self.sources[source_id])))
            return 1
        for work in ready:
            self.push(work)
        return len(ready)

    def next_work(self, video_id: str, source_id: str) -> Work | None:
        return next((work for work in self.planner.of_video(video_id, source_id) if work.stale), None)

    @cached_property
    def originals(self) -> dict[str, str]:
        """The keys of the downloads that are kept, by source. Nobody else adds any, or deletes one that is needed."""
        return originals(self.dataset.storage)

    def original_is_gone(self, source_id: str) -> bool:
        return not self.sources[source_id].path and source_id not in self.originals

    def go(self) -> None:
        import ray

        remote = ray.remote(max_retries=0)(_carry_out)
        on_gpu = ray.remote(max_retries=0, num_gpus=1, max_calls=0)(_carry_out)  # 1 loads the model for each video
        want_gpu: set[Any] = set()  # which of `in_flight` wait for one, or have it
        callers = Callers(
            {stage.name: stage for stage in self.planner.stages if is_served(stage)}, self.dataset, self.settings
        )
        handles = {stage.name: ray.put(stage) for stage in self.planner.stages}
        dataset = ray.put(self.dataset)
        stopping = False  # callers and watcher know that the run is to end

        def submit(work: Work, lives: int) -> None:
            source = self.sources[work.source_id] if work.owner == work.source_id else None
            done = ((part, self.dataset.ledger.known(work.stage.name, work.owner, part)) for part in work.stage.parts)
            others = any(known and known.status == "ok" and part not in work.stale for part, known in done)
            order = Order(
                owner=work.owner,
                source_id=work.source_id,
                wanted=work.stale,
                attempts=work.attempts,
                redo=work.redo,
                all_tasks=not others,
                source=source,
                rounds=work.rounds,
                replace=work.replace,
            )
            if self.downloads.takes(work) and (node := self.downloads.node_of(work)):
                where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
                task = remote.options(name=work.stage.name, scheduling_strategy=where)
                reference = task.remote(handles[work.stage.name], dataset, order)
            elif is_served(work.stage) and lives == _LIVES:  # then in a process that holds no other video
                reference = callers.submit(work.stage.name, order)
            elif is_served(work.stage):
                task = remote.options(name=work.stage.name, num_cpus=0)
                order = replace(order, asking=callers.at_work + 1)
                reference = task.remote(handles[work.stage.name], dataset, order)
                callers.joined_by(reference)
            else:
                takes_gpu = uses_gpu(work.stage) and self.gpus > 0
                task = (on_gpu if takes_gpu else remote).options(name=work.stage.name)
                reference = task.remote(handles[work.stage.name], dataset, order)
                want_gpu.update([reference] if takes_gpu else [])
            self.in_flight[reference] = work, lives

        self.downloads.recall()
        while self.in_flight or (self.waiting and not self.stop.is_set()):
            if time.monotonic() - self.gpus_at > _GPUS_SECONDS:
                self.gpus, self.gpus_at = gpus(), time.monotonic()
                for reference in () if self.gpus else want_gpu:
                    ray.cancel(reference)  # Ray would wait for ever for one to come
            while picked := self.pick():
                submit(picked, _LIVES)
            if self.aside and not self.in_flight and not self.stop.is_set():
                submit(_work(heapq.heappop(self.aside)), 0)
            if self.stop.is_set() and not stopping:
                stopping = True
                self.watcher.stopping(self.why())
                callers.stop()
            wakes = self.downloads.wakes()
            if not self.in_flight and (wakes == math.inf or self.stop.is_set() or self.result.full):
                break
            self.tell(always=False)
            longest = min(_STEP_SECONDS, wakes or _STEP_SECONDS)
            if self.in_flight:
                done, _ = ray.wait(list(self.in_flight), timeout=longest)
            else:  # every download that is left has to wait
                self.stop.wait(longest)
                done = []
            for reference in done:
                work, lives = self.in_flight.pop(reference)
                want_gpu.discard(reference)
                died = False
                try:
                    outcomes = ray.get(reference)
                except ray.exceptions.RayError as error:
                    unplaced = ray.exceptions.TaskUnschedulableError, ray.exceptions.TaskCancelledError
                    if isinstance(error, unplaced) and work.source_id not in self.gone:
                        self.put_back(work, lives)
                        continue
                    died = isinstance(error, ray.exceptions.RayActorError)
                    outcomes = _died(work, error, alone=lives == 0)
                callers.ended(reference, died=died)
                deaths = [outcome.reason for outcome in outcomes if outcome.reason in _KILLED]
                killed = bool(deaths) and work.source_id not in self.gone
                if killed:
                    self.watcher.killed(work.stage.name, work.owner, deaths[0])
                if self.downloads.takes(work):
                    again = killed and (self.downloads.lost_by(work) < _LIVES or self.stop.is_set())
                    last = work.source_id in self.gone or bool(deaths)
                    if not self.downloads.goes_on(work, None if again else outcomes[0], last=last):
                        self.commit(work, [self.downloads.dated(outcome) for outcome in outcomes])
                elif killed and self.stop.is_set():  # by what stopped the run, perhaps: the next run does it
                    self.push(work)
                elif killed and lives > 1:
                    submit(work, lives - 1)
                elif killed and lives == 1:
                    self.push(work, aside=True)
                else:
                    self.commit(work, outcomes)
            self.flush(always=False)
        if self.stop.is_set() and not stopping:  # before anything was begun, or as the last of it ended
            self.watcher.stopping(self.why())
        self.flush(always=True)
        self.downloads.remember()
        self.result.paused = [*self.downloads.paused()] if any(self.downloads.queues()) else []
        self.result.written += callers.close()
        self.tell(always=True)
        self.result.stopped = self.waiting or self.result.unfinished

    def put_back(self, work: Work, lives: int) -> None:
        """What could not begin where it was to: the node that it was to leave by is gone, or the last GPU."""
        if self.downloads.takes(work):
            self.downloads.unplaced(work)
        else:
            self.push(work, aside=lives == 0)

    def why(self) -> str:
        """Nothing more is begun."""
        return self.result.budget or "told to by a signal"

    def fetching(self) -> list[Work]:
        """The downloads in flight."""
        works = [work for work, _ in self.in_flight.values() if work.stage.name == "download"]
        return [work for work in works if self.sources[work.source_id].url]

    def tell(self, *, always: bool) -> None:
        if not always and time.monotonic() - self.told < _TELL_SECONDS:
            return
        self.told, downloads = time.monotonic(), len(self.fetching())
        load = Load(
            in_flight=Counter(work.stage.name for work, _ in self.in_flight.values()),
            waiting=Counter(entry[3].stage.name for queue in self.queues() for entry in queue),
            downloads=downloads,
            downloaded_bytes=self.dataset.storage.partial_bytes() if downloads else 0,
            paused=self.downloads.paused(),
        )
        self.watcher.loaded(load)

    def commit(self, work: Work, outcomes: list[Outcome]) -> None:
        if work.stage.name == "download":  # what was purged while it was fetched is never put on record
            asked = self.removals.refresh()
            if holds_removed(self.dataset, self.sources[work.source_id], self.removals) or asked:
                self.drop_removed()
        if work.source_id in self.gone:
            self.watcher.finished()
            return
        if len(outcomes) < len(work.stale):
            self.result.unfinished = True
        if work.stage.name == "download":
            outcomes = self.on_record(work, outcomes)
        if self.spending is not None:
            for outcome in outcomes:
                before = self.dataset.ledger.get(outcome.stage, outcome.video_id, outcome.part)
                self.spending.replace(before, outcome)
            self.check_budget()
        for each in [[outcome] for outcome in outcomes] if work.stage.name == "download" else [outcomes]:
            self.watcher.ended(each)  # of one video
        self.dataset.ledger.append(outcomes)
        for outcome in outcomes:
            self.planner.attempted(outcome)
            if outcome.status == "failed":
                self.result.failed.append(outcome)
        if work.stage.name == "download":
            if self.sources[work.source_id].url and (key := original_key(self.dataset.storage, work.source_id)):
                self.originals[work.source_id] = key
            if videos := self.after_download(work.source_id):
                self.watcher.expect(videos - 1)
            else:
                self.watcher.finished()
            return
        following = None if len(outcomes) < len(work.stale) else self.next_work(work.owner, work.source_id)
        if following is not None:
            self.push(following)
        else:
            self.watcher.finished()
        if work.stage.name == "segment":
            self.drop_original(work.source_id)

    def on_record(self, work: Work, outcomes: list[Outcome]) -> list[Outcome]:
        """What goes on record of a download. What an earlier one found stands where a source is not had once more: only
        what was to be cut from it fails, and videos that are finished go into releases as before."""
        failure, known = outcomes[0], self.dataset.ledger.known("download", work.owner)
        if failure.status != "failed" or not known or (known.status, known.fingerprint) != ("ok", failure.fingerprint):
            return outcomes
        following = (self.next_work(video_id, work.owner) for video_id in self.planner.videos_of(work.owner))
        message = f"its source could not be fetched again: {failure.message}"
        uncut = [
            Outcome(
                video_id=cut.owner,
                stage=cut.stage.name,
                part=part,
                status="failed",
                reason=failure.reason,
                message=message,
                transient=failure.transient,
                host=failure.host,
                attempts=cut.attempts[part] + 1,
                fingerprint=fingerprint,
            )
            for cut in following
            if cut is not None and cut.stage.name == "segment"
            for part, fingerprint in cut.stale.items()
        ]
        if not uncut:  # it was asked for by `--force --until download`
            self.result.failed.append(failure)
        return uncut

    def drop_original(self, source_id: str) -> None:
        """A download is deleted once every video in it is cut or never will be, and that is on record."""
        if self.settings.keep_originals or self.sources[source_id].path:
            return
        known = self.dataset.ledger.known
        download = known("download", source_id)
        cuts = [known("segment", video_id) for video_id in download.videos] if download else [None]
        if all(cut is not None and not cut.transient for cut in cuts):
            key = self.originals.pop(source_id, None)
            if key is not None:
                self.flush(always=True)
                self.dataset.storage.remove(key)

    def drop_leftovers(self) -> None:
        """Delete originals that a run which was killed, or which kept them, has left behind."""
        wanted = {work.source_id for queue in self.queues() for *_, work in queue}
        for source_id in [*self.originals]:
            if source_id in self.sources and source_id not in wanted:
                self.drop_original(source_id)

    def drop_removed(self) -> None:
        """Begin nothing more on sources that were purged."""
        gone = {source_id for source_id, source in self.sources.items() if self.removals.takes(source)} - self.gone
        self.gone |= gone
        self.unsettled |= gone
        for queue in self.queues():
            kept = [entry for entry in queue if entry[3].source_id not in gone]
            for _ in range(len(queue) - len(kept)):
                self.watcher.finished()
            queue[:] = kept
            heapq.heapify(queue)

    def settle_removed(self) -> None:
        """Remove them, once no worker may write anything more of them."""
        busy = {work.source_id for work, _ in self.in_flight.values()}
        if idle := self.unsettled - busy:
            begin(self.dataset, idle)
        self.unsettled &= busy

    def flush(self, *, always: bool) -> None:
        if always or time.monotonic() - self.flushed > _FLUSH_SECONDS:
            self.lease.check()
            if self.removals.refresh():
                self.drop_removed()
            self.settle_removed()
            self.dataset.ledger.flush()
            self.check_budget()
            self.flushed = time.monotonic()


def _work(entry: Entry) -> Work:
    work: Work = entry[3]
    return work


def _carry_out(stage: Stage, dataset: Dataset, order: Order) -> list[Outcome]:
    """In a process that holds no other video."""

    async def alone() -> list[Outcome]:
        outcomes = await carry_out(stage, dataset, order)
        if is_served(stage) and stage.annotator is not None:
            await stage.annotator.close()
        return outcomes

    return asyncio.run(alone())


def _died(work: Work, error: Exception, *, alone: bool) -> list[Outcome]:
    """Its workers died. The machine may be to blame, so a later run tries again; who kills that one's too is not asked
    again, if nothing else was under way."""
    line = str(error).strip().splitlines()[0][:200]
    last = ", at last with nothing else under way" if alone else ""
    return [
        Outcome(
            video_id=work.owner,
            stage=work.stage.name,
            part=part,
            status="failed",
            reason="worker_died",
            message=f"its worker died each time{last} ({line})",
            transient=not alone or work.attempts.get(part, 0) == 0,
            attempts=work.attempts.get(part, 0) + 1,
            fingerprint=fingerprint,
        )
        for part, fingerprint in work.stale.items()
    ]
