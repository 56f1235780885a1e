"""A release as its reader finds it: QA by the bucket of its source, and the media tars as streams."""

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.data.mix import Kind
from marathon_pipeline.records import Split
from marathon_pipeline.release.media import MEDIA_FILE, MEDIA_ROOT, MediaVersion
from marathon_pipeline.release.plan import bucket
from marathon_pipeline.release.release_file import FILE_NAME, Release
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.withdrawn import refuse_withdrawn

_KIND_COLUMNS = ("data_source", "start", "end")
_COLUMNS = ("qa_id", "video_id", "data_source", "start", "end", "question", "options", "answer", "letter")


class ReleaseShards:
    """One split of a release. `url`: of its folder, `<dataset>/releases/<name>`. Raises UserError where there is none.

    Its sources are spread over `classes` by their bucket: those of a media tar are one class. It pickles as its URL.
    """

    def __init__(self, url: str, split: Split, *, media: bool) -> None:
        self._given = url, split, media
        self.split = split
        self.folder = Storage(url)
        parent = self.folder.root.parent.parent if self.folder.root else None
        self.dataset = Storage(str(parent) if parent else self.folder.url.rstrip("/").rsplit("/", 2)[0])
        if self.folder.root is not None and not self.folder.root.is_dir():
            raise UserError(f"{url}: no release there; give its folder, such as out/demo/releases/demo-1")
        refuse_withdrawn(self.folder)
        try:
            self.release = Release.model_validate_json(self.folder.read(FILE_NAME))
            self.settings = ReleaseSettings.model_validate(self.release.settings["release"])
            self.tars = self._tars() if media else ()
        except FileNotFoundError as error:
            raise UserError(f"{url}: no whole release with its media ({error}); give the folder of one") from None
        except (ValidationError, KeyError):
            raise UserError(f"{url}: its {FILE_NAME} or {MEDIA_FILE} is damaged, or of another format") from None
        if media and not self.tars:
            raise UserError(f"{url}: has no media of the split {split}; read cached features, or release with media")
        self.classes = self.settings.media_shards if media else self.settings.shards
        self.tasks = {task: each.topic for task, each in self.release.tasks.items() if each.splits.get(split)}
        if not self.tasks:
            raise UserError(f"{url}: holds no QA of the split {split}; give another one")

    def __reduce__(self) -> tuple[object, ...]:
        url, split, media = self._given
        return _opened, (url, split, media)

    @property
    def name(self) -> str:
        return self.release.name

    def _tars(self) -> tuple[str, ...]:
        if not self.release.media:
            return ()
        where = f"{MEDIA_ROOT}/{self.release.media}"
        shards = MediaVersion.model_validate_json(self.dataset.read(f"{where}/{MEDIA_FILE}")).shards
        return tuple(f"{where}/{name}" for name in sorted(shards) if name.startswith(f"{self.split}-"))

    def counts(self, long_seconds: float) -> Counter[Kind]:
        """How many pairs there are of each kind; a few thousand rows are in memory at a time."""
        counts: Counter[Kind] = Counter()
        for task, topic in self.tasks.items():
            with self._table(task) as table:
                for group in range(table.num_row_groups):
                    rows = table.read_row_group(group, columns=list(_KIND_COLUMNS))
                    long = pc.greater_equal(pc.subtract(rows["end"], rows["start"]), long_seconds)
                    grouped = pa.table({"source": rows["data_source"], "long": long}).group_by(["source", "long"])
                    for found in grouped.aggregate([([], "count_all")]).to_pylist():
                        counts[Kind(task, topic, found["source"], found["long"])] += found["count_all"]
        return counts

    def rows(self, task: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The QA of a task; a few thousand rows are in memory at a time."""
        with self._table(task) as table:
            for group in range(table.num_row_groups):
                yield from table.read_row_group(group, columns=list(columns)).to_pylist()

    def videos(self) -> Iterator[str]:
        """The ids of the videos that have QA, some of them more than once."""
        for task in self.tasks:
            with self._table(task) as table:
                for group in range(table.num_row_groups):
                    yield from _unique(table, group, "video_id")

    def pairs(self, own_class: int, wanted: Callable[[str], bool] | None = None) -> pa.Table:
        """The QA of the videos of one class, by video; `wanted`: of which of them.

        Only the row groups that hold any are read: a table's rows stand by the bucket of their source, so where
        `shards` divides `media_shards` (or the other way round) that is little more than what is returned.
        """
        found = []
        for task, topic in self.tasks.items():
            with self._table(task) as table:
                for group, classes in enumerate(self._classes_of_groups[task]):
                    if not classes >> own_class & 1:
                        continue
                    rows = table.read_row_group(group, columns=[*_COLUMNS, "source_id"])
                    rows = rows.filter(_is_of(rows["source_id"], lambda id: self._class_of(id) == own_class))
                    if wanted is not None:
                        rows = rows.filter(_is_of(rows["video_id"], wanted))
                    added = {"task": pa.repeat(task, len(rows)), "topic": pa.repeat(topic, len(rows))}
                    for column, values in added.items():
                        rows = rows.append_column(column, values)
                    found.append(rows.drop_columns(["source_id"]))
        table = pa.concat_tables(found).combine_chunks() if found else pa.table({"video_id": pa.array([], pa.string())})
        return table.take(pc.sort_indices(table, [("video_id", "ascending")])).combine_chunks()

    def class_of_tar(self, key: str) -> int:
        """Which class the videos of a media tar are of. Raises UserError where it holds none."""
        for sample in self.samples(key, lambda name: name.endswith(".json")):
            if "json" in sample:
                return self._class_of(json.loads(sample["json"])["source_id"])
        raise UserError(f"{self.dataset.url}/{key}: holds no video, or is damaged; `marathon check` its release")

    def samples(self, key: str, select: Callable[[str], bool]) -> Iterator[Mapping[str, Any]]:
        """The samples of a media tar, one after another; `select`: which members are read. A damaged tar ends early.

        Raises UserError where there is no such tar, Failed where its store fails.
        """
        from webdataset.tariterators import group_by_keys, tar_file_expander

        def stop(error: Exception) -> bool:
            if isinstance(error, Failed):
                raise error
            return False

        try:
            with self.dataset.open(key) as stream:
                files = tar_file_expander([{"url": key, "stream": stream}], handler=stop, select_files=select)
                yield from group_by_keys(files, handler=stop)
        except FileNotFoundError:
            raise UserError(f"{self.dataset.url}/{key} is missing; `marathon check` its release") from None
        except (tarfile.TarError, OSError):
            return

    @cached_property
    def _classes_of_groups(self) -> dict[str, list[int]]:
        """Of each table's row groups, the classes that they hold, as bits."""
        found: dict[str, list[int]] = {}
        for task in self.tasks:
            with self._table(task) as table:
                found[task] = [
                    sum(1 << each for each in {self._class_of(id) for id in _unique(table, group, "source_id")})
                    for group in range(table.num_row_groups)
                ]
        return found

    def _class_of(self, source_id: str) -> int:
        return bucket(source_id) % self.classes

    @contextmanager
    def _table(self, task: str) -> Iterator[pq.ParquetFile]:
        key = f"qa/{task}/{self.split}.parquet"
        try:
            with self.folder.open(key) as file:
                yield pq.ParquetFile(file, pre_buffer=False)
        except (FileNotFoundError, pa.ArrowException) as error:
            raise UserError(f"{self.folder.url}/{key}: {error}; `marathon check` its release") from None


def _unique(table: pq.ParquetFile, group: int, column: str) -> list[str]:
    ids: list[str] = pc.unique(table.read_row_group(group, columns=[column])[column]).to_pylist()
    return ids


def _is_of(column: pa.ChunkedArray, wanted: Callable[[str], bool]) -> pa.ChunkedArray:
    chosen = pa.array([value for value in pc.unique(column).to_pylist() if wanted(value)], pa.string())
    return pc.is_in(column, value_set=chosen)


def _opened(url: str, split: Split, media: bool) -> ReleaseShards:
    return ReleaseShards(url, split, media=media)
