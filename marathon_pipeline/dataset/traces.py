"""Where a dataset names a source: in the names of its files, and in all that can be read in them.

A source is found by its ids, its URL in any spelling of scheme and host, and by hashes that nothing else has. An id
that could be a word or a number of something else ("away", "v1") counts only where a field says that it is an id.
"""

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import PurePosixPath
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marathon_pipeline.dataset.parquet import bytes_of
from marathon_pipeline.dataset.storage import Storage

PART = r"(?:_[0-9]{8,}-[0-9]{8,})?"  # what an id of a part of a source ends in (see the stage `download`)
_PART_AT_END = re.compile(PART + "$")
PICTURES = frozenset({".mp4", ".mkv", ".webm", ".mov", ".avi", ".jpg", ".png"})
_WITHOUT_TEXT = PICTURES | {".safetensors"}  # features: numbers, a gigabyte an hour
_HEX = re.compile(rb"(?<![0-9a-fA-F])[0-9a-f]{16,64}(?![0-9a-fA-F])")
_LONGEST_HASH = 64
_PIECE = 2**16  # of a damaged file, bytes read at once
_FEW = 50  # names: of more it is quicker to look for all at once
_YOUTUBE = re.compile(r"https://www\.youtube\.com/watch\?v=([0-9A-Za-z_-]{11})")
_ID_FIELD = r"(?:[a-z_]*_id|id|owner|videos?|source|__key__)"


class Names:
    """What is looked for. `hashes`: of 16 to 64 hex digits, of frames, contents, requests and texts."""

    def __init__(self, ids: Iterable[str], urls: Iterable[str] = (), hashes: Iterable[str] = ()) -> None:
        self.ids, self.urls, self.hashes = frozenset(ids), frozenset(urls) - {""}, frozenset(hashes)

    def is_id(self, text: str) -> bool:
        """Whether it is one of the ids, or that of a part of one."""
        return self._whole(text) in self.ids

    def owner(self, key: str) -> str:
        """Whose a file, or a folder above it, is by its name: one of the ids, or nothing."""
        for folder, name in pairwise(["", *key.split("/")]):
            stem = name.partition(".")[0]
            placed = hashlib.sha256(stem.encode()).hexdigest()[:2] == folder  # as all of a dataset's own files are
            if self.is_id(stem) and (placed or _is_strong(stem)):
                return self._whole(stem)
        return ""

    def is_file(self, key: str) -> bool:
        return bool(self.owner(key))

    def _whole(self, id: str) -> str:
        return id if id in self.ids else _PART_AT_END.sub("", id)

    def in_text(self, text: bytes) -> bool:
        looked_for = self._pattern if self._weak or self._may_name(text) else ""
        if looked_for and pc.match_substring_regex(pa.array([text], pa.large_binary()), looked_for)[0].as_py():
            return True
        return bool(self.hashes) and any(found.decode() in self.hashes for found in _HEX.findall(text))

    def in_values(self, field: str, values: pa.Array) -> bool:
        """Whether a column of texts holds any."""
        data = values.buffers()[2]
        if data is None:
            return False
        if self._strong and self._may_name(data.to_pybytes()) and _any(pc.match_substring_regex(values, self._strong)):
            return True
        weak = self._weak_value if re.fullmatch(_ID_FIELD, field) else ""
        if weak and _any(pc.match_substring_regex(pc.unique(values), weak)):
            return True
        if not self.hashes:
            return False
        if data.size > _LONGEST_HASH * len(values):
            values = values.filter(pc.less_equal(pc.binary_length(values), _LONGEST_HASH))
        return not self.hashes.isdisjoint(values.to_pylist())

    def _may_name(self, text: bytes) -> bool:
        """False where no id and no address can stand in a text: told a hundred times faster than where one does."""
        return len(self._literals) > _FEW or any(literal in text for literal in self._literals)

    @cached_property
    def _literals(self) -> tuple[bytes, ...]:
        """What stands in every text that `_strong` matches, in one spelling for each."""
        return tuple(name.encode() for name in (*filter(_is_strong, self.ids), *map(_kernel_of_url, self.urls)))

    @cached_property
    def _strong(self) -> str:
        """Ids that are nothing else, and URLs, wherever they stand."""
        parts = []
        if strong := [re.escape(id) for id in sorted(self.ids) if _is_strong(id)]:
            parts.append(rf"(?:^|[^0-9A-Za-z_-])(?:{'|'.join(strong)}){PART}(?:[^0-9A-Za-z_-]|$)")
        for url in sorted(self.urls):
            parts.append(_pattern_of_url(url))
        return "|".join(parts)

    @cached_property
    def _weak(self) -> str:
        return "|".join(re.escape(id) for id in sorted(self.ids) if not _is_strong(id))

    @cached_property
    def _weak_value(self) -> str:
        return rf"^(?:{self._weak}){PART}$" if self._weak else ""

    @cached_property
    def _pattern(self) -> str:
        """Of both, in JSON or any other text."""
        field = rf'"{_ID_FIELD}": ?(?:\[(?:"[^"]*", ?)*)?"(?:{self._weak}){PART}"'
        return "|".join(each for each in (self._strong, field if self._weak else "") if each)


