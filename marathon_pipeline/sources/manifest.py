"""Manifests: lists of sources. A wrong row is reported and never stops the others."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marathon_pipeline.errors import UserError, one_line
from marathon_pipeline.records import Source
from marathon_pipeline.sources.formats import Cells, rows_of
from marathon_pipeline.sources.identity import SourceError, is_in_store
from marathon_pipeline.sources.row import row_of

_SAME_IN_ALL_ROWS = ("url", "path", "data_source", "licence", "licence_evidence", "opt_out", "split", "metadata")


@dataclass(frozen=True)
class RowProblem:
    """What is wrong with one row, and how to mend it. `line`: in Parquet the row, from 1; 0: the whole file."""

    file: str
    line: int
    problem: str
    mend: str

    def __str__(self) -> str:
        word = "row" if self.file.endswith(".parquet") else "line"
        return one_line(f"{self.file}{f' {word} {self.line}' if self.line else ''}: {self.problem} ({self.mend})")


@dataclass
class Gathering:
    """Sources put together from many rows and files, and the problems met on the way."""

    previous: Mapping[str, Source]  # of an earlier run, by path
    sources: dict[str, Source] = field(default_factory=dict)
    problems: list[RowProblem] = field(default_factory=list)
    _ids: dict[str, str] = field(default_factory=dict)  # by canonical URL, or by content

    def read(self, manifest: str | Path) -> None:
        """Add the rows of a manifest, a file or an object. Raises UserError where the whole of it is wrong."""
        if not is_in_store(name := str(manifest)):
            self._read(Path(manifest), name)
            return
        from marathon_pipeline.sources.stores import local_copy

        with local_copy(name) as copy:
            try:
                self._read(copy, name)
            except UserError as error:
                raise UserError(str(error).replace(str(copy), name)) from None

    def _read(self, file: Path, name: str) -> None:
        rows = 0
        for line, cells in rows_of(file):
            rows += 1
            try:
                if isinstance(cells, SourceError):
                    raise cells
                row = row_of(_in_store(cells, name) if is_in_store(name) else cells)
                self.add(row.source(file.parent, self.previous))
            except SourceError as error:
                self.problems.append(RowProblem(name, line, error.problem, error.mend))
        if not rows:
            raise UserError(f"{name} names no video (add rows, or leave the file out)")

    def add(self, source: Source) -> None:
        """Add a source, or its segment to the same source's others. Raises SourceError where rows contradict."""
        content = source.url or source.sha256
        earlier_id = self._ids.get(content, source.source_id)
        if earlier_id != source.source_id:
            raise SourceError(f"the same video is already named {earlier_id}", "give it one id, or delete the row")
        earlier = self.sources.get(source.source_id)
        if earlier is None:
            self.sources[source.source_id] = source
            self._ids[content] = source.source_id
            return
        if earlier == source:
            return
        for name in _SAME_IN_ALL_ROWS:
            if getattr(earlier, name) != getattr(source, name):
                problem = f"{name} differs from an earlier row of {source.source_id}"
                raise SourceError(problem, "make the rows agree, or delete one")
        if not (earlier.segments and source.segments):
            problem = f"{source.source_id} is named both whole and by a segment"
            raise SourceError(problem, "keep the whole source, or the segments")
        segments = sorted({*earlier.segments, *source.segments}, key=lambda segment: (segment.start, segment.end))
        self.sources[source.source_id] = earlier.model_copy(update={"segments": tuple(segments)})


def _in_store(cells: Cells, manifest: str) -> Cells:
    """A relative path of a manifest in an object store names the object beside it. Raises SourceError."""
    path = cells.get("path")
    if cells.get("url") or not isinstance(path, str) or not path.strip() or path.strip().startswith("/"):
        return cells
    scheme, _, rest = manifest.partition("://")
    bucket, _, key = rest.partition("/")
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(key), path.strip()))  # stores know no `.` and no `..`
    if beside.split("/")[0] in (".", ".."):
        raise SourceError("path leads out of the bucket", "correct it, or delete the row")
    return {name: value for name, value in cells.items() if name != "path"} | {"url": f"{scheme}://{bucket}/{beside}"}


def read_manifest(manifest: str | Path, previous: Mapping[str, Source] = {}) -> tuple[list[Source], list[RowProblem]]:
    """Read a manifest (.jsonl, .csv or .parquet): its sources in the order of their first rows, and its wrong rows.

    manifest: a file, or an object such as `s3://bucket/key`. previous: sources of an earlier run by their `path`; a
    file of the same size and mtime is not hashed again. Raises UserError where the whole of it is wrong: missing, not
    UTF-8, no such format, no rows.
    """
    gathering = Gathering(previous)
    gathering.read(manifest)
    return list(gathering.sources.values()), gathering.problems
