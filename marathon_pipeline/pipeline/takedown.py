"""How a purge is carried out.

What is to go is written down first, in an order: so whoever is killed half way, the next one ends it the same. Then it
goes, the releases that hold it are issued anew, and all that is left is searched for it. Last of all a certificate
takes the order's place.
"""

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar, get_args

import yaml

from marathon_pipeline.annotators.served.batch import INDEX
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.removals import FOLDER as REMOVALS
from marathon_pipeline.dataset.removals import KEY as REMOVALS_KEY
from marathon_pipeline.dataset.removals import Removals
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.dataset.traces import PICTURES, Names, column, named_in, rows_in, scrubbed
from marathon_pipeline.errors import Failed
from marathon_pipeline.pipeline.certificate import (
    CERTIFICATES,
    ORDERS,
    Certificate,
    Fate,
    Order,
    Removed,
    Searched,
    Target,
    next_number,
)
from marathon_pipeline.processes import in_parts
from marathon_pipeline.records import QAPair, Signals, Source, Video
from marathon_pipeline.release.media import MEDIA_ROOT
from marathon_pipeline.release.reissue import reissue, released_questions
from marathon_pipeline.release.release_file import ROOT as RELEASES
from marathon_pipeline.release.withdrawn import withdrawn
from marathon_pipeline.sources.identity import SourceError, canonical_url

# By the first part of a key. All else below a dataset, whoever put it there, is gone through: a file that is a source's
# by its name goes; of one that several share, the lines, rows and objects that name the source do.
_SILENT = ("dataset.json", REMOVALS_KEY, REMOVALS, CERTIFICATES, ORDERS, "lease")  # say nothing of a source in clear
_SEEN_TO = ("ledger", "sources.parquet", "job.yaml", RELEASES, MEDIA_ROOT)  # by functions of their own
_ONE_EACH = ("tables", "journal", "proxies", "features", "originals", ".scratch", ".partial")  # a file is of one video
_MADE_AGAIN = ("audit",)  # shows pictures and texts; the next run writes it anew
_AT_ONCE = 500  # files that a process looks through before it says what it found
_REQUESTS_AT_ONCE = 16  # a store takes its time over each
_FEW = 5  # files of a folder that are named; of more, how many they are

R = TypeVar("R")


@dataclass(frozen=True)
class Purged:
    """An order that was carried out. `left`: files that name a source all the same; then it has no certificate."""

    order: Order
    replaced: tuple[tuple[str, str], ...]  # releases and media that were withdrawn, and what took their places
    left: tuple[str, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)  # as in the certificate

    def lines(self) -> Iterator[str]:
        for target in self.order.targets:
            videos = f", videos {', '.join(target.videos)}" if target.videos else ""
            yield f"removed {target.source_id}{videos}: {target.files} files"
        for fate, places in _others(self.order).items():
            yield from (f"also {fate} {_counted(place, files)}" for place, files in places.items())
        for before, now in self.replaced:
            yield f"withdrew {before}, " + (f"reissued as {now}" if now else "of which nothing is left")
        for place, files in self.unread.items():
            yield f"not searched, for it cannot be opened: {_counted(place, files)}"
        if self.left:
            more = f" and {len(self.left) - 3} more" if len(self.left) > 3 else ""
            yield f"still named in {', '.join(self.left[:3])}{more}: remove these, and purge again"
        elif self.order.targets:
            yield f"certificate {self.order.certificate}: nothing of it was found afterwards"
        else:
            yield f"certificate {self.order.certificate}: nothing was here to remove, and no file was searched"


def contents_of(source: Source, videos: Iterable[Video]) -> tuple[str, ...]:
    """The sha256 of a source's file, as far as it is known."""
    return tuple(sorted({source.sha256, *(video.sha256 for video in videos)} - {""}))


def rows_of(dataset: Dataset, source_id: str) -> list[Video]:
    try:
        return dataset.tables.read(Video, source_id)
    except Failed as failure:
        if failure.transient:  # a store that fails: what stands there is not known
            raise
        return []  # damaged: it goes all the same


def rows_of_all(dataset: Dataset, source_ids: Collection[str]) -> dict[str, list[Video]]:
    return dict(zip(source_ids, _at_once(dataset.storage, partial(rows_of, dataset), source_ids), strict=True))


