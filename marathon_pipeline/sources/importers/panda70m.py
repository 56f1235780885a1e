"""Panda-70M (Chen et al., CVPR 2024): the CSV files of its `dataset_dataloading`.

Columns, one row a YouTube video: `videoID`, `url`, and lists written as Python writes them, an item a clip: `timestamp`
(pairs of `H:MM:SS.mmm`), `caption`, `matching_score`, since October 2024 also `desirable_filtering` and
`shot_boundary_detection`. Captions are not taken over: they are another model's words.
https://github.com/snap-research/Panda-70M/tree/main/dataset_dataloading
"""

import csv
import json
import re
from pathlib import Path

from marathon_pipeline.records import Span
from marathon_pipeline.sources.formats import rows_of
from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Entries, Entry, span, text

_EVIDENCE = "listed by Panda-70M, which grants no licence; the video's own is its uploader's: see its page"
_LONGEST_CELL = 2**24  # a video of a thousand clips has captions longer than what Python's csv takes unasked
_TIME = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")


def entries(path: Path) -> Entries:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        for line, cells in rows_of(path):
            try:
                if isinstance(cells, SourceError):
                    raise cells
                clips = _clips(text(cells, "timestamp"))
                entry = Entry(
                    url=text(cells, "url", needed=True),
                    data_source="panda-70m",
                    licence_evidence=_EVIDENCE,
                    segments=clips,
                )
                yield f"line {line}", entry
            except SourceError as error:
                yield f"line {line}", error
    finally:
        csv.field_size_limit(before)


def _clips(cell: str) -> tuple[Span, ...]:
    try:
        pairs = json.loads(cell.replace("'", '"')) if cell else []
        spans = {span(_seconds(start), _seconds(end)) for start, end in pairs}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        mend = "write [['0:00:01.000', '0:00:02.500'], ...], or leave the cell empty"
        raise SourceError(f"timestamp is no list of pairs of times: {cell[:40]!r}", mend) from None
    return tuple(sorted(spans, key=lambda each: (each.start, each.end)))


def _seconds(time: object) -> float:
    found = _TIME.fullmatch(time) if isinstance(time, str) else None
    if found is None:
        raise ValueError
    hours, minutes, seconds = found.groups()
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3)
