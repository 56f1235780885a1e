"""One reader's share of an epoch: which units it reads, and in which order it gives their batches out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from marathon_pipeline.hour_llava.data.mix import Kind
from marathon_pipeline.hour_llava.data.plan import dealt, generator, slices
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.data.shards import ReleaseShards
from marathon_pipeline.hour_llava.data.units import Estimate, OpenUnit, Unit, UnitPlan, Unreadable, units_of
from marathon_pipeline.hour_llava.example import Example


@dataclass(frozen=True)
class Place:
    """Where a reader is. `lanes`: of each of the units that it reads side by side, its number in the lane, and the next
    batch of it. `given`: how many batches it has given out."""

    lanes: tuple[tuple[int, int], ...] = ()
    given: int = 0


@dataclass(frozen=True)
class Mixed:
    """What a reader reads from."""

    releases: Sequence[ReleaseShards]
    rates: Mapping[Kind, float]
    settings: LoaderSettings
    estimate: Estimate

    def units(self, reader: int, readers: int, epoch: int) -> list[Unit]:
        """Those of one reader. Together the readers have each of them once."""
        whole = units_of(self.releases, 1)
        cut = units_of(self.releases, slices(len(whole), readers))
        return dealt(cut, reader, readers, self.settings.seed, epoch)

    def plan(self, unit: Unit, epoch: int) -> UnitPlan:
        return UnitPlan(unit, self.releases[unit.release], self.rates, self.settings, self.estimate, epoch)

    def label(self, unit: Unit) -> str:
        """The release's name in keys; where two have the same, its number in the settings goes before it."""
        name = self.releases[unit.release].name
        alone = sum(release.name == name for release in self.releases) == 1
        return name if alone else f"{unit.release}:{name}"


@dataclass(frozen=True)
class Given:
    """A batch, what is missing from it, and where its reader is after it."""

    examples: list[Example]
    unreadable: list[Unreadable]
    place: Place


class Reader:
    """Iterate over it once."""

    def __init__(self, mixed: Mixed, reader: int, readers: int, epoch: int, place: Place) -> None:
        self._mixed, self._reader, self._epoch, self._given = mixed, reader, epoch, place.given
        units, count = mixed.units(reader, readers, epoch), mixed.settings.open_units
        starts = place.lanes or ((0, 0),) * count
        self._lanes = [_Lane(mixed, units[lane::count], epoch, *starts[lane]) for lane in range(count)]

    def __iter__(self) -> Iterator[Given]:
        while lanes := [lane for lane in self._lanes if lane.is_open]:
            seed = (self._mixed.settings.seed, self._epoch, self._reader, self._given)
            lane = generator("lane", *seed).choice(lanes)
            examples, unreadable = lane.batch()
            self._given += 1
            yield Given(examples, unreadable, Place(tuple(each.place for each in self._lanes), self._given))


class _Lane:
    """Units that are read one after another."""

    def __init__(self, mixed: Mixed, units: Sequence[Unit], epoch: int, number: int, batch: int) -> None:
        self._mixed, self._units, self._epoch = mixed, units, epoch
        self._number, self._batch = number, batch
        self._open: OpenUnit | None = None

    @property
    def place(self) -> tuple[int, int]:
        return self._number, self._batch

    @property
    def is_open(self) -> bool:
        """Whether it has a batch left; opens the unit that has."""
        while self._open is None and self._number < len(self._units):
            unit = self._units[self._number]
            plan = self._mixed.plan(unit, self._epoch)
            if self._batch < len(plan.batches):
                release = self._mixed.releases[unit.release]
                self._open = OpenUnit(plan, release, self._mixed.settings, self._mixed.label(unit), self._batch)
            else:
                self._number, self._batch = self._number + 1, 0
        return self._open is not None

    def batch(self) -> tuple[list[Example], list[Unreadable]]:
        assert self._open is not None
        found = self._open.batch()
        self._batch = self._open.next
        if self._open.ended:
            self._open, self._number, self._batch = None, self._number + 1, 0
        return found