def _at_once(storage: Storage, work: Callable[[str], R], items: Iterable[str]) -> list[R]:
    """What comes of each, in their order. work: a request or two."""
    if storage.root is not None:
        return list(map(work, items))
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        return list(pool.map(work, items))


def _of_each(storage: Storage, work: Callable[[str], R], keys: Sequence[str]) -> dict[str, R]:
    """`_at_once` for the small files among these, of which there are many: a disk has no room for many large ones."""
    small = [key for key in keys if key.endswith(".json") or key.startswith(("tables/", "journal/"))]
    found = dict(zip(small, _at_once(storage, work, small), strict=True))
    return found | {key: work(key) for key in keys if key not in found}


def write_order(dataset: Dataset, removals: Removals, source_ids: Sequence[str], entries: Iterable[str]) -> Order:
    """Write down what is to go, for as long as it is all there. entries: of the list, that this sees to besides."""
    storage, sources, own_rows = dataset.storage, dataset.sources(), rows_of_all(dataset, source_ids)
    videos = {source_id: _videos_of(dataset, source_id, own_rows[source_id]) for source_id in source_ids}
    owners = {owner: source_id for source_id in source_ids for owner in (*videos[source_id], source_id)}
    names = Names(owners)
    own = {key: folder for key in storage.keys("") if (folder := _folder_of_own(key, names))}
    by_source = Counter(owners[names.owner(key)] for key in own)
    targets = []
    for source_id in source_ids:
        source = sources.get(source_id, Source(source_id=source_id))
        target = Target(
            source_id=source_id,
            videos=videos[source_id],
            url=source.url,
            path=source.path,
            contents=contents_of(source, own_rows[source_id]),
            files=by_source[source_id],
        )
        removals.add(source_id, ids=target.videos, url=target.url, contents=target.contents)
        targets.append(target)
    rows: Counter[str] = Counter()
    parquets = [key for key in own if key.endswith(".parquet")]
    for key, count in zip(parquets, _at_once(storage, partial(rows_in, storage), parquets), strict=True):
        rows[own[key].removeprefix("tables/")] += count
    order = Order(
        number=next_number(storage),
        entries=tuple(sorted({*entries, *(removals.entry(source_id) for source_id in source_ids)})),
        targets=tuple(targets),
        frames=_frames_of(storage, own),
        questions=tuple(sorted(_questions_of(storage, own, source_ids))),
        requests=tuple(sorted(_requests_of(storage, names))),
        found=Removed(
            sources=len(targets),
            videos=sum(len(target.videos) for target in targets),
            files=dict(sorted(Counter(own.values()).items())),
            rows=dict(sorted(rows.items())),
            ledger=sum(owner in owners for (owner,) in dataset.ledger.rows("video_id")),
            bytes=sum(_at_once(storage, storage.size, own)),
        ),
    )
    storage.write(order.key, order.model_dump_json(indent=1).encode())
    return order


def clear(dataset: Dataset, order: Order) -> Order:
    """Remove an order's sources from all but the releases. Nobody works on them; on others, somebody may.

    Returns the order, which by now says, also for who goes on after a kill, what becomes of files that are not theirs.
    """
    if not order.targets:  # nothing of it was ever here
        return order
    storage, names = dataset.storage, names_of(order)
    keys = storage.keys("")
    own = [key for key in keys if _folder_of_own(key, names)]
    fates = _fates(storage, keys, names)
    if fates.items() - order.others.items():
        order = order.model_copy(update={"others": dict(sorted({**order.others, **fates}.items()))})
        storage.write(order.key, order.model_dump_json(indent=1).encode())
    storage.remove_all(own)
    for key, fate in fates.items():
        left = scrubbed(key, storage.read(key), names) if fate == "scrubbed" else b""
        storage.write(key, left) if left else storage.remove(key)
    for source_id in order.source_ids:  # an id that could be a word is only found by its place
        for part in storage.partial().glob(f"{source_id}.*"):
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
    dataset.ledger.forget(*(owner for target in order.targets for owner in (target.source_id, *target.videos)))
    sources = dataset.sources()
    if order.source_ids & sources.keys():
        dataset.write_sources(source for id, source in sources.items() if id not in order.source_ids)
    _clear_job(storage, order)
    return order


def _fates(storage: Storage, keys: Sequence[str], names: Names) -> dict[str, Fate]:
    """Of those that have one."""
    found = _of_each(storage, lambda key: _fate(storage, key, names), keys)
    return {key: fate for key, fate in found.items() if fate}


