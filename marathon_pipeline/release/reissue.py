"""Withdraw what holds a purged source, and issue it anew without.

A release never changes, so one that may no longer stand goes: a new revision takes its place, and a note that says so
its folder. The revision is made from the withdrawn files alone, so that it holds nothing newer: files without a row of
the source keep their bytes, the others lose its rows.
"""

import json
import re
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.licences import Allowed, Licences
from marathon_pipeline.records import Format, Split, digest
from marathon_pipeline.release.card import render_card
from marathon_pipeline.release.croissant import describe
from marathon_pipeline.release.files import Batches, Folder, Tar
from marathon_pipeline.release.media import MEDIA_FILE, MEDIA_ROOT, MediaVersion, Shard, media_versions, next_version
from marathon_pipeline.release.parts import VideoWriter
from marathon_pipeline.release.plan import SPLITS
from marathon_pipeline.release.release_file import (
    FILE_NAME,
    ROOT,
    CaptionSummary,
    FileInfo,
    Level,
    LicenceSummary,
    Reissue,
    Release,
    TaskSummary,
    VideoSummary,
    folder_of,
    pretty,
    read_release,
    release_names,
    summary_of,
)
from marathon_pipeline.release.rows import VideoRow
from marathon_pipeline.release.withdrawn import FILE_NAME as WITHDRAWN
from marathon_pipeline.release.withdrawn import Withdrawn, withdrawn

T = TypeVar("T")
_ROWS_AT_ONCE = 1_000
_LISTS = ("options", "evidence")
_COUNTED = ("format", "split", "annotator", "template_version", "tries")


def released_sources(storage: Storage) -> set[str]:
    """The ids of all sources that a release holds."""
    found: set[str] = set()
    for key in storage.keys(ROOT):
        if re.fullmatch(rf"{ROOT}/[^/]+/videos\.parquet", key):
            for batch in _batches(storage, key, ["source_id"]):
                found |= set(batch["source_id"].to_pylist())
    return found


def released_questions(storage: Storage, source_ids: frozenset[str]) -> set[str]:
    """The ids of all questions about sources that a release holds."""
    found: set[str] = set()
    for key in storage.keys(ROOT) if source_ids else ():
        if re.fullmatch(rf"{ROOT}/[^/]+/qa/[^/]+/[^/]+\.parquet", key):
            for batch in _batches(storage, key, ["source_id", "qa_id"]):
                found |= set(batch.filter(_among(batch["source_id"], source_ids))["qa_id"].to_pylist())
    return found


def reissue(dataset: Dataset, source_ids: Iterable[str], certificate: str) -> None:
    """Withdraw and reissue every release and every version of the media that holds one of the sources.

    certificate: the key of the file that says why. Killed anywhere and called again, it ends the same. The caller
    holds the lease.
    """
    with tempfile.TemporaryDirectory(prefix="reissue-", dir=dataset.storage.scratch()) as scratch:
        work = _Reissue(dataset, frozenset(source_ids), certificate, Path(scratch))
        work.media()
        work.releases()


