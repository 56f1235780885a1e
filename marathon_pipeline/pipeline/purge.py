"""Take sources out of a dataset for good.

A purge is asked for by an entry on the removal list, which needs no lease, and carried out by whoever holds that: the
command itself, or the run that it meets.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marathon_pipeline.dataset.dataset import Dataset, media_key, original_key
from marathon_pipeline.dataset.journal import journal_folder
from marathon_pipeline.dataset.lease import Held
from marathon_pipeline.dataset.removals import Removal, Removals, hash_of_url
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import (
    Calibration,
    Clip,
    ClipCaption,
    Event,
    QAPair,
    Signals,
    Source,
    Summary,
    Verdict,
    Video,
)
from marathon_pipeline.sources.identity import SourceError, canonical_url

_OF_A_VIDEO = (Signals, Clip, ClipCaption, Event, Summary, QAPair, Verdict, Calibration)


@dataclass(frozen=True)
class Purged:
    source_id: str
    videos: tuple[str, ...]
    files: int

    def __str__(self) -> str:
        videos = f", videos {', '.join(self.videos)}" if self.videos else ""
        return f"removed {self.source_id}{videos}: {self.files} files"


@dataclass(frozen=True)
class Purge:
    asked: tuple[str, ...]  # ids of the sources named, and of those that hold the same video
    purged: tuple[Purged, ...] = ()
    held: str = ""  # who holds the dataset, and therefore carries it out


def purge(url: str, names: Sequence[str]) -> Purge:
    """Remove sources, named by id, by one of their videos' ids, or by URL: rows, proxies, originals, parts, ledger.

    Neither they nor the same address or content under another id are taken in again. Releases are immutable: those that
    hold them stand until they are replaced.
    """
    asked = _ask(Dataset(url), names)
    dataset = Dataset(url)  # anew: what was read before the lease may be old by now
    try:
        with dataset.lease():
            return Purge(asked, tuple(settle(dataset)))
    except Held as held:
        return Purge(asked, held=str(held))


def settle(dataset: Dataset) -> list[Purged]:
    """Carry out what the removal list asks for and is not done yet. The caller holds the lease."""
    removals, sources = dataset.removals(), dataset.sources()
    worked_on = {outcome.video_id for outcome in dataset.ledger if outcome.stage == "download"}
    listed = {source.source_id for source in sources.values() if removals.takes(source)}
    return remove(dataset, listed | (worked_on & removals.ids))


def remove(dataset: Dataset, source_ids: Iterable[str]) -> list[Purged]:
    """The list of sources comes last, so that what a kill leaves half done is found again."""
    gone = sorted(source_ids)
    if not gone:
        return []
    purged = [_remove(dataset, source_id) for source_id in gone]
    dataset.ledger.flush()
    dataset.write_sources(source for source in dataset.sources().values() if source.source_id not in gone)
    return purged


def holds_removed(dataset: Dataset, source: Source, removals: Removals) -> bool:
    """Whether a source that was just fetched turned out to be one that was purged; then it is put on the list too."""
    contents = _contents(dataset, source) if removals.contents else ()
    if not removals.contents.intersection(contents):
        return False
    removals.add(Removal.of(source, contents))
    return True


def _ask(dataset: Dataset, names: Sequence[str]) -> tuple[str, ...]:
    sources, removals = dataset.sources(), dataset.removals()
    asked = {_source_id(dataset, sources, removals, name) for name in names}
    contents = {source_id: _contents(dataset, source) for source_id, source in sources.items()}
    wanted = {sha256 for source_id in asked & sources.keys() for sha256 in contents[source_id]}
    asked |= {source_id for source_id in sources if wanted.intersection(contents[source_id])}
    for source_id in sorted(asked & sources.keys()):
        removals.add(Removal.of(sources[source_id], contents[source_id]))
    return tuple(sorted(asked))


def _contents(dataset: Dataset, source: Source) -> tuple[str, ...]:
    videos = dataset.tables.read(Video, source.source_id)
    return tuple(sorted({source.sha256, *(video.sha256 for video in videos)} - {""}))


def _source_id(dataset: Dataset, sources: dict[str, Source], removals: Removals, name: str) -> str:
    if name in sources or name in removals.ids:
        return name
    for outcome in dataset.ledger:
        if name in outcome.videos:
            return outcome.video_id
    try:
        wanted = canonical_url(name)
    except SourceError:
        wanted = ""
    for source in sources.values():
        if wanted and source.url and canonical_url(source.url) == wanted:
            return source.source_id
    if before := removals.urls.get(hash_of_url(wanted)):
        return before
    raise UserError(f"{name}: no source, video or URL of {dataset.url}; nothing was removed")


def _remove(dataset: Dataset, source_id: str) -> Purged:
    known = dataset.ledger.get("download", source_id)
    videos = {video.video_id for video in dataset.tables.read(Video, source_id)} | set(known.videos if known else ())
    keys = [Tables.key(Video, source_id), original_key(dataset.storage, source_id)]
    for video_id in videos:
        keys += [Tables.key(record, video_id) for record in _OF_A_VIDEO]
        keys += [media_key("proxies", video_id, ".mp4"), *dataset.storage.keys(journal_folder(video_id))]
        dataset.ledger.forget(video_id)
    dataset.ledger.forget(source_id)
    parts = list(dataset.storage.partial().glob(f"{source_id}.*"))
    for part in parts:
        shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    files = sum(dataset.storage.remove(key) for key in keys if key) + len(parts)
    return Purged(source_id, tuple(sorted(videos)), files)