def _fate(storage: Storage, key: str, names: Names) -> Fate | None:
    """What is to become of a file that is nobody's by its name; None where it stays, or is seen to elsewhere."""
    top = key.split("/")[0]
    if top in _MADE_AGAIN:
        return "removed"
    if top in (*_SILENT, *_SEEN_TO, *_ONE_EACH) or _folder_of_own(key, names) or not named_in(storage, key, names):
        return None
    return "scrubbed" if not key.endswith(INDEX) and scrubbed(key, storage.read(key), names) else "removed"


def _others(order: Order) -> dict[Fate, dict[str, int]]:
    """By what became of them, the files that are nobody's by their name."""
    names = names_of(order)
    by_fate = {fate: [key for key, own in order.others.items() if own == fate] for fate in get_args(Fate)}
    return {fate: _places(keys, names) for fate, keys in by_fate.items() if keys}


def carry_out(dataset: Dataset, order: Order) -> Purged:
    """Bring an order to its end that was cleared. The caller holds the lease, and nobody works."""
    storage = dataset.storage
    storage.empty_scratch()
    storage.remove_torn()
    reissue(dataset, order.source_ids, order.certificate)
    releases, media = (_withdrawn_by(storage, root, order) for root in (RELEASES, MEDIA_ROOT))
    replaced = tuple(
        (f"{root}/{old}", new and f"{root}/{new}")
        for root, found in ((RELEASES, releases), (MEDIA_ROOT, media))
        for old, new in found.items()
    )
    searched, left = _search(storage, order) if order.targets else (None, ())  # else nothing of it was ever here
    unread = searched.unread if searched else {}
    if left:
        return Purged(order, replaced, left, unread)
    removals = dataset.removals()
    certificate = Certificate(
        number=order.number,
        entries=order.entries,
        sources=tuple(sorted(removals.entry(source_id) for source_id in order.source_ids)),
        removed=order.found,
        others=_others(order),
        releases=releases,
        media=media,
        searched=searched,
        found=0 if searched else None,
    )
    storage.write(order.certificate, certificate.model_dump_json(indent=1).encode())
    storage.remove(order.key)
    storage.remove_empty_folders()
    return Purged(order, replaced, unread=unread)


def _withdrawn_by(storage: Storage, root: str, order: Order) -> dict[str, str]:
    notes = withdrawn(storage, root).items()
    return {name: note.replaced_by for name, note in notes if note.certificate == order.certificate}


def names_of(order: Order) -> Names:
    hashes = {*order.frames, *order.questions, *order.requests, *(c for t in order.targets for c in t.contents)}
    ids = {id for target in order.targets for id in (target.source_id, *target.videos)}
    return Names(ids, (target.url for target in order.targets), hashes)


def _search(storage: Storage, order: Order) -> tuple[Searched, tuple[str, ...]]:
    """Look through all files of a dataset for what was removed; the files that name it."""
    names = names_of(order)
    keys = [key for key in storage.keys("") if key != order.certificate and not key.startswith(f"{ORDERS}/")]
    parts = [keys[first : first + _AT_ONCE] for first in range(0, len(keys), _AT_ONCE)]
    found = list(in_parts(partial(_looked_through, storage, names), parts))
    left = [key for named, _ in found for key in named]
    searched = Searched(
        files=dict(sorted(Counter(_folder(key, names) for key in keys).items())),
        pictures=sum(PurePosixPath(key).suffix in PICTURES for key in keys),
        ids=len(names.ids),
        urls=len(names.urls),
        contents=sum(len(target.contents) for target in order.targets),
        frames=len(order.frames),
        questions=len(order.questions),
        unread=_places([key for _, unread in found for key in unread], names),
    )
    return searched, tuple(left)


