"""Who sees a run go by: its display, its lease, its log, its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Paused


@dataclass(frozen=True)
class Load:
    """What a run works on at a moment, in pieces of work by stage. What waits could begin: all before it is done."""

    in_flight: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    downloads: int = 0  # of those in flight, the ones from the network
    downloaded_bytes: int = 0  # that they have got by now
    paused: Sequence[Paused] = ()  # sites that are not asked


class Watcher:
    """Sees a run go by. It is called by the loop, and has to return at once."""

    def expect(self, videos: int) -> None:
        """So many more videos are to be brought to their end; a source counts as one until its videos are known."""

    def loaded(self, load: Load) -> None:
        """Every other second, and before anything has ended: Ray is there by now."""

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """One stage's work on a video ended. The ledger still holds what was on record of it before."""

    def killed(self, stage: str, video_id: str, reason: str) -> None:
        """A worker or a decoder died over a video. Whether it is tried once more, and where, the run decides."""

    def finished(self) -> None:
        """A video has come to its end."""

    def stopping(self, why: str) -> None:
        """Nothing more is begun."""


class Watchers(Watcher):
    """Several of them."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def expect(self, videos: int) -> None:
        for watcher in self._watchers:
            watcher.expect(videos)

    def loaded(self, load: Load) -> None:
        for watcher in self._watchers:
            watcher.loaded(load)

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        for watcher in self._watchers:
            watcher.ended(outcomes)

    def killed(self, stage: str, video_id: str, reason: str) -> None:
        for watcher in self._watchers:
            watcher.killed(stage, video_id, reason)

    def finished(self) -> None:
        for watcher in self._watchers:
            watcher.finished()

    def stopping(self, why: str) -> None:
        for watcher in self._watchers:
            watcher.stopping(why)
