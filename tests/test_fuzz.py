"""Mutated videos, manifests, jobs and templates: a typed reason or one line each. `make fuzz` does more of it."""

import json
import os
import shutil
from pathlib import Path

import fuzz
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marathon_pipeline.config import parse_job
from marathon_pipeline.errors import UserError
from marathon_pipeline.shipped import shipped
from marathon_pipeline.sources.inputs import sources_of_inputs
from marathon_pipeline.taxonomy import load_taxonomy

MUCH = int(os.environ.get("MARATHON_FUZZ", "30"))  # examples of each test

ROWS = [
    {"url": "https://example.org/a.mp4", "licence": "CC0-1.0", "start": 1.5, "end": 90.0, "metadata": {"k": [1, None]}},
    {"path": "a.mp4", "id": "a", "data_source": "quay", "split": "val"},
]
NASTY = (
    "../../etc/passwd",
    "\ud800",
    "\0",
    "a" * 300,
    "[" * 100_000,
    "https://[::1",
    "1e999",
    "-inf",
    "/dev/zero",
    "{",
    '"',
    "\u2028",
    "\x1e\x1b[2J",
)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


Edits = list[tuple[float, int, bytes]]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=6) | st.sampled_from(NASTY).map(as_bytes)),
    min_size=1,
    max_size=5,
)


def edited(data: bytes, changes: Edits) -> bytes:
    """Some bytes taken out, others put in, at places given as shares of the length."""
    for place, out, put in changes:
        at = int(place * len(data))
        data = data[:at] + put + data[at + out :]
    return data


def one_line(error: UserError) -> None:
    assert len(str(error).splitlines()) == 1, str(error)


def test_mutated_videos_end_by_a_typed_reason_and_open_nothing_else(tmp_path: Path) -> None:
    assert fuzz.outcomes(tmp_path, 10).faults == []


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "a.mp4").write_bytes(b"a")
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 3))
    (folder / "m.csv").write_text(
        'url,path,id,start,end,metadata\nhttps://e.org/a,,,1,2,"{""a"": 1}"\n,a.mp4,b,,,\n' * 2
    )
    pyarrow.parquet.write_table(pa.table({"url": [ROWS[0]["url"]] * 9, "start": [1.0] * 9}), folder / "m.parquet")
    return folder


@pytest.mark.parametrize("name", ["m.jsonl", "m.csv", "m.parquet"])
@settings(max_examples=MUCH)
@given(changes=edits)
def test_mutated_manifests_give_problems_of_one_line(manifests: Path, name: str, changes: Edits) -> None:
    path = manifests / f"mutated{Path(name).suffix}"
    path.write_bytes(edited((manifests / name).read_bytes(), changes))
    try:
        for problem in sources_of_inputs([str(path)])[1]:
            assert len(str(problem).splitlines()) == 1, str(problem)
    except UserError as error:
        one_line(error)


@settings(max_examples=MUCH)
@given(
    cell=st.sampled_from(NASTY) | st.text(max_size=8),
    key=st.sampled_from(["url", "path", "id", "data_source", "start", "metadata"]),
)
def test_a_nasty_cell_is_a_problem_of_one_line(manifests: Path, cell: str, key: str) -> None:
    path = manifests / "cell.jsonl"
    path.write_text(json.dumps({**ROWS[1], key: cell}) + "\n")
    _, problems = sources_of_inputs([str(path)])
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
JOBS = (shipped("jobs/demo.yaml").read_bytes(), BOMB.encode(), b"dataset: 2020-99-99\n", b"dataset: " + b"[" * 5000)


@settings(max_examples=MUCH)
@given(which=st.integers(0, len(JOBS) - 1), changes=st.just([]) | edits)
def test_mutated_jobs_are_a_user_error_of_one_line(which: int, changes: Edits) -> None:
    try:
        parse_job(edited(JOBS[which], changes).decode("utf-8", "replace"), "job.yaml", [])
    except UserError as error:
        one_line(error)


@settings(max_examples=MUCH)
@given(which=st.integers(0, 30), changes=edits)
def test_mutated_templates_are_problems_of_one_line(
    which: int, changes: Edits, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "templates"
    source = shipped("task_templates")
    files = sorted(path.relative_to(source) for path in source.rglob("*.yaml"))
    shutil.copytree(source, folder, dirs_exist_ok=True)
    changed = folder / files[which % len(files)]
    changed.write_bytes(edited(changed.read_bytes(), changes))
    try:
        load_taxonomy(folder)
    except UserError as error:
        one_line(error)
