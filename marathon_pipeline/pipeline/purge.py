"""Take sources out of a dataset for good.

A purge is asked for by an entry on the removal list, which needs no lease, and carried out by whoever holds that: the
command itself, or the run that it meets (`takedown.py`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.lease import Held
from marathon_pipeline.dataset.removals import Removals, channel_key, channels_of
from marathon_pipeline.errors import UserError
from marathon_pipeline.pipeline.certificate import Order, certified, open_orders
from marathon_pipeline.pipeline.standing import held
from marathon_pipeline.pipeline.takedown import (
    Purged,
    carry_out,
    clear,
    contents_of,
    rows_of,
    rows_of_all,
    write_order,
)
from marathon_pipeline.records import Source
from marathon_pipeline.release.reissue import released_sources
from marathon_pipeline.sources.identity import SourceError, canonical_url, source_id_of_url

_CHANNEL = "channel:"


@dataclass(frozen=True)
class Reach:
    """What a channel's name came to, which only sources can answer that state one."""

    channel: str
    found: int  # sources that state it
    silent: int  # sources that state none
    sources: int

    def __str__(self) -> str:
        number = f"{self.found:,}" if self.found else "no"
        found = f"{number} {'sources here state' if self.found > 1 else 'source here states'}"
        kept_out = "" if self.found else "; what states it later is kept out"
        return f"{found} that channel; {self.silent:,} of {self.sources:,} sources state none{kept_out}"


@dataclass(frozen=True)
class Purge:
    asked: tuple[str, ...]  # ids of the sources named, and of those that hold the same video
    channels: tuple[Reach, ...] = ()
    purged: tuple[Purged, ...] = ()
    held: str = ""  # who holds the dataset, and therefore carries it out


def purge(url: str, names: Sequence[str], others: Sequence[str] = ()) -> Purge:
    """Remove sources, named by id, by one of their videos' ids, by URL or by channel.

    others: datasets whose removal lists hold here too. Neither the sources nor the same address, channel or content
    under another id are taken in again.
    """
    asked, channels = _ask(Dataset(url), names, [Dataset(other).removals() for other in others])
    dataset = Dataset(url)  # anew: what was read before the lease may be old by now
    try:
        with held(dataset):
            return Purge(asked, channels, tuple(settle(dataset)))
    except Held as error:
        return Purge(asked, channels, held=str(error))


def settle(dataset: Dataset) -> list[Purged]:
    """Carry out what the removal list asks for and is not done yet. The caller holds the lease, and nobody works."""
    dataset.removals().migrate()
    return [carry_out(dataset, order) for order in begin(dataset)]


def begin(dataset: Dataset, only: Collection[str] | None = None) -> list[Order]:
    """Remove what is on the list from all but the releases; these, and the certificate, are left to `settle`.

    only: of these sources, on which no worker is at work. Returns all orders that are open.
    """
    storage, removals = dataset.storage, dataset.removals()
    orders = open_orders(storage)
    listed = {source_id for source_id, source in dataset.sources().items() if removals.takes(source)}
    worked_on = {source_id for (source_id,) in dataset.ledger.rows("video_id", stages=["download"])}
    taken = listed | {source_id for source_id in worked_on if removals.holds("id", source_id)}
    if only is not None:
        pending, taken = frozenset[str](), taken & set(only)
    elif pending := removals.entries - certified(storage) - {entry for order in orders for entry in order.entries}:
        taken |= {source_id for source_id in released_sources(storage) if removals.holds("id", source_id)}
    taken -= {source_id for order in orders for source_id in order.source_ids}
    if taken or pending:
        orders.append(write_order(dataset, removals, sorted(taken), pending))
    return [clear(dataset, order) for order in orders]


