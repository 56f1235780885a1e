"""VideoMarathon (Lin et al., arXiv 2506.05332): its released Parquet, one file or a folder of them.

Columns, one row a question: `id`, `video` (a relative path), `URL`, `data_source`, `question_type`, `question`,
`answer`. 3.3 million rows name about 28,000 videos: the columns that name them are read in batches, and only the videos
are kept. Where one URL stands for several names of `video`, these are parts of a long original; where they lie in it is
not published, so the original is taken and cut anew by a job's `parts`.
https://huggingface.co/datasets/jylins/videomarathon
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from marathon_pipeline.errors import UserError
from marathon_pipeline.sources.identity import SourceError
from marathon_pipeline.sources.importers.entry import Entries, Entry

_FORM = "VideoMarathon's Parquet file, or the folder of its files"
_COLUMNS = ("video", "URL", "data_source")
_ROWS_AT_ONCE = 65_536
_EVIDENCE = (
    "listed by VideoMarathon for academic research only; the video's own licence is its uploader's: see its page"
)


@dataclass
class _Named:
    place: str
    data_source: str
    videos: set[str] = field(default_factory=set)
    rows: int = 0


def entries(path: Path) -> Entries:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no .parquet file (give {_FORM})")
    found: dict[tuple[str, str], _Named] = {}
    for file in files:
        for row, (video, url, data_source), count in _distinct(file):
            place = f"{file.name} row {row}" if path.is_dir() else f"row {row}"
            named = found.setdefault((url, "" if url else video), _Named(place, data_source))
            named.rows += count
            if video:
                named.videos.add(video)
    for (url, video), named in found.items():
        if url or video:
            yield named.place, _entry(url, video, named)
        else:
            yield named.place, SourceError("URL and video are both empty", "complete one, or delete the row")


def _entry(url: str, video: str, named: _Named) -> Entry:
    videos = sorted(named.videos)
    return Entry(
        url=url,
        file=video,
        id=re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(videos[0]).stem) if videos else "",
        data_source=re.sub(r"[^a-z0-9_-]+", "-", named.data_source.strip().lower()).strip("-"),
        licence_evidence=_EVIDENCE,
        metadata={"videomarathon": [*videos], "videomarathon_qa": named.rows},
    )


def _distinct(file: Path) -> Iterator[tuple[int, tuple[str, str, str], int]]:
    """The distinct values of the columns in each batch: their first row, from 1, and how many rows have them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            if missing := set(_COLUMNS) - set(parquet.schema_arrow.names):
                raise UserError(f"{file}: no column is named {' or '.join(sorted(missing))} (give {_FORM})")
            start = 1
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=[*_COLUMNS], use_threads=False):
                table = pa.table([column.cast(pa.string()) for column in batch.select(_COLUMNS).columns], _COLUMNS)
                table = table.append_column("row", pa.array(range(start, start + len(table))))
                grouped = table.group_by([*_COLUMNS], use_threads=False)
                for each in grouped.aggregate([("row", "min"), ("row", "count")]).to_pylist():
                    cells = tuple((each[name] or "").strip() for name in _COLUMNS)
                    yield each["row_min"], (cells[0], cells[1], cells[2]), each["row_count"]
                start += len(table)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist (give {_FORM})") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        line = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{file} is not a readable Parquet file: {line} (give {_FORM})") from None
