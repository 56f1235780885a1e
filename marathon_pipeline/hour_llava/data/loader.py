"""The loader of a rank: batches of conversations about long videos, in an order that a killed run takes up again.

Own state rather than torchdata's: a place in the plan says all, so that resuming opens the very next batch, and nothing
that was read before is read again.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.data.mix import Rates, rates
from marathon_pipeline.hour_llava.data.reader import Given, Mixed, Place, Reader
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.data.shards import ReleaseShards
from marathon_pipeline.hour_llava.data.units import Estimate, Unreadable, estimated_tokens
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.features import read_features
from marathon_pipeline.records import digest

T = TypeVar("T")
log = logging.getLogger(__name__)
_NAMED = 1_000  # samples that could not be read and are kept by name; all are counted, and logged


def as_they_are(examples: Sequence[Example]) -> list[Example]:
    return list(examples)


class Loader(Generic[T]):
    """Iterate over it for an epoch, or for what is left of one: each of its samples comes once, over all ranks.

    Ranks and workers share the shards (the videos of a shard, where there are fewer of these), so the ranks may have a
    batch more or less each; a trainer counts steps and lets each go into its next epoch when it gets there.

    collate: makes a batch of examples, in the worker: hand in the processor, and tokenizing is done there too. It is
    never called without an example: of a batch where none can be read, `unreadable` tells.
    """

    def __init__(
        self,
        settings: LoaderSettings,
        rank: int = 0,
        ranks: int = 1,
        collate: Callable[[Sequence[Example]], T] | None = None,
        estimate: Estimate = estimated_tokens,
    ) -> None:
        """Opens the releases and counts their QA. Raises UserError where one cannot be read."""
        releases = [ReleaseShards(url, settings.split, media=not settings.features) for url in settings.releases]
        counts = sum((release.counts(settings.mix.long_seconds) for release in releases), Counter[Any]())
        self.rates: Rates = rates(settings.mix, counts)
        if settings.features and not settings.fingerprint:
            settings = settings.model_copy(update={"fingerprint": _first_fingerprint(releases)})
        self._mixed = Mixed(releases, self.rates.of, settings, estimate)
        self._settings, self._rank, self._ranks = settings, rank, ranks
        self._collate = cast(Callable[[Sequence[Example]], T], collate or as_they_are)
        self._readers = max(1, settings.workers)  # of this rank
        self.epoch = 0
        self.unreadable: Counter[str] = Counter()  # by reason
        self.named: list[Unreadable] = []  # the latest of them
        self._places = [Place()] * self._readers
        self._turn = 0
        self._going: Any = None  # a DataLoader that has ended an epoch, and can begin the next one

    def __iter__(self) -> Iterator[T]:
        loader = self._started() if self._going is None else self._going
        self._going = None  # until it has come to the epoch's end
        for reader, given, batch in loader:
            if isinstance(given, Exception):
                raise given
            self._places[reader] = given.place
            self._turn = (reader + 1) % self._readers
            self._note(given.unreadable)
            if batch is not None:
                yield batch
        self.epoch += 1
        self._places, self._turn = [Place()] * self._readers, 0
        self._going = loader

    def _started(self) -> Any:
        """Its workers stay for the following epochs: starting them takes seconds."""
        stream = _Stream(
            self._mixed, self._collate, self._rank, self._ranks, self._readers, self.epoch, self._places, self._turn
        )
        workers = self._settings.workers
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=self._settings.prefetch if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context=_context() if workers else None,
            pin_memory=torch.cuda.is_available() and self._collate is not as_they_are,
        )

    def batches(self) -> int:
        """How many the rest of this epoch has for this rank, readable or not; reads the QA once."""
        count = 0
        for reader, place in enumerate(self._places):
            units = self._mixed.units(reader * self._ranks + self._rank, self._readers * self._ranks, self.epoch)
            count += sum(len(self._mixed.plan(unit, self.epoch).batches) for unit in units) - place.given
        return count

    def state_dict(self) -> dict[str, Any]:
        """Behind the last batch that was given out; plain values."""
        return {
            "of": self._of,
            "epoch": self.epoch,
            "turn": self._turn,
            "places": [[[list(lane) for lane in place.lanes], place.given] for place in self._places],
            "unreadable": dict(self.unreadable),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch that the state was taken after. Raises UserError where it is of another loader."""
        if state["of"] != self._of:
            raise UserError(
                "the loader's state was saved with other releases, loader settings, ranks or workers: resume with the "
                "same ones, or begin a new run"
            )
        self._going = None
        self.epoch, self._turn = state["epoch"], state["turn"]
        self._places = [Place(tuple((a, b) for a, b in lanes), given) for lanes, given in state["places"]]
        self.unreadable = Counter(state["unreadable"])

    @property
    def _of(self) -> str:
        """All that decides which batch comes when."""
        settings = self._settings.model_dump(exclude={"workers", "prefetch", "releases"})
        parts = [[release.name, release.release.parts] for release in self._mixed.releases]
        return digest([settings, parts, self._rank, self._ranks, self._readers])

    def _note(self, unreadable: list[Unreadable]) -> None:
        for each in unreadable:
            log.warning("sample %s cannot be read and is left out: %s", each.key, each.reason)
            self.unreadable[each.reason.partition(":")[0]] += 1
        self.named = [*self.named, *unreadable][-_NAMED:]


class _Stream(IterableDataset[tuple[int, Given | Exception, Any]]):
    """What a worker of the rank iterates over: the rest of an epoch, then one more whole epoch each time.

    The first worker has the turn where the last run left off.
    """

    def __init__(
        self,
        mixed: Mixed,
        collate: Callable[[Sequence[Example]], Any],
        rank: int,
        ranks: int,
        readers: int,
        epoch: int,
        places: Sequence[Place],
        turn: int,
    ) -> None:
        self._mixed, self._collate, self._rank, self._ranks = mixed, collate, rank, ranks
        self._readers, self._epoch, self._places, self._turn = readers, epoch, list(places), turn
        self._resumes = True

    def __iter__(self) -> Iterator[tuple[int, Given | Exception, Any]]:
        if not self._resumes:
            self._epoch, self._places, self._turn = self._epoch + 1, [Place()] * self._readers, 0
        self._resumes = False
        worker = get_worker_info()
        own = ((worker.id if worker else 0) + self._turn) % self._readers
        # Ranks first, so that with few units every rank has one before a rank has two.
        number, of = own * self._ranks + self._rank, self._readers * self._ranks
        reader = Reader(self._mixed, number, of, self._epoch, self._places[own])
        try:
            for given in reader:
                batch = self._collate(given.examples) if given.examples else None
                yield own, Given([], given.unreadable, given.place), batch
        except (UserError, Failed) as error:  # raised here, it would reach the trainer with a traceback in its text
            yield own, error, None


def _first_fingerprint(releases: Sequence[ReleaseShards]) -> str:
    """Of the first features that are there. Raises UserError where there are none."""
    for release in releases:
        for video_id in release.videos():
            try:
                return read_features(release.dataset, video_id).fingerprint
            except Failed as failure:
                if failure.transient:
                    raise
    raise UserError(f"{releases[0].dataset.url}: holds no features; run its job with `features` set (docs/loading.md)")


def _context() -> Any:
    """Processes are forked from one that has loaded torch and nothing else: a fork of this one might hang in a thread
    of the storage's that is not there any more."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["marathon_pipeline.hour_llava.data.loader"])
    return context