def holds_removed(dataset: Dataset, source: Source, removals: Removals) -> bool:
    """Whether a source that was just fetched turned out to be one that was purged, or of a channel that was; then it is
    put on the list too."""
    if not removals.entries:
        return False
    videos = rows_of(dataset, source.source_id)
    contents, channels = contents_of(source, videos), channels_of(source, videos)
    if not any(removals.holds("content", sha256) for sha256 in contents) and not _of_any(channels, removals):
        return False
    removals.add(source.source_id, url=source.url, contents=contents)
    return True


def _ask(
    dataset: Dataset, names: Sequence[str], others: Sequence[Removals]
) -> tuple[tuple[str, ...], tuple[Reach, ...]]:
    """Put on the list what is named, and what holds the same video. Nothing where one of the names means nothing."""
    sources, removals = dataset.sources(), dataset.removals()
    videos = rows_of_all(dataset, sources)
    channels = {source_id: frozenset(channels_of(source, videos[source_id])) for source_id, source in sources.items()}
    found = [_found(dataset, sources, channels, removals, name) for name in names]
    asked = {source_id for each in found for source_id in each.source_ids}
    for other in others:
        asked |= {id for id, source in sources.items() if other.takes(source) or _of_any(channels[id], other)}
    contents = {source_id: contents_of(source, videos[source_id]) for source_id, source in sources.items()}
    wanted = {sha256 for source_id in asked & sources.keys() for sha256 in contents[source_id]}
    asked |= {source_id for source_id in sources if wanted.intersection(contents[source_id])}
    urls = {source_id: each.url for each in found if each.url for source_id in each.source_ids}
    urls |= {source_id: source.url for source_id, source in sources.items()}
    reached = {each.channel: len(each.source_ids) for each in found if each.channel}
    for channel in sorted(reached):
        removals.add_channel(channel)
    for source_id in sorted(asked):
        known = dataset.ledger.get("download", source_id)
        ids = known.videos if known else ()
        removals.add(source_id, ids=ids, url=urls.get(source_id, ""), contents=contents.get(source_id, ()))
    silent = sum(not own for own in channels.values())
    reaches = (Reach(channel, count, silent, len(sources)) for channel, count in sorted(reached.items()))
    return tuple(sorted(asked)), tuple(reaches)


def _of_any(channels: Iterable[str], removals: Removals) -> bool:
    return any(removals.holds("channel", channel) for channel in channels)


@dataclass(frozen=True)
class _Found:
    """What a name means. `url`: where no source of that URL is known."""

    source_ids: frozenset[str]
    url: str = ""
    channel: str = ""


def _found(
    dataset: Dataset,
    sources: Mapping[str, Source],
    channels: Mapping[str, Collection[str]],
    removals: Removals,
    name: str,
) -> _Found:
    channel = name.removeprefix(_CHANNEL)
    of_channel = frozenset(id for id, own in channels.items() if channel_key(channel) in own)
    if name.startswith(_CHANNEL):
        return _Found(of_channel, channel=channel)
    if name in sources:
        return _Found(frozenset({name}))
    holds = dataset.ledger.rows("video_id", "videos", stages=["download"])
    if owners := {source_id for source_id, videos in holds if name in videos}:
        return _Found(frozenset(owners))
    try:
        url = canonical_url(name)
    except SourceError:
        url = ""
    if same := frozenset(id for id, source in sources.items() if url and source.url == url):
        return _Found(same)
    if of_channel:
        return _Found(of_channel, channel=channel)
    if url:
        return _Found(frozenset({source_id_of_url(url)}), url=url)
    if removals.holds("id", name):  # of a purge before
        return _Found(frozenset({name}))
    raise UserError(
        f"{name}: no source, video, URL or channel of {dataset.url}; nothing was removed (what is not here yet is kept "
        "out by its URL, or by channel:NAME)"
    )


def read_names(lines: Iterable[str]) -> list[str]:
    """The names in a list, one a line, without comments: what follows a # that begins a line or a word."""
    names = (line.partition(" #")[0].strip() for line in lines if not line.lstrip().startswith("#"))
    return [name for name in names if name]
