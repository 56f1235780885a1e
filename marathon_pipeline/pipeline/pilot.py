"""A pilot: a dataset of its own that asks about some videos of another one, by the captions that stand there.

Of the base only rows are copied, never media, and nothing is written there; so a pilot stays as it is whatever becomes
of its base. Who looks at it sees the base's proxies, while they are kept there (`dataset/proxies.py`).
"""

from collections.abc import Iterable, Iterator, Mapping

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.proxies import base_of, name_base
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.errors import UserError
from marathon_pipeline.pipeline.ingest import sample
from marathon_pipeline.pipeline.plan import Selection
from marathon_pipeline.records import Clip, ClipCaption, Event, Outcome, Source, Summary, Video

FIRST_STAGE = "qa"
_ABOVE = ("segment", "caption_clips", "caption_events", "summarize")
_ROWS = (Clip, ClipCaption, Event, Summary)  # of a video: what is asked about, and what `show` prints


class Base:
    """The dataset that a pilot asks about.

    Raises UserError where there is none, it is the pilot itself, or it has no video that the selection takes.
    """

    def __init__(self, url: str, pilot: str, selection: Selection) -> None:
        self._base = Dataset(url)
        self.url = self._base.url
        if Storage(pilot).url == self.url:
            raise UserError(f"--into {pilot}: is the base itself, which a pilot leaves alone; give another folder")
        removals = self._base.removals()
        self._known = {
            source_id: source
            for source_id, source in self._base.sources().items()
            if not removals.takes(source)
            and any(selection.takes(source_id, video_id) for video_id in self._summarized(source_id))
        }
        if not self._known:
            raise UserError(f"{url}: holds no such video that is summarized; run its own job until summarize first")

    def choose(self, pilot: Dataset, count: int | None, seed: int) -> dict[str, Source]:
        """Sources to be asked about. Without a count: those that the pilot has already, else all."""
        purged = pilot.removals()
        known = {name: source for name, source in self._known.items() if not purged.takes(source)}
        if count is not None:
            return {source.source_id: source for source in sample(known.values(), count, seed)}
        return {name: source for name, source in pilot.sources().items() if name in known} or known

    def enter(self, pilot: Dataset, chosen: Iterable[str]) -> None:
        """Put what stands in the base into the pilot's ledger, in memory."""
        for source_id in _new(pilot, chosen):
            pilot.ledger.append(self._outcomes(source_id))

    def copy(self, pilot: Dataset, chosen: Mapping[str, Source]) -> None:
        """Copy the rows, and put them on record last: what a kill leaves half done is copied again."""
        name_base(pilot.storage, self.url)
        for source_id in _new(pilot, chosen):
            keys = [Tables.key(record, video_id) for video_id in self._summarized(source_id) for record in _ROWS]
            for key in (Tables.key(Video, source_id), *keys):
                pilot.storage.write(key, self._read(key))
        pilot.write_sources({**pilot.sources(), **chosen}.values())
        self.enter(pilot, chosen)
        pilot.ledger.flush()

    def _read(self, key: str) -> bytes:
        try:
            return self._base.storage.read(key)
        except FileNotFoundError:
            raise UserError(f"{self.url}/{key} is missing; run the base's own job again with --force") from None

    def _summarized(self, source_id: str) -> tuple[str, ...]:
        download = self._base.ledger.get("download", source_id)
        if download is None or download.status != "ok":
            return ()
        return tuple(
            video_id for video_id in download.videos if all(o and o.status == "ok" for o in self._above(video_id))
        )

    def _above(self, video_id: str) -> list[Outcome | None]:
        return [self._base.ledger.get(stage, video_id) for stage in _ABOVE]

    def _outcomes(self, source_id: str) -> Iterator[Outcome]:
        """Without what they cost, which the base has paid."""
        download, videos = self._base.ledger.get("download", source_id), self._summarized(source_id)
        free: dict[str, object] = {"usage": (), "seconds": 0.0}
        if download is not None:
            yield download.model_copy(update=free | {"videos": videos})
        for outcome in (outcome for video_id in videos for outcome in self._above(video_id)):
            if outcome is not None:
                yield outcome.model_copy(update=free)


def _new(pilot: Dataset, chosen: Iterable[str]) -> list[str]:
    return [source_id for source_id in chosen if pilot.ledger.get("download", source_id) is None]


def refuse_other_base(dataset: Dataset, base: str) -> None:
    """Raises UserError where a dataset that holds something already was begun from another base, or from none.

    base: empty where the job names none.
    """
    found = base_of(dataset.storage)
    if not found:
        if not base or not (len(dataset.ledger) or dataset.sources()):
            return
        raise UserError(f"{dataset.url}: holds a dataset of its own; give the pilot another place (--into)")
    if not base:
        raise UserError(f"{dataset.url}: is a pilot of {found}; give --base and --into, or another `dataset`")
    if found != base:
        raise UserError(f"{dataset.url}: is a pilot of {found}, not of {base}; give another place (--into)")