def _looked_through(storage: Storage, names: Names, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of some files those that name one, by their own names or inside; and those that may, and cannot be read."""
    found = _of_each(storage, lambda key: names.is_file(key) or named_in(storage, key, names), keys)
    return [key for key in keys if found[key]], [key for key in keys if found[key] is None]


def _places(keys: Iterable[str], names: Names) -> dict[str, int]:
    """Files by their keys; by folder where there are many in it, or where a key says what shall not be said."""
    folders = {key: _folder(key, names) for key in sorted(keys)}
    files = Counter(folders.values())
    places = (f"{own}/" if files[own] > _FEW or _tells(key, names) else key for key, own in folders.items())
    return dict(sorted(Counter(places).items()))


def _folder(key: str, names: Names) -> str:
    """The first folder that a file lies in; `.` where that is the dataset's own, or says what shall not be said."""
    first, *inside = key.split("/")
    return first if inside and not _tells(first, names) else "."


def _tells(key: str, names: Names) -> bool:
    return names.in_text(key.encode()) or any(id in key for id in names.ids)


def _counted(place: str, files: int) -> str:
    return f"{place} ({files:,} {'file' if files == 1 else 'files'})" if place.endswith("/") else place


def _videos_of(dataset: Dataset, source_id: str, rows: Iterable[Video]) -> tuple[str, ...]:
    """By the table and by the ledger: what was just fetched is not on record."""
    known = dataset.ledger.get("download", source_id)
    return tuple(sorted({*(row.video_id for row in rows), *(known.videos if known else ())}))


def _folder_of_own(key: str, names: Names) -> str:
    """The folder of a file that is a source's by its name, `.` where that itself names it; empty where it is not."""
    first, *rest = key.split("/")
    if first in (*_SILENT, *_SEEN_TO) or not names.is_file(key):
        return ""
    if names.is_file(first):
        return "."
    return f"{first}/{rest[0]}" if first == "tables" else first


def _frames_of(storage: Storage, own: Iterable[str]) -> tuple[str, ...]:
    """The hashes of frames that no other video has."""
    folder = f"tables/{Signals.table}"
    of_it = {key for key in own if key.startswith(f"{folder}/")}
    frames = _texts(storage, of_it, "frame_hash")
    if not of_it:
        return ()
    others = [key for key in storage.keys(folder) if key not in of_it]
    parts = [others[first : first + _AT_ONCE] for first in range(0, len(others), _AT_ONCE)]
    shared = in_parts(partial(_also_of, storage, frozenset(frames)), parts)
    return tuple(sorted(set(frames).difference(*shared)))


def _also_of(storage: Storage, frames: frozenset[str], keys: Sequence[str]) -> frozenset[str]:
    """Which of the frames some other videos have too."""

    def of(key: str) -> frozenset[str]:
        return frames.intersection(column(storage, key, "frame_hash").to_pylist())

    return frozenset[str]().union(*_at_once(storage, of, keys))


def _texts(storage: Storage, keys: Iterable[str], name: str) -> set[str]:
    """What stands in a column of some tables."""
    return set[str]().union(*_at_once(storage, lambda key: column(storage, key, name).to_pylist(), keys))


def _questions_of(storage: Storage, own: Iterable[str], source_ids: Sequence[str]) -> set[str]:
    """The ids of the questions about the sources: of those that stand now, and of those in releases."""
    tables = (key for key in own if key.startswith(f"tables/{QAPair.table}/"))
    return _texts(storage, tables, "qa_id") | released_questions(storage, frozenset(source_ids))


def _requests_of(storage: Storage, names: Names) -> Iterator[str]:
    """The hashes of requests that lie in batch files below the dataset: they carry nothing else of whom they are of."""
    for key in storage.keys(""):
        for line in storage.read(key).splitlines() if key.endswith(INDEX) else ():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                indexed = json.loads(line)
                if names.is_id(indexed["owner"]):
                    yield indexed["request"]


def _clear_job(storage: Storage, order: Order) -> None:
    """Take the sources out of the inputs of the job that lies beside the dataset."""
    try:
        job = yaml.safe_load(storage.read("job.yaml"))
        inputs = tuple(job["inputs"])
    except (FileNotFoundError, yaml.YAMLError, KeyError, TypeError):
        return
    gone = (Source(source_id=target.source_id, url=target.url, path=target.path) for target in order.targets)
    left = inputs_left(inputs, gone)
    if left != inputs:
        job["inputs"] = list(left)
        storage.write("job.yaml", yaml.safe_dump(job, sort_keys=False, allow_unicode=True).encode())


def inputs_left(inputs: Iterable[str], purged: Iterable[Source]) -> tuple[str, ...]:
    """The inputs of a job without those that are a purged source's URL or file: nothing of the dataset names it."""
    gone = {text for source in purged for text in (source.url, source.path) if text}
    return tuple(text for text in inputs if _place(text) not in gone)


def _place(text: str) -> str:
    try:
        return canonical_url(text)
    except SourceError:
        return str(Path(text).absolute())
