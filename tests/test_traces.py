"""Where a name is found, in files of every kind; and what is left of one that says it."""

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.dataset.traces import Names, named_in, scrubbed

NAMES = Names(["yt_gone-00001"])
SAYS, KEPT = b'{"video_id": "yt_gone-00001"}\n', b'{"video_id": "yt_kept-00001"}\n'


def tar_of(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", data)
    return buffer.getvalue()


def two(data: bytes) -> bytes:
    """Gzip in two members, as a journal is."""
    return gzip.compress(KEPT) + gzip.compress(data)


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


PACKED = {
    "a.jsonl.gz": two,
    "a.tar": tar_of,
    "a.tgz": lambda data: gzip.compress(tar_of(data)),
    "a.tar.gz": lambda data: gzip.compress(tar_of(data)),
    "a.tar.bz2": lambda data: bz2.compress(tar_of(data)),
    "a.txt.xz": lzma.compress,
    "a.tar.zst": lambda data: zstd(tar_of(data)),
    "a.json.zst": lambda data: zstd(KEPT) + zstd(data),
    "a.zip": zip_of,
    "a.npz": zip_of,
    "b.zip": lambda data: zip_of(two(data)).replace(b"a.json", b"a.j.gz"),
}


@pytest.mark.parametrize("key", PACKED)
def test_a_name_in_a_packed_file_is_found_and_one_without_it_is_clean(tmp_path: Path, key: str) -> None:
    storage = Storage(str(tmp_path))
    for data, named in ((SAYS, True), (KEPT, False)):
        storage.write(key, PACKED[key](data))
        assert named_in(storage, key, NAMES) is named


@pytest.mark.parametrize("key", [key for key in PACKED if key != "a.tar"])
def test_a_damaged_packed_file_never_passes_as_clean(tmp_path: Path, key: str) -> None:
    storage, data = Storage(str(tmp_path)), PACKED[key](KEPT * 99)
    middle = len(data) // 3
    for damaged in (data[:-9], data[:middle] + b"\xff" * 9 + data[middle + 9 :], b"\x00nothing of the kind"):
        storage.write(key, damaged)
        assert named_in(storage, key, NAMES) is None


def test_what_stands_behind_the_end_of_a_tar_never_passes_as_clean(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for behind, named in ((tar_of(SAYS), True), (tar_of(KEPT), None), (bytes(10_240), False)):
        storage.write("a.tar", tar_of(KEPT) + behind)
        assert named_in(storage, "a.tar", NAMES) is named


def test_what_can_be_read_of_a_damaged_file_is_searched_and_it_goes_as_a_whole(tmp_path: Path) -> None:
    storage, data = Storage(str(tmp_path)), gzip.compress(SAYS) + gzip.compress(KEPT)[:-9]
    storage.write("a.jsonl.gz", data)
    assert named_in(storage, "a.jsonl.gz", NAMES) is True
    assert scrubbed("a.jsonl.gz", data, NAMES) == b""
    assert scrubbed("a.parquet", b"PAR1 yt_gone-00001", NAMES) == b""


@pytest.mark.parametrize("data", [b"7z\xbc\xaf\x27\x1c\x00\x04", KEPT.decode().encode("utf-16"), b"caf\xe9"])
def test_what_is_no_text_and_of_no_kind_that_is_opened_never_passes_as_clean(tmp_path: Path, data: bytes) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a.bin", data)
    assert named_in(storage, "a.bin", NAMES) is None
    storage.write("a.bin", data + SAYS)
    assert named_in(storage, "a.bin", NAMES) is True


def test_a_scrubbed_journal_keeps_the_lines_of_all_its_members() -> None:
    left = scrubbed("a.jsonl.gz", two(SAYS) + gzip.compress(KEPT), NAMES)
    assert gzip.decompress(left) == KEPT * 2


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_scrubbed_csv_loses_whole_records_and_parses_as_before(delimiter: str) -> None:
    rows = [["id", "text"], ["1", 'kept,\nin "two" lines'], ["yt_gone-00001", "private\nin\nthree lines"], ["2", "a;b"]]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    left = scrubbed("a.csv", buffer.getvalue().encode(), NAMES).decode()
    assert list(csv.reader(io.StringIO(left, newline=""), delimiter=delimiter)) == [rows[0], rows[1], rows[3]]


def test_a_csv_that_does_not_parse_goes_as_a_whole() -> None:
    assert scrubbed("a.csv", b'id,text\n1,"never closed ' + b"x" * 200_000 + b"\nyt_gone-00001", NAMES) == b""
