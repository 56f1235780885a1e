"""A collection's own list becomes a manifest."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Source
from marathon_pipeline.sources.identity import SourceError, source_id_of_name
from marathon_pipeline.sources.importers import activitynet, ego4d, moviechat, panda70m, videomarathon, youcook2
from marathon_pipeline.sources.importers.entry import Entries, Entry
from marathon_pipeline.sources.manifest import RowProblem
from marathon_pipeline.sources.row import row_of

IMPORTERS: dict[str, Callable[[Path], Entries]] = {
    "panda-70m": panda70m.entries,
    "ego4d": ego4d.entries,
    "activitynet": activitynet.entries,
    "youcook2": youcook2.entries,
    "moviechat-1k": moviechat.entries,
    "videomarathon": videomarathon.entries,
}


@dataclass(frozen=True)
class ImportOptions:
    videos: Path | None = None  # the folder that a collection's own files lie in
    segments: bool = False  # a row for each annotated segment, instead of one for the whole original
    licence: str = ""  # what the user knows better than the list
    licence_evidence: str = ""
    purged: Callable[[Source], bool] | None = None  # whether a source was, by its id, URL or channel


@dataclass
class Imported:
    sources: int = 0
    rows: int = 0
    held_out: int = 0  # sources that their collection evaluates on: put into the split `test`
    problems: list[RowProblem] = field(default_factory=list)


class _Nowhere(SourceError):
    """A file, where no folder of videos was given."""

    def __init__(self) -> None:
        super().__init__("names a file, not a URL", "give the folder of its videos by --videos")


def import_manifest(
    collection: str,
    file: Path,
    out: Path,
    options: ImportOptions,
    report: Callable[[RowProblem], None] = lambda problem: None,
) -> Imported:
    """Write the manifest `out` (JSON lines) of what a collection's list names; the same list gives the same bytes.

    A wrong entry is reported and the others go on. Raises UserError, and writes nothing, where the list as a whole is
    wrong or no entry of it is right.
    """
    importer = IMPORTERS.get(collection)
    if importer is None:
        raise UserError(f"{collection} is no collection with an importer; give one of {', '.join(IMPORTERS)}")
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: an import writes JSON lines (give -o a name that ends in .jsonl)")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder (create it, or write elsewhere)")
    imported, seen = Imported(), dict[str, str]()
    nowhere: list[RowProblem] = []  # told at the end: where there is nothing else, one line says it for all
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8") as lines:
            for place, entry in importer(file):
                try:
                    if isinstance(entry, SourceError):
                        raise entry
                    rows = list(_rows(entry, out.parent, options))
                    texts = [_line(row) for row in rows]
                    _once(_key(rows[0], out.parent, options), seen, place)
                except SourceError as error:
                    problem = RowProblem(f"{file} {place}", 0, error.problem, error.mend)
                    if isinstance(error, _Nowhere):
                        nowhere.append(problem)
                    else:
                        imported.problems.append(problem)
                        report(problem)
                    continue
                lines.writelines(texts)
                imported.sources += 1
                imported.rows += len(rows)
                imported.held_out += entry.held_out
            lines.flush()
            os.fsync(lines.fileno())
        if not imported.sources and nowhere:
            raise UserError("this list names files, not URLs: give the folder that they lie in by --videos")
        if not imported.sources:
            raise UserError(f"{file} names no video that can be used; nothing was written")
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error} (give another place)") from None
    finally:
        unfinished.unlink(missing_ok=True)
    for problem in nowhere:
        imported.problems.append(problem)
        report(problem)
    return imported


def _rows(entry: Entry, folder: Path, options: ImportOptions) -> Iterator[dict[str, JsonValue]]:
    """The rows of one source. Raises SourceError."""
    metadata: dict[str, JsonValue] = {
        name: value for name, value in entry.metadata.items() if value not in (None, "", [])
    }
    if entry.segments and not options.segments:
        metadata["annotated"] = [[segment.start, segment.end] for segment in entry.segments]
    row: dict[str, JsonValue] = {
        "url": entry.url,
        "path": "" if entry.url else _path(entry.file, folder, options.videos),
        "id": entry.id,
        "data_source": entry.data_source,
        "licence": options.licence or entry.licence,
        "licence_evidence": options.licence_evidence or entry.licence_evidence,
        "split": "test" if entry.held_out else "",
        "metadata": metadata,
    }
    row = {name: value for name, value in row.items() if value}
    for segment in (entry.segments if options.segments else ()) or (None,):
        times: dict[str, JsonValue] = {} if segment is None else {"start": segment.start, "end": segment.end}
        yield row | times


def _line(row: dict[str, JsonValue]) -> str:
    """Raises SourceError for a text that no file can hold."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        line.encode()
    except UnicodeEncodeError:
        raise SourceError("holds half a character", "correct it, or delete the entry") from None
    return line


def _key(row: dict[str, JsonValue], folder: Path, options: ImportOptions) -> str:
    """What tells a source from others. Raises SourceError where a manifest would not take it, or it was purged."""
    checked = row_of(row)
    if checked.url:
        source = checked.source(folder, {})
        key = source.source_id
    else:  # not its content, which takes reading terabytes
        source_id = source_id_of_name(checked.id, checked.data_source) if checked.id else ""
        source = Source(source_id=source_id, metadata=json.dumps(checked.metadata))
        key = f"path {checked.path}"
    if options.purged is not None and options.purged(source):
        raise SourceError("was purged", "delete the entry")
    return key


def _path(file: str, folder: Path, videos: Path | None) -> str:
    """Where a collection's own file lies, as seen from the manifest. Raises SourceError."""
    if videos is None:
        raise _Nowhere
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or "\0" in file:
        raise SourceError(f"{file!r} leads out of the folder of videos", "correct it, or delete the entry")
    path = videos.absolute() / file
    try:
        there = path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise SourceError(f"{path}: {error.strerror}", "correct it, or delete the entry") from None
    if not there:
        raise SourceError(f"{path} is not there", "fetch it, or leave the entry out")
    inside = path.is_relative_to(folder.absolute())
    return str(path.relative_to(folder.absolute()) if inside else path)


def _once(key: str, seen: dict[str, str], place: str) -> None:
    """Raises SourceError where an earlier entry names the same video."""
    if key in seen:
        raise SourceError(f"the same video stands in {seen[key]}", "delete one of them")
    seen[key] = place
