"""What an importer makes of one entry of a collection's own list, and what all of them need for it."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pydantic import JsonValue

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Span
from marathon_pipeline.sources.identity import SourceError

Cells = Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One video of a collection: of `url` and `file` one is set."""

    url: str = ""
    file: str = ""  # relative to the folder of the collection's videos
    id: str = ""
    data_source: str = ""
    licence: str = ""
    licence_evidence: str = ""
    held_out: bool = False  # the collection evaluates on it: it must not be trained on
    segments: tuple[Span, ...] = ()  # what the collection annotates, in seconds of the original
    metadata: dict[str, JsonValue] = field(default_factory=dict)


Entries = Iterator[tuple[str, Entry | SourceError]]  # with its place in the list, such as `line 7`


def loaded(path: Path, form: str) -> dict[str, object]:
    """The object that a JSON file holds. Raises UserError; form: what the file is expected to be."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            value = json.load(file, parse_constant=_not_finite)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist (give {form})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): give {form}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error} (give {form})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not an object (give {form})")
    return value


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def text(cells: Cells, name: str, *, needed: bool = False) -> str:
    """A text of an entry, empty where there is none. Raises SourceError."""
    value = cells.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        if needed:
            raise SourceError(f"{name} is empty", "complete it, or delete the entry")
        return ""
    if not isinstance(value, str):
        raise SourceError(f"{name} is a {type(value).__name__}, not a text", "correct it, or delete the entry")
    return value.strip()


def number(cells: Cells, name: str) -> float | None:
    """A finite number of an entry that is not below zero. Raises SourceError."""
    value = cells.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    raise SourceError(f"{name} is {json.dumps(value)[:40]}, no number of seconds", "correct it, or delete the entry")


def span(start: object, end: object) -> Span:
    """A segment. Raises SourceError."""
    cells = {"start": start, "end": end}
    first, last = number(cells, "start"), number(cells, "end")
    if first is None or last is None or first >= last:
        raise SourceError(f"the segment {start!r} to {end!r} is none", "put its start before its end")
    return Span(start=first, end=last)


def annotated(annotations: object) -> tuple[Span, ...]:
    """The segments of a list of `{"segment": [start, end], ...}`, in order, each once. Raises SourceError."""
    if annotations is None:
        return ()
    if not isinstance(annotations, list):
        raise SourceError("annotations is no list", "correct it, or delete the entry")
    spans = set()
    for each in annotations:
        segment = each.get("segment") if isinstance(each, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            raise SourceError("an annotation has no segment of two times", "correct it, or delete the entry")
        spans.add(span(*segment))
    return tuple(sorted(spans, key=lambda each: (each.start, each.end)))


def by_id(database: object, path: Path, form: str) -> Iterator[tuple[str, str, Cells | SourceError]]:
    """Place, id and cells of every entry of a `database` object. Raises UserError where it is none."""
    if not isinstance(database, dict):
        raise UserError(f"{path} has no object named database (give {form})")
    for name, cells in database.items():
        wrong = SourceError("is no object", "correct it, or delete the entry")
        yield f"entry {name}", name, cells if isinstance(cells, dict) else wrong