def _is_strong(id: str) -> bool:
    return len(id) >= 6 and re.search("[0-9_-]", id) is not None


def _pattern_of_url(url: str) -> str:
    """Of a canonical URL, whatever its scheme and whether `www.` stands before its host; of a YouTube video, its id."""
    kernel = re.escape(_kernel_of_url(url))
    if _YOUTUBE.fullmatch(url):
        return rf"[/=]{kernel}(?:[^0-9A-Za-z_-]|$)"
    return rf"(?:^|[/.]){kernel}(?:[^0-9A-Za-z_/.-]|[.](?:[^0-9A-Za-z]|$)|$)"


def _kernel_of_url(url: str) -> str:
    video = _YOUTUBE.fullmatch(url)
    return video[1] if video else re.sub(r"^https?://(?:www\.)?", "", url)


def named_in(storage: Storage, key: str, names: Names) -> bool | None:
    """Whether a file holds any of the names, in clear, compressed or packed. None: what can be read of it holds none,
    and not all of it can."""
    if PurePosixPath(key).suffix.lower() in _WITHOUT_TEXT:
        return False
    with storage.local_file(key) as path, path.open("rb") as file:
        return _named(PurePosixPath(key).name, file, names)


def _named(name: str, file: IO[bytes], names: Names) -> bool | None:
    unread = False
    try:
        for part in _parts(name, file, names):
            if part:
                return True
            unread = unread or part is None
    except _DAMAGED:  # as it lies there
        file.seek(0)
        return names.in_text(_read(file)[0]) or None
    return None if unread else False


def _parts(name: str, file: IO[bytes], names: Names) -> Iterator[bool | None]:
    """`_named` of each thing that a file is made of."""
    suffix = PurePosixPath(name).suffix.lower()
    suffix = _SHORT.get(suffix, suffix)
    if suffix == ".tar":
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                yield names.is_file(f"tar/{member.name}")
                if member.isfile():
                    yield _named(member.name, tar.extractfile(member) or io.BytesIO(), names)
            file.seek(tar.offset)
            if (rest := file.read()).strip(b"\0"):  # it ends here for tarfile alone
                yield names.in_text(rest) or None
    elif suffix in (".zip", ".npz"):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                yield names.is_file(f"zip/{info.filename}")
                with archive.open(info) as inner:
                    yield _named(info.filename, inner, names)
    elif suffix in _PACKED:
        stem = PurePosixPath(name).stem
        with _PACKED[suffix](file) as inner:
            yield _named(stem if name.lower().endswith(suffix) else f"{stem}.tar", inner, names)
    elif suffix == ".parquet":
        yield _named_in_parquet(file, names)
    elif suffix not in _WITHOUT_TEXT:
        data, whole = _read(file)
        yield names.in_text(data) or (False if whole and _is_text(data) else None)


def _unpacked_zstd(file: IO[bytes]) -> IO[bytes]:
    return io.BytesIO(pa.CompressedInputStream(pa.BufferReader(file.read()), "zstd").read())


