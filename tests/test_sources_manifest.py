import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Span
from marathon_pipeline.shipped import shipped
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.sources.row import manifest_schema

A, B = "https://example.org/a.mp4", "https://example.org/b.mp4"


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "videos.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def ids(path: Path) -> list[str]:
    return [source.source_id for source in read_manifest(path)[0]]


def problems(path: Path) -> list[tuple[int, str]]:
    return [(problem.line, problem.problem) for problem in read_manifest(path)[1]]


text = st.text(st.characters(exclude_categories=("C",)), max_size=12).map(str.strip)
rows = st.lists(
    st.fixed_dictionaries(
        {"url": st.integers(0, 5).map(lambda n: f"https://example.org/{n}.mp4")},
        optional={
            "licence": st.sampled_from(["CC0-1.0", "CC-BY-4.0"]),
            "split": st.sampled_from(["train", "val", "test", "tset"]),
            "start": st.floats(0, 50),
            "end": st.floats(0, 100),
            "metadata": st.dictionaries(text, text, max_size=2),
            "title": text,
        },
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=40)  # the first call imports pyarrow
@given(rows=rows)
def test_the_three_formats_of_the_same_rows_give_the_same_sources(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    columns = ["url", "licence", "split", "start", "end", "metadata", "title"]
    flat = [
        {**row, "metadata": json.dumps(row["metadata"]) if "metadata" in row else None, "title": row.get("title")}
        for row in rows
    ]
    read = [read_manifest(jsonl(folder, *rows))]
    with (folder / "videos.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(flat)
    read.append(read_manifest(folder / "videos.csv"))
    table = pa.table({name: pa.array([row.get(name) for row in flat]) for name in columns})
    pyarrow.parquet.write_table(table, folder / "videos.parquet")
    read.append(read_manifest(folder / "videos.parquet"))
    assert read[0][0] == read[1][0] == read[2][0]
    assert len({tuple(problem.problem for problem in found) for _, found in read}) == 1


def test_wrong_rows_are_reported_with_their_line_and_the_others_are_kept(tmp_path):
    path = jsonl(
        tmp_path,
        {"url": A},
        "",
        "{not json",
        {"url": ""},
        {"url": A, "path": "a.mp4"},
        {"url": "file:///etc/passwd"},
        {"url": B, "start": 3},
        {"url": B, "start": 9, "end": 3},
        {"url": B, "split": "dev"},
        {"url": B, "start": "soon", "end": 3},
        {"url": B, "id": "../b"},
        {"path": "absent.mp4"},
        "[1]",
        '{"url": "https://example.org/c", "weight": NaN}',
        {"url": B, "licence": 4},
        {"url": B},
    )
    assert [source.url for source in read_manifest(path)[0]] == [A, B]
    assert [line for line, _ in problems(path)] == [1 + n for n in range(2, 15)]


def test_each_wrong_row_says_what_is_wrong_and_how_to_mend_it(tmp_path):
    path = jsonl(tmp_path, {"url": A}, "{not json", "", {"url": ""}, {"path": "absent.mp4"}, {"url": A, "split": "dev"})
    found = read_manifest(path)[1]
    assert [problem.line for problem in found] == [2, 4, 5, 6]
    assert str(found[1]) == f"{path} line 4: url and path are both empty (give a URL or a path, or delete the row)"
    assert "absent.mp4 does not exist" in str(found[2])
    assert "split" in str(found[3]) and all(problem.mend for problem in found)


def test_a_csv_row_after_quoted_line_breaks_is_reported_by_its_own_line(tmp_path):
    path = tmp_path / "videos.csv"
    path.write_text(f'url,title\n{A},"two\nlines"\n\n{B},one,too many\nnonsense,x\n{B},"""quoted"" title"\n')
    assert [line for line, _ in problems(path)] == [5, 6]
    assert len(ids(path)) == 2


def test_a_parquet_row_is_reported_by_its_number(tmp_path):
    path = tmp_path / "videos.parquet"
    table = pa.table({"url": [A, None, B], "score": [1.5, 2.5, 3.5], "raw": [None, None, b"\xff"]})
    pyarrow.parquet.write_table(table, path)
    sources, found = read_manifest(path)
    assert [json.loads(source.metadata) for source in sources] == [{"score": 1.5}]
    assert [problem.line for problem in found] == [2, 3] and f"{path} row 2: url and path" in str(found[0])


def test_a_parquet_value_that_python_has_none_for_makes_its_row_alone_a_wrong_one(tmp_path):
    path = tmp_path / "videos.parquet"
    days = pa.array([0, 2**31 - 1, 1], pa.int32()).cast(pa.date32())
    pyarrow.parquet.write_table(pa.table({"url": [A, f"{A}?2", B], "day": days}), path)
    sources, found = read_manifest(path)
    assert [json.loads(source.metadata)["day"] for source in sources] == ["1970-01-01", "1970-01-02"]
    assert [problem.line for problem in found] == [2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("videos.txt", b"https://example.org", ".jsonl, .csv, .parquet"),
        ("absent.jsonl", None, "does not exist"),
        ("videos.jsonl", b"", "names no video"),
        ("videos.jsonl", b"url,path\nx,y\n", "not JSON lines"),
        ("videos.jsonl", '{"url": "https://example.org/é"}'.encode("latin-1"), "UTF-8"),
        ("videos.csv", "url\nhttps://example.org\n".encode("utf-16"), "UTF-8"),
        ("videos.csv", b"url;title\nx;y\n", "no column is named url or path"),
        ("videos.csv", b"url,title,title\nx,y,z\n", "same name"),
        ("videos.csv", b"", "no column"),
        ("videos.csv", b"url,title\n", "names no video"),
        ("videos.parquet", b"PAR1 or not", "not a readable Parquet file"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused_in_one_line(name, content, says, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_manifest(tmp_path / name)
    assert says in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_one_source_become_its_sorted_segments(tmp_path):
    spans = [(60, 90), (0, 30.5), (60, 90)]
    path = jsonl(tmp_path, *({"url": A + f"?utm_id={n}", "start": s, "end": e} for n, (s, e) in enumerate(spans)))
    (source,), found = read_manifest(path)
    assert source.segments == (Span(start=0, end=30.5), Span(start=60, end=90)) and not found


def test_rows_that_contradict_an_earlier_row_of_their_source_are_reported(tmp_path):
    first = {"url": A, "licence": "CC0-1.0", "start": 0, "end": 9}
    path = jsonl(
        tmp_path,
        first,
        {**first, "licence": "CC-BY-4.0"},
        {**first, "start": None, "end": None},
        {**first, "id": "other"},
        {"url": B, "id": read_manifest(jsonl(tmp_path, first))[0][0].source_id},
        {"url": B, "id": "b"},
        {"url": B, "id": "c"},
    )
    assert [line for line, _ in problems(path)] == [2, 3, 4, 5, 7]
    assert ids(path)[1:] == ["b"]


def test_a_youtube_video_keeps_its_id_whatever_its_row_calls_it(tmp_path):
    row = {"url": "https://youtu.be/aqz-KE-bpKQ", "id": "v_1", "data_source": "activitynet"}
    assert ids(jsonl(tmp_path, row)) == ["yt_aqz-KE-bpKQ"]


def test_free_columns_and_metadata_are_kept_as_metadata(tmp_path):
    (source,), _ = read_manifest(jsonl(tmp_path, {"url": A, "title": "é", "none": None, "metadata": {"deep": [1, {}]}}))
    assert json.loads(source.metadata) == {"title": "é", "deep": [1, {}]}


def test_a_licence_may_be_spelled_license(tmp_path):
    (source,), _ = read_manifest(jsonl(tmp_path, {"url": A, "license": "CC0-1.0"}))
    assert (source.licence, source.metadata) == ("CC0-1.0", "{}")


def test_a_local_file_is_known_by_its_content_not_by_its_name(tmp_path):
    for name in ("a.mp4", "renamed.mp4"):
        (tmp_path / name).write_bytes(b"film")
    (first,), _ = read_manifest(jsonl(tmp_path, {"path": "a.mp4"}))
    (second,), _ = read_manifest(jsonl(tmp_path, {"path": "renamed.mp4"}))
    assert first.source_id == second.source_id == f"f_{first.sha256[:16]}"
    assert first.path == str(tmp_path / "a.mp4") and first.bytes == 4
    both = jsonl(tmp_path, {"path": "a.mp4", "id": "one"}, {"path": "renamed.mp4", "id": "two"})
    assert problems(both) == [(2, "the same video is already named one")]


def test_a_file_known_from_an_earlier_run_is_hashed_again_only_when_it_changed(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"film")
    path = jsonl(tmp_path, {"path": "a.mp4"})
    (source,), _ = read_manifest(path)
    marked = source.model_copy(update={"sha256": "e" * 64})
    assert read_manifest(path, {marked.path: marked})[0][0].sha256 == "e" * 64
    os.utime(file, ns=(1, 1))
    assert read_manifest(path, {marked.path: marked})[0][0].sha256 == source.sha256


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_raise_anything_but_a_user_error(tmp_path_factory, data):
    for suffix in (".jsonl", ".csv", ".parquet"):
        path = tmp_path_factory.mktemp("bytes") / f"videos{suffix}"
        path.write_bytes(b"url,path\n" + data if suffix == ".csv" else data)
        try:
            read_manifest(path)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "row",
    [
        '{"url": ' * 3000,
        '{"url": "https://example.org/\\ud800"}',
        '{"url": "https://example.org/a", "title": "\\ud800"}',
        '{"url": "https://example.org/a", "\\ud800": 1}',
        '{"path": "a\\u0000b"}',
        '{"url": "https://example.org/a", "metadata": "no"}',
        '{"url": "https://example.org/a", "metadata": "' + "[" * 100_000 + '"}',
        '{"url": "https://example.org/a", "metadata": {"x": ' + "[" * 400 + "]" * 400 + "}}",
        '{"url": "https://example.org/a", "n": ' + "9" * 5000 + "}",
        '{"url": "https://example.org/a", "n": 1e999}',
        '{"url": 3}',
        '{"url": "https://example.org/a", "start": true, "end": [1]}',
    ],
)
def test_a_hostile_row_is_a_problem_and_no_traceback(row, tmp_path):
    sources, found = read_manifest(jsonl(tmp_path, {"url": B}, row))
    assert len(sources) == 1 and len(found) == 1


def test_the_sample_manifests_are_right_and_agree():
    sources, found = read_manifest(shipped("manifests") / "sample.jsonl")
    assert not found and len(sources) == 3 and len(sources[1].segments) == 2
    assert read_manifest(shipped("manifests") / "sample.csv") == (sources, [])


def test_the_shipped_schema_is_the_rows():
    assert (shipped("manifests") / "manifest.schema.json").read_text() == manifest_schema()