class _Reissue:
    def __init__(self, dataset: Dataset, gone: frozenset[str], certificate: str, scratch: Path) -> None:
        self._dataset, self._storage, self._scratch = dataset, dataset.storage, scratch
        self._gone, self._certificate = gone, certificate
        self._rewritten: dict[str, tuple[str, FileInfo] | None] = {}  # media shards, by the sha256 that they had

    def media(self) -> None:
        self._drop_unfinished(MEDIA_ROOT, MEDIA_FILE)
        versions = media_versions(self._dataset)
        replaced = {version.replaces: version.version for version in versions}
        for version in versions:
            folder = f"{MEDIA_ROOT}/{version.version}"
            holding = {name for name, info in version.shards.items() if self._holds(f"{folder}/{name}", info)}
            if holding:
                now = replaced.get(version.version) or self._version(version, holding)
                self._withdraw(folder, MEDIA_FILE, now)

    def releases(self) -> None:
        self._drop_unfinished(ROOT, FILE_NAME)
        releases = [release for name in release_names(self._dataset) if (release := read_release(self._dataset, name))]
        replaced = {release.reissue.of: release.name for release in releases if release.reissue}
        for release in releases:
            videos = self._videos_of(release, ["source_id", "video_id"])
            own = {row["video_id"] for row in videos if row["source_id"] in self._gone}
            if own:
                now = replaced.get(release.name) or self._release(release, own)
                self._withdraw(folder_of(release.name), FILE_NAME, now)

    def _drop_unfinished(self, root: str, last: str) -> None:
        """Remove what a killed process left of a folder: all of one that was begun, the rest of one that is withdrawn.

        last: the file that is written last.
        """
        for name, found in groupby(self._storage.keys(root), key=lambda key: key.split("/")[1]):
            keys, note = list(found), f"{root}/{name}/{WITHDRAWN}"
            if note in keys or f"{root}/{name}/{last}" not in keys:
                self._storage.remove_all([key for key in keys if key != note])

    def _withdraw(self, folder: str, last: str, replaced_by: str) -> None:
        note = Withdrawn(why="takedown", certificate=self._certificate, replaced_by=replaced_by)
        self._storage.write(f"{folder}/{WITHDRAWN}", pretty(note.model_dump()))
        self._storage.remove(f"{folder}/{last}")
        self._storage.remove_all([key for key in self._storage.keys(folder) if not key.endswith(f"/{WITHDRAWN}")])

    def _holds(self, key: str, info: FileInfo) -> bool:
        with self._tar(key, info) as tar:
            return any(
                json.loads(_bytes(tar, member))["source_id"] in self._gone
                for member in tar
                if member.name.endswith(".json")
            )

    def _version(self, version: MediaVersion, holding: set[str]) -> str:
        """Issue a version of the media anew; returns its name, or nothing where no video is left."""
        name = next_version(self._dataset)
        folder = Folder(self._storage, f"{MEDIA_ROOT}/{name}", self._scratch)
        shards: dict[str, Shard] = {}
        numbers: Counter[str] = Counter()
        for before in sorted(version.shards, key=_place):
            info, key = version.shards[before], f"{MEDIA_ROOT}/{version.version}/{before}"
            split = before.rpartition("-")[0]
            path = f"{split}-{numbers[split]:06d}.tar"
            fingerprint = info.fingerprint
            if before not in holding:
                folder.copy(path, key, info)
            else:
                fingerprint = digest(["reissued", fingerprint])
                if not self._media_shard(folder, path, key, info):
                    continue
            now = folder.files[path]
            shards[path] = Shard(sha256=now.sha256, bytes=now.bytes, rows=now.rows, fingerprint=fingerprint)
            numbers[split] += 1
        if not shards:
            return ""
        written = MediaVersion(version=name, shards=shards, replaces=version.version)
        folder.put(MEDIA_FILE, pretty(written.model_dump(mode="json")))
        return name

    def _media_shard(self, folder: Folder, path: str, key: str, info: FileInfo) -> bool:
        """Write a shard without the videos; False where none is left."""
        if info.sha256 in self._rewritten:  # versions have most of their shards in common
            known = self._rewritten[info.sha256]
            if known:
                folder.copy(path, *known)
            return known is not None
        tar: Tar | None = None
        for sample, fields in self._samples(key, info):
            if json.loads(fields["json"])["source_id"] not in self._gone:
                tar = tar or Tar(folder, path)
                tar.write(sample, **fields)
        if tar:
            tar.close()
        self._rewritten[info.sha256] = (f"{folder.prefix}/{path}", folder.files[path]) if tar else None
        return tar is not None

    def _samples(self, key: str, info: FileInfo) -> Iterator[tuple[str, dict[str, bytes]]]:
        with self._tar(key, info) as tar:
            for sample, members in groupby(tar, key=lambda member: member.name.partition(".")[0]):
                yield sample, {member.name.partition(".")[2]: _bytes(tar, member) for member in members}

    @contextmanager
    def _tar(self, key: str, info: FileInfo) -> Iterator[tarfile.TarFile]:
        """To be read. Raises UserError where it is not whole: one that was cut between samples looks like a tar."""
        with _readable(self._storage, key), self._storage.local_file(key) as path:
            if path.stat().st_size != info.bytes:
                raise OSError("cut off")
            with tarfile.open(path, "r:") as tar:
                yield tar

    def _release(self, release: Release, video_ids: set[str]) -> str:
        """Issue a release anew; returns its name, or nothing where no question is left."""
        name = self._next_revision(release.name)
        folder = Folder(self._storage, folder_of(name), self._scratch)
        tasks = {task: self._task(release, task, folder) for task in release.tasks}
        qa = sum(task.qa for task in tasks.values())
        if not qa:
            folder.clear()
            return ""
        videos = self._videos(release, folder)
        captions = self._captions(release, folder, video_ids)
        annotators = sorted({*captions.annotators, *(a for task in tasks.values() for a in task.annotators)})
        media = withdrawn(self._storage, MEDIA_ROOT).get(release.media)
        version = media.replaced_by if media else release.media
        counts = next((v.counts() for v in media_versions(self._dataset) if v.version == version), {})
        changed = {"media"} if version != release.media else set()
        changed |= {part for part in release.parts if _files_of(part, release.files) != _files_of(part, folder.files)}
        now = release.model_copy(
            update={
                "name": name,
                "media": version,
                "parts": {p: digest(["reissued", f]) if p in changed else f for p, f in release.parts.items()},
                "tasks": tasks,
                "videos": videos,
                "captions": captions,
                "annotators": tuple(annotators),
                "licences": self._licences(release, annotators),
                "reissue": Reissue(
                    of=release.name, certificate=self._certificate, videos=len(video_ids), qa=release.qa - qa
                ),
                "files": folder.files,
            }
        )
        folder.put("README.md", render_card(now, counts))
        folder.put("croissant.json", describe(now))
        now = now.model_copy(update={"files": dict(folder.files)})
        self._storage.write(f"{folder.prefix}/{FILE_NAME}", now.dump())
        return name

    def _next_revision(self, name: str) -> str:
        """`demo-3.1` for `demo-3`, and `demo-3.2` for that."""
        first = re.sub(r"\.[1-9][0-9]*$", "", name) if re.search(r"-[0-9]+\.[1-9][0-9]*$", name) else name
        taken = {key.split("/")[1] for key in self._storage.keys(ROOT)}
        number = 1
        while f"{first}.{number}" in taken:
            number += 1
        return f"{first}.{number}"

    def _task(self, release: Release, task: str, folder: Folder) -> TaskSummary:
        """Write a task's files anew. Its tars and tables hold the same rows in the same order."""
        counts = _Counts()
        shards = {
            split: tars
            for split in SPLITS
            if f"qa/{task}/{split}.parquet" in release.files
            and (tars := self._split(release, f"qa/{task}/{split}", folder, counts))
        }
        return release.tasks[task].model_copy(update={**counts.summary(), "shards": shards})

    def _split(self, release: Release, path: str, folder: Folder, counts: "_Counts") -> int:
        """Write a task's files of one split; returns the number of its tars."""
        source, table = folder_of(release.name), f"{path}.parquet"
        gone: list[bool] = []
        whole: list[bool] = []  # with options and evidence
        for batch in _batches(self._storage, f"{source}/{table}", ["source_id", *_LISTS, *_COUNTED]):
            goes = _among(batch["source_id"], self._gone)
            gone += goes.to_pylist()
            whole += pc.and_(*(pc.greater(pc.list_value_length(batch[name]), 0) for name in _LISTS)).to_pylist()
            counts.add(batch.filter(pc.invert(goes)))
        tars = sorted((each for each in release.files if each.startswith(f"{path}-")), key=_place)
        ends = list(accumulate(release.files[tar].rows for tar in tars))
        kept: list[int] = []
        number = 0
        for tar, begin, end in zip(tars, [0, *ends], ends, strict=False):
            rows = _kept(gone, whole, begin, end)
            if not rows:
                continue
            to, key, info = f"{path}-{number:06d}.tar", f"{source}/{tar}", release.files[tar]
            number += 1
            kept += rows
            if len(rows) == end - begin:
                folder.copy(to, key, info)
                continue
            shard = Tar(folder, to)
            for sample, fields in _in_order(self._samples(key, info), [row - begin for row in rows]):
                shard.write(sample, **fields)
            shard.close()
        if not any(gone):
            folder.copy(table, f"{source}/{table}", release.files[table])
        elif kept:
            left = Batches(folder, table)
            batches = enumerate(_batches(self._storage, f"{source}/{table}"))
            places = ((at, batch, row) for at, batch in batches for row in range(batch.num_rows))
            for _, run in groupby(_in_order(places, kept), key=itemgetter(0)):
                _, (batch, *_), numbers = zip(*run, strict=True)
                left.write(batch.take(pa.array(numbers)))
            left.close()
        return number

    def _videos(self, release: Release, folder: Folder) -> VideoSummary:
        writer = VideoWriter(folder)
        for row in self._videos_of(release):
            if row["source_id"] not in self._gone:
                writer.add(VideoRow.model_validate(row))
        return writer.close()

    def _videos_of(self, release: Release, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        for batch in _batches(self._storage, f"{folder_of(release.name)}/videos.parquet", columns):
            yield from batch.to_pylist()

    def _licences(self, release: Release, annotators: list[str]) -> LicenceSummary:
        """What the rules came to when the release was made, less the videos that went."""
        if "licences" not in release.settings:
            return release.licences
        rules = Licences.model_validate(release.settings["licences"])
        gone = Counter(
            rules.of_source(row["data_source"], row["licence"], row["url"])
            for row in self._videos_of(release, ["source_id", "data_source", "licence", "url"])
            if row["source_id"] in self._gone
        )
        left = (Allowed(rule=each.rule, videos=each.videos - gone[each.rule]) for each in release.licences.sources)
        return summary_of(rules, (each for each in left if each.videos > 0), annotators)

    def _captions(self, release: Release, folder: Folder, video_ids: set[str]) -> CaptionSummary:
        path = "captions.parquet"
        if path not in release.files:
            return release.captions
        table = Batches(folder, path)
        levels: Counter[Level] = Counter()
        annotators: set[str] = set()
        for batch in _batches(self._storage, f"{folder_of(release.name)}/{path}"):
            left = batch.filter(pc.invert(_among(batch["video_id"], video_ids)))
            table.write(left)
            levels.update(left["level"].to_pylist())
            annotators.update(left["annotator"].to_pylist())
        table.close()
        told = {"levels": dict(sorted(levels.items())), "annotators": tuple(sorted(annotators))}
        return release.captions.model_copy(update=told)


class _Counts:
    """What a task's summary says of its rows."""

    def __init__(self) -> None:
        self._formats: Counter[Format] = Counter()
        self._splits: Counter[Split] = Counter()
        self._annotators: set[str] = set()
        self._versions: defaultdict[Split, set[int]] = defaultdict(set)
        self._replaced = 0

    def add(self, rows: pa.RecordBatch) -> None:
        columns = rows.select([name for name in _COUNTED if name in rows.schema.names]).to_pydict()
        self._formats.update(columns["format"])
        self._splits.update(columns["split"])
        self._annotators.update(columns["annotator"])
        for split, version in zip(columns["split"], columns["template_version"], strict=True):
            self._versions[split].add(version)
        self._replaced += sum(tries > 0 for tries in columns.get("tries", ()))  # in releases of format 1 nothing was

    def summary(self) -> dict[str, Any]:
        return {
            "qa": self._formats.total(),
            "formats": dict(sorted(self._formats.items())),
            "splits": dict(self._splits),
            "annotators": tuple(sorted(self._annotators)),
            "template_versions": tuple(sorted(set[int]().union(*self._versions.values()))),
            "split_versions": {split: tuple(sorted(found)) for split, found in self._versions.items()},
            "replaced": self._replaced,
        }


def _kept(gone: Sequence[bool], whole: Sequence[bool], begin: int, end: int) -> list[int]:
    """The rows of a shard that stay, in their new order: one with options and evidence goes first (see `QAWriter`)."""
    rows = [row for row in range(begin, end) if not gone[row]]
    if rows and rows[0] != begin:
        first = next((row for row in rows if whole[row]), rows[0])
        rows.remove(first)
        rows.insert(0, first)
    return rows


def _in_order(items: Iterable[T], wanted: Sequence[int]) -> Iterator[T]:
    """The items with these numbers in this order; of those before one that goes first, all are held meanwhile."""
    held: dict[int, T] = {}
    numbered, numbers = enumerate(items), set(wanted)
    for number in wanted:
        while number not in held:
            at, item = next(numbered)
            if at in numbers:
                held[at] = item
        yield held.pop(number)


def _place(path: str) -> tuple[str, int]:
    before, _, number = path.removesuffix(".tar").rpartition("-")
    return before, int(number)


def _files_of(part: str, files: dict[str, FileInfo]) -> dict[str, FileInfo]:
    return {path: info for path, info in files.items() if path.startswith(f"{part}/") or path == f"{part}.parquet"}


def _batches(storage: Storage, key: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A table piece by piece: as a whole it may not go into memory. Columns that it lacks are left out."""
    with _readable(storage, key), storage.local_file(key) as path, pq.ParquetFile(path, pre_buffer=False) as file:
        there = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(_ROWS_AT_ONCE, columns=there, use_threads=False)


@contextmanager
def _readable(storage: Storage, key: str) -> Iterator[None]:
    """Raises UserError where a file of a release, or of the media, cannot be read."""
    try:
        yield
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError) as error:
        folder = "/".join(key.split("/")[:2])
        raise UserError(
            f"{storage.url}/{key} cannot be read ({error}); put it back from a copy of the dataset, or remove "
            f"{folder}, which cannot be reissued without it"
        ) from None


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _among(column: pa.Array, values: Iterable[str]) -> pa.Array:
    return pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))