_DAMAGED = (
    pa.ArrowException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # a zip with a password, or of a kind that Python does not know
    ValueError,
)
_PACKED: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _unpacked_zstd,
}
_SHORT = {".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}  # tars, packed


def _read(file: IO[bytes]) -> tuple[bytes, bool]:
    """What a file holds, and whether that is all: of a damaged one, what comes before the damage."""
    try:
        return file.read(), True
    except _DAMAGED:
        file.seek(0)
    pieces = []
    with contextlib.suppress(*_DAMAGED):
        while piece := cast(io.BufferedIOBase, file).read1(_PIECE):
            pieces.append(piece)
    return b"".join(pieces), False


def _is_text(data: bytes) -> bool:
    """Whether a name in it would stand there as it is."""
    try:
        pa.array([data], pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return b"\0" not in data


def _named_in_parquet(file: IO[bytes], names: Names) -> bool:
    parquet = pq.ParquetFile(file, pre_buffer=False)
    metadata = parquet.schema_arrow.metadata or {}
    if any(names.in_text(value) for value in metadata.values()):
        return True
    return any(
        names.in_values(field, values)
        for batch in parquet.iter_batches(columns=_names_of_texts(parquet.schema_arrow), use_threads=False)
        for column, field in zip(batch.columns, batch.schema.names, strict=True)
        for field, values in _texts(field, column)
    )


def _names_of_texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if _holds_text(field.type)]


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_holds_text(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(field: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The columns of texts in a column, however deep."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield field, array
    elif pa.types.is_dictionary(kind):
        yield from _texts(field, array.dictionary)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(field, array.flatten())
    elif pa.types.is_struct(kind):
        for part, values in zip(kind, array.flatten(), strict=True):
            yield from _texts(part.name, values)


def scrubbed(key: str, data: bytes, names: Names) -> bytes:
    """A file without what it says of the names: without those lines, rows, or members of lists; empty where nothing is
    left, or where it is of no such kind, or damaged."""
    path = PurePosixPath(key)
    if path.suffix == ".gz":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked, whole = _read(cast(IO[bytes], file))
        inner = scrubbed(key.removesuffix(".gz"), unpacked, names) if whole else b""
        return gzip.compress(inner, mtime=0) if inner else b""
    if path.suffix in (".jsonl", ".csv"):
        lines = data.splitlines(keepends=True)
        records = lines if path.suffix == ".jsonl" else _records(lines)
        return b"".join(record for record in records if not names.in_text(record))
    if path.suffix == ".json":
        try:
            left = _pruned(json.loads(data), names)
        except ValueError:
            return b""
        return b"" if left is None else (json.dumps(left, indent=1, ensure_ascii=False) + "\n").encode()
    if path.suffix == ".parquet":
        return _scrubbed_parquet(data, names)
    return b""


def _records(lines: Sequence[bytes]) -> list[bytes]:
    """Those of a CSV file as they stand there, each with all the lines that its quoted texts take; none where it is no
    CSV file after all."""
    first = lines[0].decode("latin-1") if lines else ""
    reader = csv.reader((line.decode("latin-1") for line in lines), delimiter=max(",;\t|", key=first.count))
    try:
        ends = [reader.line_num for _ in reader]
    except csv.Error:
        return []
    return [b"".join(lines[begin:end]) for begin, end in pairwise([0, *ends])]


def _scrubbed_parquet(data: bytes, names: Names) -> bytes:
    try:
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError):
        return b""
    kept = [not names.in_text(json.dumps(row, ensure_ascii=False, default=str).encode()) for row in table.to_pylist()]
    if not any(kept):
        return b""
    return bytes_of(table.filter(pa.array(kept)), None)


def _pruned(value: Any, names: Names, field: str = "") -> Any:
    """A JSON value without the objects that name one; None where it does so itself. field: that it stands in."""

    def says(own: object, field: str) -> bool:
        return isinstance(own, str) and names.in_text(json.dumps({field: own}, ensure_ascii=False).encode())

    if isinstance(value, dict):
        if any(says(own, name) for name, own in value.items()):
            return None
        left = {name: _pruned(own, names, name) for name, own in value.items() if not says(name, "id")}
        return {name: own for name, own in left.items() if own is not None or value[name] is None}
    if isinstance(value, list):
        members = ((own, None if says(own, field) else _pruned(own, names, field)) for own in value)
        return [left for own, left in members if left is not None or own is None]
    return value


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def column(storage: Storage, key: str, name: str) -> pa.ChunkedArray:
    """A column of texts of a Parquet file; nothing of a damaged one."""
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read(key)), pre_buffer=False)
        return file.read([name], use_threads=False)[name]
    except (pa.ArrowException, OSError):
        return pa.chunked_array([], pa.string())


def rows_in(storage: Storage, key: str) -> int:
    """The number of rows of a Parquet file; 0 of a damaged one."""
    try:
        return int(pq.read_metadata(pa.BufferReader(storage.read(key))).num_rows)
    except (pa.ArrowException, OSError):
        return 0
