"""The three manifest formats, read row by row."""

import csv
import datetime
import decimal
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.identity import SourceError

if TYPE_CHECKING:
    import pyarrow

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".parquet")

Cells = dict[str, object]


def rows_of(path: Path) -> Iterator[tuple[int, Cells | SourceError]]:
    """Yield (line, cells) of a manifest, or (line, what is wrong with that line); in Parquet the row's number, from 1.

    Raises UserError where the file as a whole cannot be read.
    """
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: not a manifest (its name has to end in {', '.join(MANIFEST_SUFFIXES)})")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder, a pipe or a device (give a file)")
    try:
        yield from reader(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist (give the path of a manifest)") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text (save it as UTF-8)") from None
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read: {reason} (give a readable file)") from None


def _jsonl(path: Path) -> Iterator[tuple[int, Cells | SourceError]]:
    objects = others = 0
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                cells = json.loads(text, parse_constant=_not_finite)
                if not isinstance(cells, dict):
                    raise ValueError(f"a {type(cells).__name__}, not an object")
            except (ValueError, RecursionError) as error:
                others += 1
                mend = "write one JSON object a line, or delete the line"
                yield line, SourceError(f"not a JSON object: {error}".replace(": line 1 column", " at column"), mend)
            else:
                objects += 1
                yield line, cells
    if others and not objects:
        raise UserError(f"{path} is not JSON lines (write one JSON object a line)")


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _csv(path: Path) -> Iterator[tuple[int, Cells | SourceError]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise UserError(f"{path} line 1: {error} (write a comma-separated file)") from None
        if not {"url", "path"} & set(header):
            raise UserError(
                f"{path}: no column is named url or path (give a first line that names comma-separated columns)"
            )
        if len(set(header)) < len(header):
            raise UserError(f"{path}: two columns have the same name (rename one)")
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, SourceError(f"not CSV: {error}", "correct the quotes, or delete the line")
                continue
            if len(cells) == len(header):
                yield line, dict(zip(header, cells, strict=True))
            elif cells:
                problem = f"has {len(cells)} cells, the first line names {len(header)}"
                yield line, SourceError(problem, "put cells that hold a comma in double quotes")


def _parquet(path: Path) -> Iterator[tuple[int, Cells | SourceError]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not {"url", "path"} & set(file.schema_arrow.names):
                raise UserError(f"{path}: no column is named url or path (name the columns as in a CSV manifest)")
            row = 0
            for batch in file.iter_batches(batch_size=1024):
                for cells in _cells(batch):
                    row += 1
                    yield row, cells
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{path} is not a readable Parquet file: {str(error).splitlines()[0]} (write it again)"
        ) from None


def _cells(batch: "pyarrow.RecordBatch") -> list[Cells | SourceError]:
    """Row by row where Python has no value for one of them, such as a day millions of years from now."""
    try:
        return [{name: _plain(value) for name, value in cells.items()} for cells in batch.to_pylist()]
    except (ArithmeticError, ValueError) as error:
        if len(batch) == 1:
            return [SourceError(f"holds what cannot be read: {error}", "correct it, or delete the row")]
        return [row for at in range(len(batch)) for row in _cells(batch.slice(at, 1))]


def _plain(value: object) -> object:
    """What JSON has no word for, as JSON writers commonly write it."""
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return str(value)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value
