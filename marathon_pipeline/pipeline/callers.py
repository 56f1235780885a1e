"""The processes that ask servers: they wait, and take no CPU from those that decode."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.settings import RunSettings
from marathon_pipeline.pipeline.work import Caller, Order
from marathon_pipeline.stages.stage import Stage


class Callers:
    """Those of a run. Each takes its part of the videos that are asked about at once; another one begins where all have
    theirs. Whoever gets work is told how many are at it: together they send what a server is to be sent.
    """

    def __init__(self, served: Mapping[str, Stage], dataset: Dataset, settings: RunSettings) -> None:
        self._served, self._dataset, self._settings = dict(served), dataset, settings
        self._part = math.ceil(settings.served_at_once / settings.callers)
        self._number = itertools.count()
        self._all: dict[int, Any] = {}
        self._asking: dict[Any, int] = {}  # which of them has what; what asks in a process of its own has a number too
        if served:
            self._begin()  # it takes seconds, in which other work goes on

    def _begin(self) -> int:
        import ray

        number = next(self._number)
        at_once = self._settings.served_at_once + 1
        actor = ray.remote(Caller).options(num_cpus=0, max_concurrency=at_once)
        self._all[number] = actor.remote(self._served, self._dataset)
        return number

    def submit(self, stage: str, order: Order) -> Any:
        """To the one that has the least to do. The reference to what comes of it."""
        counts = Counter(self._asking.values())
        number = min(self._all, key=counts.__getitem__, default=None)
        if number is None or (counts[number] >= self._part and len(self._all) < self._settings.callers):
            number = self._begin()
        asking = len({*self._asking.values(), number})
        reference = self._all[number].carry_out.remote(stage, replace(order, asking=asking))
        self._asking[reference] = number
        return reference

    def joined_by(self, reference: Any) -> None:
        """A process that holds one video asks as well."""
        self._asking[reference] = next(self._number)

    @property
    def at_work(self) -> int:
        return len({*self._asking.values()})

    def ended(self, reference: Any, *, died: bool) -> None:
        """Whoever dies is given nothing more; the next one takes its place."""
        number = self._asking.pop(reference, None)
        if died and number is not None:
            self._all.pop(number, None)

    def stop(self) -> None:
        """Ask nothing more."""
        for caller in self._all.values():
            caller.stop.remote()

    def close(self) -> Iterator[Written]:
        """All has ended. What was written down to be asked elsewhere."""
        for caller in self._all.values():
            yield from _closed(caller)


def _closed(caller: Any) -> list[Written]:
    import ray

    try:
        written: list[Written] = ray.get(caller.close.remote())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError:
        return []  # it died, and what it had not put into files is asked for again by the next run
    return written
